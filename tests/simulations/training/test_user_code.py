"""Networks in a user's file: their source, and permission to run it."""

from pathlib import Path

import pytest

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training import user_code
from actrelax.simulations.training.user_code import NAMED, fingerprint, loaded, permitted

NET = """
import importlib
import math
import helpers
from package.layers import wide
from torch import nn

def net(input_shape, classes):
    late = importlib.import_module("later")
    mask = (Path(__file__).parent / "mask.npy").read_bytes()
    (Path(__file__).parent / "log.txt").write_text("")
    return helpers.SIZE
"""
FILES = {
    "net.py": NET,
    "helpers.py": "SIZE = 3",
    "package/__init__.py": "",
    "package/layers.py": "from . import deeper\nfrom .deeper import wide",
    "package/deeper.py": "import helpers\ndef wide(): ...",
    "later.py": "",
    "mask.npy": "1 0 1",
    "unused.py": "",
    "log.txt": "",
}


@pytest.fixture
def net(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return f"{tmp_path / 'net.py'}:net"


def test_a_network_is_made_of_its_file_and_of_what_that_imports_or_names(net):
    found = fingerprint(net)
    assert sorted(found) == sorted({*FILES, NAMED} - {"net.py", "unused.py", "log.txt"})
    folder = Path(net).parent
    for name in found:
        path = folder / name.replace(NAMED, "net.py")
        before = path.read_text()
        path.write_text(f"{before}\n# changed")
        changed = {other for other, value in fingerprint(net).items() if found[other] != value}
        assert changed == {name}
        path.write_text(before)
    assert fingerprint("digits-cnn") == {}


def test_a_copy_elsewhere_has_the_same_fingerprint(net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = fingerprint(net)
    (tmp_path / "net.py").rename(tmp_path / "copy.py")
    assert fingerprint("copy.py:net") == found


@pytest.mark.parametrize("text", ["def", "\0", "x = '\\0' + 'a/' * 9999 + '.' + '..' + '/'", "from ....... import a"])
def test_any_text_has_a_fingerprint(tmp_path, text):
    (tmp_path / "net.py").write_text(text)
    assert list(fingerprint(f"{tmp_path / 'net.py'}:net")) == [NAMED]


def test_imports_find_the_files_beside_it_and_load_them_anew(net):
    folder = Path(net).parent
    for size in (3, 4):
        (folder / "helpers.py").write_text(f"SIZE = {size}  # {'x' * size}")
        with loaded(net) as function:
            assert size == function.__globals__["helpers"].SIZE


def test_a_module_that_is_loaded_already_is_not_taken_for_the_one_beside_the_file(tmp_path):
    (tmp_path / "pytest.py").write_text("")
    (tmp_path / "net.py").write_text("import pytest")
    with (
        pytest.raises(ActrelaxError, match=r"imports .*pytest\.py, but .* is loaded as 'pytest': rename your module"),
        loaded(f"{tmp_path / 'net.py'}:net"),
    ):
        pass


def test_a_file_is_run_by_those_who_trust_it_or_name_it(tmp_path):
    own, run = f"{tmp_path / 'net.py'}:net", tmp_path / "run"
    assert permitted(run, "digits-cnn") == "digits-cnn"
    assert permitted(run, own, trust=True) == own
    assert permitted(run, own, named="copy.py:net") == "copy.py:net"
    for options, sentence in (
        ({}, f"the run in {run} calls 'net' of {tmp_path / 'net.py'}, which may do anything: pass --trust (trust=True"),
        ({"named": "copy.py:other"}, f"the run in {run} calls 'net' of net.py, got copy.py:other: give FILE.py:net."),
        ({"named": "digits-cnn", "trust": True}, f"the run in {run} calls 'net' of net.py, got digits-cnn: give FILE"),
    ):
        with pytest.raises(ActrelaxError) as refused:
            permitted(run, own, **options)
        assert str(refused.value).startswith(sentence)
    with pytest.raises(ActrelaxError, match=r"has the network digits-cnn, got net\.py:net: leave --network out\.$"):
        permitted(run, "digits-cnn", named="net.py:net")


def test_what_was_loaded_is_forgotten_at_the_next_load(net, tmp_path):
    with loaded(net):
        pass
    assert {"helpers", "package", "package.deeper"} <= user_code._LOADED
    other = tmp_path / "other"
    other.mkdir()
    (other / "net.py").write_text("import helpers\nnet = dict")
    (other / "helpers.py").write_text("SIZE = 9")
    with loaded(f"{other / 'net.py'}:net") as function:
        assert function is dict
    assert {"helpers"} == user_code._LOADED
