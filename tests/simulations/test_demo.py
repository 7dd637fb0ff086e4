"""The command line and the demo, on a tiny setting."""

import json

import pytest
import torch

from actrelax.analysis.runs import read_run
from actrelax.models.errors import DivergenceError
from actrelax.simulations import cli, demo

TINY = ["--epochs", "1", "--steps", "2", "--validation", "1300", "--batch-size", "100"]


@pytest.fixture(autouse=True)
def single_precision(double_precision):
    """As the demo runs."""
    torch.set_default_dtype(torch.float32)


def test_writes_what_it_says(tmp_path, capsys):
    assert cli.main(["demo", "--out", str(tmp_path), *TINY]) == 0
    for name in ("backprop", "ar", "simplified"):
        summary, metrics = read_run(tmp_path / name)
        assert summary.assumptions == ("" if name == "backprop" else name)
        assert summary.rule == ("backprop" if name == "backprop" else "ar")
        assert 0 <= summary.test_accuracy <= 1
        assert summary.test_accuracy == metrics[-1]["test_accuracy"]
        assert [row["epoch"] for row in metrics] == [0, 1]
    for figure in ("learning-curves", "relaxation"):
        assert (tmp_path / "figures" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "137 digits for training, 1,300 for testing."
    assert [line.split("  ")[0] for line in said[-5:-2]] == ["backprop", "AR", "AR, simplified"]
    assert said[-1] == f"results and figures: {tmp_path}"
    # one seed, one initial network: only what follows differs
    first = [read_run(tmp_path / name)[1][0]["test_accuracy"] for name in ("backprop", "ar", "simplified")]
    assert len(set(first)) == 1


def test_rules_get_their_options(tmp_path, monkeypatch):
    seen = []
    original = demo.relax_backward

    def watched(network, x, y, **options):
        seen.append(options)
        return original(network, x, y, **options)

    monkeypatch.setattr(demo, "relax_backward", watched)
    assert cli.main(["demo", "--out", str(tmp_path / "0"), *TINY, "--eta", "0.3"]) == 0
    assert [options["assumptions"] for options in seen] == ["ar"] * 2 + ["simplified"] * 2
    assert all((options["steps"], options["eta"]) == (2, 0.3) for options in seen)
    assert all("integrator" not in options for options in seen)
    assert cli.main(["demo", "--out", str(tmp_path / "1"), *TINY, "--seed", "1"]) == 0
    assert read_run(tmp_path / "0" / "backprop")[1][0] != read_run(tmp_path / "1" / "backprop")[1][0]


def test_json_is_alone_on_standard_output(tmp_path, capsys):
    assert cli.main(["demo", "--out", str(tmp_path), *TINY, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["assumptions"] for row in rows] == ["", "ar", "simplified"]


def test_bad_input_is_one_sentence_and_status_2(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for arguments, sentence in (
        (["--validation", "2000"], "validation must lie between 1 and 1436 images, got 2000."),
        (["--epochs", "0"], "epochs, batch_size and threads must be 1 or more."),
        (["--lr", "-1"], "lr, momentum, weight_decay and steps must be 0 or more."),
        (["--eta", "2.5"], 'eta must lie between 0 and 2 for "sequential", got 2.5: take more steps of a smaller dt.'),
        (["--out", str(tmp_path / "file")], f"can't write to {tmp_path / 'file' / 'figures' / 'relaxation.png'}: "),
    ):
        assert cli.main(["demo", "--out", str(tmp_path / "new"), *TINY, *arguments]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"actrelax demo: {sentence}")
        assert said.count("\n") == 1


def test_divergence_is_status_1(tmp_path, capsys):
    assert cli.main(["demo", "--out", str(tmp_path), *TINY, "--batch-size", "20", "--lr", "1e30"]) == 1
    said = capsys.readouterr().err
    assert said == "actrelax demo: the loss became nan in batch 3 of epoch 1: lower the learning rate.\n"


def test_interruption(monkeypatch, capsys):
    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "main", interrupted)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err == "interrupted.\n"


def test_usage(capsys):
    assert cli.main([]) == 0
    assert "demo  train a small CNN" in capsys.readouterr().out
    assert cli.main(["demmo"]) == 2
    assert capsys.readouterr().err == "\nunknown simulation 'demmo'; known: demo.\n"
    with pytest.raises(SystemExit) as stopped:
        cli.main(["demo", "--epoch", "many"])
    assert stopped.value.code == 2


def test_a_bug_is_not_hidden(monkeypatch):
    def broken(config):
        raise ZeroDivisionError

    monkeypatch.setattr(demo, "main", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["demo"])
    assert issubclass(DivergenceError, ValueError)
