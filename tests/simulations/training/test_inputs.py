"""Runs are refused if files, images, options or weights have changed since training, unless accepted."""

import json
import shutil

import numpy as np
import pytest

from actrelax.models.errors import ActrelaxError
from actrelax.simulations import cli
from actrelax.simulations.training.recorder import Recorder
from actrelax.simulations.training.saved import load_run

NET = """
from pathlib import Path
from torch import nn
from layers import activation

(Path(__file__).parent / "executed").touch()

def net(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), activation(), nn.Linear(6, classes))
"""
QUICK = ["--epochs", "2", "--steps", "3", "--threads", "1", "--quiet"]


@pytest.fixture
def shared(tmp_path, npz):
    """Return the folder of a run with a user's network and a user's data."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "layers.py").write_text("from torch.nn import Tanh as activation")
    out, network = tmp_path / "run", f"{tmp_path / 'net.py'}:net"
    assert cli.main(["train", "--dataset", str(npz), "--network", network, *QUICK, "--out", str(out)]) == 0
    (tmp_path / "executed").unlink()
    return out


def uses(out, place):
    """Return the commands that use a run."""
    evaluate = ["evaluate", out]
    relax = ["relax", "--run", out, "--steps", "3", "--out", place / "relaxed"]
    check = ["check", "--run", out, "--engine", "closed-form"]
    return {name: [str(word) for word in words] for name, words in locals().items() if isinstance(words, list)}


def status(capsys, words, *more):
    """Run a command, and return its exit status and standard error."""
    capsys.readouterr()
    return cli.main([*words, *map(str, more)]), capsys.readouterr().err


def unfinished(out):
    (out / "summary.json").unlink()
    return ["train", "--resume", str(out), "--quiet"]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_file_that_a_run_names_is_not_run_unasked(shared, tmp_path, capsys):
    every = {**uses(shared, tmp_path), "train": unfinished(shared)}
    before = contents(shared)
    for use, words in every.items():
        assert status(capsys, words) == (
            2,
            f"actrelax {use}: the run in {shared} calls 'net' of {tmp_path / 'net.py'}, which may do anything: pass "
            "--trust (trust=True in Python) if you trust that file, or --network FILE.py:FUNCTION to name your own "
            "copy of it.\n",
        )
    assert not (tmp_path / "executed").exists()
    assert contents(shared) == before
    (tmp_path / "mine").mkdir()
    for name in ("net.py", "layers.py"):
        shutil.move(tmp_path / name, tmp_path / "mine" / name)
    for words in every.values():
        assert status(capsys, words, "--network", tmp_path / "mine" / "net.py:net")[0] == 0
        (tmp_path / "mine" / "executed").unlink()
        assert status(capsys, words, "--network", tmp_path / "mine" / "net.py:other")[0] == 2
    assert not (tmp_path / "mine" / "executed").exists()


@pytest.mark.parametrize("changed", ["net.py", "layers.py", "test images", "config.json", "checkpoint.pt"])
def test_what_changed_is_refused_and_named(shared, tmp_path, npz, arrays, capsys, changed):
    """The user may accept the change; a run that continues records its new inputs."""
    if changed == "test images":
        np.savez(npz, **arrays | {"x_test": arrays["x_test"][::-1]})
    elif changed == "config.json":
        config = json.loads((shared / changed).read_text())
        config["experiment"]["lr"] = 0.2
        (shared / changed).write_text(json.dumps(config))
    elif changed == "checkpoint.pt":
        other = tmp_path / "other"
        options = [*QUICK, "--network", f"{tmp_path / 'net.py'}:net", "--seed", "1", "--out", str(other)]
        assert cli.main(["train", "--dataset", str(npz), *options]) == 0
        shutil.copy(other / changed, shared / changed)
    else:
        text = (tmp_path / changed).read_text()
        (tmp_path / changed).write_text(text.replace("Tanh", "ReLU") + "\n")
    named = {"net.py": "the network's file", "checkpoint.pt": "belongs to another run"}.get(changed, changed)
    every = uses(shared, tmp_path)
    for words in (every["evaluate"], every["check"], unfinished(shared)):
        (tmp_path / "executed").unlink(missing_ok=True)
        before = contents(shared)
        found, said = status(capsys, words, "--trust")
        assert (found, said.count("\n")) == (2, 1)
        assert named in said
        assert "--accept-changes" in said
        assert contents(shared) == before
        assert not (tmp_path / "executed").exists() or changed in ("test images", "checkpoint.pt")
        assert status(capsys, words, "--trust", "--accept-changes")[0] == 0
    assert status(capsys, every["evaluate"], "--trust") == (0, "")


@pytest.mark.parametrize("program", ["evaluate", "relax"])
def test_the_runs_own_data_set_is_compared_by_any_of_its_names(
    shared, tmp_path, npz, arrays, capsys, program, monkeypatch
):
    words = uses(shared, tmp_path)[program]
    monkeypatch.chdir(tmp_path)
    np.savez(npz, **arrays | {"x_test": arrays["x_test"][::-1]})
    for named in (npz, npz.name, f"run/../{npz.name}"):
        found, said = status(capsys, words, "--trust", "--dataset", named)
        assert (found, said.count("\n")) == (2, 1)
        assert said.startswith(f"actrelax {program}: test images changed since the run in {shared} was trained: ")
        assert status(capsys, words, "--trust", "--dataset", named, "--accept-changes")[0] == 0
    shutil.copy(npz, tmp_path / "other.npz")
    assert status(capsys, words, "--trust", "--dataset", "other.npz")[0] == 0


def test_load_run_refuses_the_same(shared, tmp_path):
    with pytest.raises(ActrelaxError, match="which may do anything: pass --trust"):
        load_run(shared)
    assert load_run(shared, trust=True).module is not None
    assert load_run(shared, network=f"{tmp_path / 'net.py'}:net").module is not None
    (tmp_path / "layers.py").write_text("from torch.nn import ReLU as activation")
    with pytest.raises(
        ActrelaxError, match=r"^layers\.py changed since the run in .* was trained: undo the change, or"
    ):
        load_run(shared, trust=True)
    assert load_run(shared, trust=True, accept_changes=True).module is not None


def test_an_earlier_checkpoint_is_not_the_finished_runs(shared, capsys, monkeypatch, tmp_path):
    kept = []
    saved = Recorder.on_epoch

    def keep(self, training):
        saved(self, training)
        kept.append((self.folder.path / "checkpoint.pt").read_bytes())

    monkeypatch.setattr(Recorder, "on_epoch", keep)
    out = tmp_path / "named"
    assert cli.main(["train", "--network", "digits-mlp", *QUICK, "--out", str(out)]) == 0
    (out / "checkpoint.pt").write_bytes(kept[0])
    found, said = status(capsys, ["evaluate", str(out)])
    assert found == 2
    assert said.startswith(f"actrelax evaluate: checkpoint.pt changed since the run in {out} was trained: undo the")
    (out / "fingerprints.json").unlink()
    assert (
        "has no fingerprints to compare its inputs with: start the run again, or"
        in status(capsys, ["evaluate", str(out)])[1]
    )
    (out / "fingerprints.json").write_text('{"files": 3}')
    assert status(capsys, ["evaluate", str(out)])[1].endswith(
        "holds no fingerprints: fingerprints.json can't be read.\n"
    )


def test_a_longer_run_and_its_best_network_are_its_own(tmp_path, capsys):
    out, other = tmp_path / "run", tmp_path / "other"
    usual = ["train", "--network", "digits-mlp", *QUICK, "--validation", "99"]
    for folder, seed in ((out, "0"), (other, "1")):
        assert cli.main([*usual, "--seed", seed, "--out", str(folder)]) == 0
    assert cli.main(["train", "--resume", str(out), "--epochs", "3", "--quiet"]) == 0
    assert cli.main(["evaluate", str(out), "--best"]) == 0
    shutil.copy(other / "best.pt", out)
    assert status(capsys, ["evaluate", str(out)]) == (0, "")
    found, said = status(capsys, ["evaluate", str(out), "--best"])
    assert (found, said.partition(": start")[0]) == (2, f"actrelax evaluate: {out / 'best.pt'} belongs to another run")


def test_options_of_a_resumption_are_refused_elsewhere(capsys, tmp_path):
    for words in (["train", "--out", str(tmp_path / "run")], ["relax"], ["check"]):
        for option in (["--trust"], ["--accept-changes"]):
            found, said = status(capsys, words, *option)
            assert (found, said.count("\n")) == (2, 1)
            assert "leave them out" in said
