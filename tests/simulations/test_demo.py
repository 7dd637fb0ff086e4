"""The command line and the demo, with tiny settings."""

import json

import pytest
from outcomes import is_drawn

from actrelax.analysis.checks.compare import Report, Row
from actrelax.analysis.runs import RunFolder, flat
from actrelax.models.results import DivergenceError
from actrelax.simulations import cli, demo

TINY = ["--epochs", "1", "--steps", "2", "--batch-size", "200"]
NAMES = ("backprop", "ar", "simplified")


def test_writes_what_it_says(tmp_path, capsys):
    assert cli.main(["demo", "--out", str(tmp_path), *TINY]) == 0
    for name in NAMES:
        folder = RunFolder(tmp_path / name)
        summary, metrics = folder.summary(), folder.table("metrics")
        assert summary.assumptions == ("" if name == "backprop" else name)
        assert summary.rule == ("backprop" if name == "backprop" else "ar")
        assert summary.test_accuracy == metrics[-1]["test_accuracy"]
        assert [row["epoch"] for row in metrics] == [0, 1]
    for figure in ("learning-curves", "relaxation"):
        assert is_drawn(tmp_path / "figures" / f"{figure}.png")
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert any(line.startswith("PyTorch, SciPy and Brian2 agree with each other") for line in lines)
    assert lines[0] == "1,437 digits for training, 360 for testing."
    assert [line.split("  ")[0] for line in lines[-6:-3]] == ["backprop", "AR", "AR, simplified"]
    assert lines[-2] == f"report, to open in a browser: {tmp_path / 'report.html'}"
    page = (tmp_path / "report.html").read_text()
    assert "PyTorch, SciPy and Brian2 agree with each other" in page
    assert all(f'<th scope="row">{name}</th>' in page for name in NAMES)
    assert lines[-1] == f"results and figures: {tmp_path}"
    assert said.err == ""
    # one seed gives one initial network
    first = [RunFolder(tmp_path / name).table("metrics")[0]["test_accuracy"] for name in NAMES]
    assert len(set(first)) == 1
    # a second demo replaces the first; JSON is alone on standard output, and the runs get the options
    expected = {"eta": 0.3, "steps": 2, "lr": 0.2, "momentum": 0.5, "weight_decay": 0.01, "seed": 4, "batch_size": 200}
    changed = ("eta", "lr", "momentum", "weight_decay", "seed")
    options = [f"--{name.replace('_', '-')}={expected[name]}" for name in changed]
    assert cli.main(["demo", "--out", str(tmp_path), *TINY, *options, "--json"]) == 0
    assert [row["assumptions"] for row in json.loads(capsys.readouterr().out)] == ["", "ar", "simplified"]
    for name in NAMES:
        config = flat(RunFolder(tmp_path / name).config())
        assert {key: config[key] for key in expected} == expected
        assert (config["dataset"], config["network"], config["threads"]) == ("digits", "digits-cnn", 1)
        assert RunFolder(tmp_path / name).summary().seed == 4


def test_engines_that_disagree_are_named_and_the_status_is_1(tmp_path, capsys, monkeypatch):
    rows = [Row("brian2", "euler", "binomial law", "conv1", 0.5, 1e-10), Row("torch", "euler", "x", "conv1", 0, 1e-10)]
    monkeypatch.setattr(demo, "verify", lambda *args, **options: Report(rows))
    assert cli.main(["demo", "--out", str(tmp_path), *TINY]) == 1
    said = capsys.readouterr().out
    assert "ENGINES DISAGREE:\nbrian2 euler and binomial law differ by 0.5 in conv1\n" in said
    assert "agree with each other" not in said


def test_bad_input_is_one_sentence_and_status_2(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for arguments, sentence in (
        (["--epochs", "-1"], "--epochs must be 1 or more, got -1."),
        (["--lr", "-1"], "--lr must be positive and at most 1e+30, got -1."),
        (["--eta", "2.5"], 'eta must lie between 0 and 2 for "sequential", got 2.5: take more steps of a smaller dt.'),
        (["--out", str(tmp_path / "file")], f"can't write to {tmp_path / 'file'}: "),
    ):
        assert cli.main(["demo", "--out", str(tmp_path / "new"), *TINY, *arguments]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"actrelax demo: {sentence}")
        assert said.count("\n") == 1


def test_divergence_is_status_1(tmp_path, capsys):
    assert cli.main(["demo", "--out", str(tmp_path), *TINY, "--lr", "1e30"]) == 1
    assert capsys.readouterr().err.startswith("actrelax demo: training diverged in batches 1 to 8 of epoch 1, ")


def test_interruption(monkeypatch, capsys):
    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "main", interrupted)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err == "interrupted.\n"


def test_usage(capsys):
    assert cli.main([]) == 0
    assert "demo        train a small CNN" in capsys.readouterr().out
    assert cli.main(["demmo"]) == 2
    assert capsys.readouterr().err == "\nunknown simulation 'demmo'; known: " + f"{', '.join(cli.SIMULATIONS)}.\n"
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
