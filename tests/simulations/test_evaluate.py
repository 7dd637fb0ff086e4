"""A trained network is restored, and tested on any data set."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import actrelax
from actrelax.models.errors import ActrelaxError
from actrelax.simulations import cli
from actrelax.simulations.data.datasets import read
from actrelax.simulations.training.saved import load_run

QUICK = ["--epochs", "2", "--steps", "3", "--threads", "1", "--quiet"]


def run(*arguments):
    return cli.main([*map(str, arguments)])


@pytest.fixture
def trained(tmp_path, npz):
    out = tmp_path / "run"
    options = ["--assumptions", "random-feedback", "--normalise", "channels", "--network", "digits-mlp"]
    assert run("train", "--dataset", npz, *QUICK, *options, "--out", out) == 0
    return out


def test_load_run(trained, npz):
    again = load_run(str(trained))
    assert actrelax.load_run is load_run
    assert again.module is None
    assert again.experiment.relaxation.assumptions == "random-feedback"
    data = read(npz)
    raw = data.test.images.double() / 255
    train = data.train.images.double() / 255
    expected = ((raw - train.mean()) / train.std(correction=0)).float()
    assert torch.allclose(again.preprocess(data.test.images), expected, atol=1e-6)
    share = (again.network(expected).argmax(1) == data.test.labels).double().mean()
    assert share == pytest.approx(again.folder.summary().test_accuracy)
    feedback = again.network.projections["hidden1->output"].feedback
    assert feedback is not None
    assert not isinstance(feedback, nn.Parameter)
    torch.save(again.preprocess, trained / "preprocess.pt")
    assert torch.equal(torch.load(trained / "preprocess.pt", weights_only=False)(raw), again.preprocess(raw))


DIGITS = "nought one two three four five six seven eight nine"


def test_classes_of_folders_are_known_by_their_names(tmp_path, arrays, capsys):
    """A folder with some of the classes has the labels of training, not labels from 0."""
    for i, (image, label) in enumerate(zip(arrays["x_train"], arrays["y_train"], strict=True)):
        for root in ["all"] + ["some"] * (label in (3, 8)):
            file = tmp_path / root / DIGITS.split()[label] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    out = tmp_path / "run"
    options = ["--network", "digits-mlp", "--rule", "backprop", "--epochs", "30", "--lr", "0.5"]
    assert run("train", "--dataset", f"{tmp_path}/all/", "--test-split", "0.3", *options, "--quiet", "--out", out) == 0
    capsys.readouterr()
    assert run("evaluate", out, "--json") == 0
    own = json.loads(capsys.readouterr().out)
    assert own == {**own, "dataset": "all", "images": 30, "test_accuracy": load_run(out).folder.summary().test_accuracy}
    (tmp_path / "link").symlink_to(tmp_path / "all")
    for others in (["--test-split", "0.5"], ["--dataset", f"{tmp_path}/link/", "--test-split", "0.5"]):
        assert run("evaluate", out, *others) == 2  # it would be tested on images that it has learned
        assert "the run was trained with --test-split 0.3, and another would test it on" in capsys.readouterr().err
    assert run("evaluate", out, "--dataset", f"{tmp_path}/link/", "--json") == 0
    assert json.loads(capsys.readouterr().out)["images"] == 30
    assert run("evaluate", out, "--dataset", f"{tmp_path}/some/", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == np.isin(arrays["y_train"], (3, 8)).sum()
    assert found["test_accuracy"] > 0.8
    assert run("relax", "--run", out, "--out", tmp_path / "relaxed", "--steps", "2") == 0
    (tmp_path / "some" / "ten").mkdir()
    Image.fromarray(image).save(tmp_path / "some" / "ten" / "0.png")
    assert run("evaluate", out, "--dataset", f"{tmp_path}/some/") == 2
    assert "'ten' of some is not a class of " in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["fp64", "bf16", "tf32"])
def test_mixed_precision_is_of_training(tmp_path, npz, capsys, precision):
    """The weights are tested in their stored precision, also for a run on a GPU."""
    out, trained_in = tmp_path / "run", precision.replace("tf32", "fp32")
    options = ["--network", "digits-mlp", "--precision", trained_in, "--out", out]
    assert run("train", "--dataset", npz, *QUICK, *options) == 0
    config = json.loads((out / "config.json").read_text())
    config["experiment"]["precision"], config["execution"]["device"] = precision, "cuda"
    (out / "config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert run("evaluate", out, "--json", "--accept-changes") == 0
    trained = load_run(out, accept_changes=True)
    assert json.loads(capsys.readouterr().out)["test_accuracy"] == trained.folder.summary().test_accuracy
    dtype = torch.float64 if precision == "fp64" else torch.float32
    assert {p.dtype for p in trained.network.parameters()} == {dtype}


def test_a_run_is_found_again_from_another_folder(tmp_path, npz, monkeypatch):
    """Holds also if data, data folder and network were given as relative paths."""
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "def small(input_shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert run("train", "--dataset", "tiny.npz", *QUICK, "--network", "own.py:small", "--out", "one") == 0
    assert run("train", "--dataset", "tiny", "--data-dir", ".", *QUICK, "--network", "digits-mlp", "--out", "two") == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name, options in (("one", ["--trust"]), ("two", [])):
        assert run("evaluate", tmp_path / name, *options) == 0
        assert run("train", "--resume", tmp_path / name) == 0


def test_load_run_gives_the_plain_module_back(tmp_path, npz):
    own = tmp_path / "own.py"
    own.write_text(
        "from torch import nn\n"
        "def small(input_shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.Tanh(), nn.Linear(7, classes))\n"
    )
    out = tmp_path / "run"
    assert run("train", "--dataset", npz, *QUICK, "--network", f"{own}:small", "--out", out) == 0
    again = load_run(out, trust=True)
    images, labels = read(npz).test
    assert isinstance(again.module, nn.Sequential)
    assert torch.equal(again.module(again.preprocess(images)), again.network(again.preprocess(images)))
    share = (again.module(again.preprocess(images)).argmax(1) == labels).double().mean()
    assert share == pytest.approx(again.folder.summary().test_accuracy)
    own.unlink()
    with pytest.raises(ActrelaxError, match=r"own\.py is not a Python file: give your network as"):
        load_run(out, trust=True, accept_changes=True)


def test_evaluate(trained, npz, arrays, tmp_path, capsys):
    assert run("evaluate", trained) == 0
    accuracy = load_run(trained).folder.summary().test_accuracy
    assert capsys.readouterr().out == f"test accuracy {accuracy:.2%} on 40 images of tiny: {trained}\n"
    other = tmp_path / "other.npz"
    np.savez(other, **arrays | {"x_test": arrays["x_train"][:7], "y_test": arrays["y_train"][:7]})
    assert run("evaluate", trained, "--dataset", other, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    again = load_run(trained)
    images, labels = read(other).test
    share = (again.network(again.preprocess(images)).argmax(1) == labels).double().mean()
    assert found == {"run": str(trained), "dataset": "other", "test_accuracy": pytest.approx(share), "images": 7}


def test_what_cannot_be_evaluated(trained, arrays, tmp_path, capsys):
    np.savez(tmp_path / "wide.npz", **{k: np.repeat(x, 2, 2) if x.ndim == 3 else x for k, x in arrays.items()})
    np.savez(tmp_path / "many.npz", **arrays | {"y_train": np.arange(100) % 15})
    for arguments, sentence in (
        ([tmp_path / "nix"], f"{tmp_path / 'nix'} holds no run: config.json can't be read."),
        ([trained, "--dataset", tmp_path / "wide.npz"], "the network takes (batch, 1, 8, 8), got (40, 1, 8, 16)."),
        (
            [trained, "--dataset", tmp_path / "many.npz"],
            f"many has 15 classes, but the network of {trained} has 10 outputs: give another --dataset.",
        ),
        ([trained, "--test-split", "0.5"], "--test-split is for sets without test images, but "),
        ([trained, "--device", "cuda:99"], "device 'cuda:99' is not available: this machine has cpu"),
    ):
        assert run("evaluate", *arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"actrelax evaluate: {sentence}")
        assert said.count("\n") == 1
    (trained / "checkpoint.pt").unlink()
    with pytest.raises(ActrelaxError, match=r"has no checkpoint yet: wait until the run has begun\.$"):
        load_run(trained)


@pytest.mark.parametrize("normalise", ["none", "half", "channels"])
@pytest.mark.parametrize(
    ("shape", "found"),
    [((40, 8, 8), "(40, 1, 8, 8)"), ((40, 5), "(40, 5)"), ((40, 3, 8, 1), "(40, 3, 8, 1)")],
)
def test_images_of_another_shape_are_refused_before_they_broadcast(tmp_path, capsys, normalise, shape, found):
    x, y = np.random.default_rng(0).random((40, 3, 8, 8), np.float32), np.arange(40) % 3
    np.savez(tmp_path / "colours.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    x = np.ones(shape, np.float32)
    np.savez(tmp_path / "other.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    options = ["--dataset", tmp_path / "colours.npz", "--network", "mlp-2x9", "--normalise", normalise]
    assert run("train", *options, *QUICK, "--out", tmp_path / "run") == 0
    other = ["--dataset", tmp_path / "other.npz"] + (["--layout", "nchw"] if len(shape) == 4 else [])
    capsys.readouterr()
    assert run("evaluate", tmp_path / "run", *other) == 2
    assert capsys.readouterr().err == f"actrelax evaluate: the network takes (batch, 3, 8, 8), got {found}.\n"
    assert run("relax", "--run", tmp_path / "run", *other, "--steps", 2, "--out", tmp_path / "relaxed") == 2
    first_two = found.replace("40", "2", 1)
    assert capsys.readouterr().err == f"actrelax relax: the network takes (batch, 3, 8, 8), got {first_two}.\n"


def test_the_layout_is_the_runs(tmp_path, capsys):
    generator, path = np.random.default_rng(0), tmp_path / "images.npz"
    x, y = generator.integers(0, 256, (60, 6, 6, 5), dtype=np.uint8), np.arange(60) % 3
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    out = tmp_path / "run"
    arguments = ["train", "--dataset", path, *QUICK, "--network", "mlp-2x9", "--out", out, "--augment", "crop"]
    assert run(*arguments) == 2
    assert "give --layout nchw or nhwc" in capsys.readouterr().err
    assert run(*arguments, "--layout", "nhwc", "--json") == 0
    accuracy = json.loads(capsys.readouterr().out)["test_accuracy"]
    assert run("evaluate", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["test_accuracy"] == accuracy
    other = tmp_path / "others.npz"
    path.rename(other)
    assert run("evaluate", out, "--dataset", other) == 2
    assert run("evaluate", out, "--dataset", other, "--layout", "nhwc", "--json") == 0
    assert json.loads(capsys.readouterr().out)["test_accuracy"] == accuracy
    assert (
        run("relax", "--run", out, "--dataset", other, "--layout", "nhwc", "--steps", 2, "--out", tmp_path / "r") == 0
    )
    other.rename(path)
    assert run("relax", "--run", out, "--steps", 2, "--out", tmp_path / "r") == 0
