"""Reports of real runs and suites agree with their files."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import tyro
from outcomes import is_drawn
from pages import Read

from actrelax.analysis.reports import results_table
from actrelax.analysis.runs import RunFolder
from actrelax.simulations import cli, train
from actrelax.simulations.training.configuration import as_config

ROOT = Path(__file__).resolve().parents[2]
RUNS = {"a < b & c": ["--measure-alignment", "10"], "baseline": ["--rule", "backprop", "--lr", "0.2"]}
"""Name of a run folder -> options."""
FIGURES = ("test-accuracy", "train-accuracy", "train-loss", "angle")


def run(*arguments):
    return cli.main([*map(str, arguments)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder of two finished runs of one epoch."""
    folder = tmp_path_factory.mktemp("runs")
    usual = ["--network", "digits-mlp", "--epochs", "1", "--steps", "20", "--threads", "1", "--quiet"]
    for name, options in RUNS.items():
        assert run("train", *usual, *options, "--out", folder / name) == 0
    return folder


def test_a_run_of_equilibria_has_no_leftover_activity(tmp_path):
    usual = ["--network", "digits-mlp", "--epochs", "1", "--threads", "1", "--quiet"]
    assert run("train", *usual, "--integrator", "equilibrium", "--out", tmp_path / "run") == 0
    assert run("analyze", tmp_path / "run", "--out", tmp_path) == 0
    page = Read((tmp_path / "report.html").read_text())
    assert "Largest error, relative to the largest gradient" in page.tables
    assert "Remaining share of the initial activity" not in page.tables


def test_a_report_says_what_the_summaries_say(trained, tmp_path, capsys):
    assert run("analyze", trained, "--out", tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {tmp_path / 'report.html'}"
    page = Read((tmp_path / "report.html").read_text())
    assert page.needs_nothing_else()
    assert len(page.images) == 4
    assert all(image["alt"] for image in page.images)
    outcomes = page.tables["Each run after its last epoch"]
    assert list(outcomes) == list(RUNS)
    for name, row in outcomes.items():
        s = RunFolder(trained / name).summary()
        assert row["rule"] == s.rule
        assert row.get("assumptions", "") == s.assumptions
        assert [row["data set"], row["network"], row["device"], row["state"]] == [
            "digits",
            "digits-mlp",
            "cpu",
            "finished",
        ]
        assert [int(row["epochs"]), int(row["seed"])] == [1, 0]
        assert float(row["test accuracy (%)"]) == pytest.approx(100 * s.test_accuracy, abs=0.005)
        assert float(row["train accuracy (%)"]) == pytest.approx(100 * s.train_accuracy, abs=0.005)
        assert float(row["wall time (s)"]) == pytest.approx(s.wall_seconds, abs=0.051)
        assert row["images per second"] == f"{s.images_per_second:,.0f}"
        assert row["steps"] == ("" if s.steps is None else "20")
    ends = RunFolder(trained / "a < b & c").summary().equilibrium["hidden1"]
    assert float(outcomes["a < b & c"]["distance from equilibrium"]) == pytest.approx(ends["error"], rel=0.05)
    shares = page.tables["Remaining share of the initial activity"]
    assert float(shares["a < b & c"]["hidden1"]) == pytest.approx(0.9**20, rel=0.05)
    angles = page.tables["Angle between AR's updates and backprop's in the last epoch (degrees)"]
    measured = RunFolder(trained / "a < b & c").table("metrics")[-1]
    assert float(angles["a < b & c"]["input->hidden1"]) == pytest.approx(measured["angle input->hidden1"], abs=0.005)
    differing = page.tables["Options that differ between runs"]
    assert [row["lr"] for row in differing.values()] == ["0.1", "0.2"]
    common = page.tables["Options shared by all runs"]
    assert common["steps"]["value"] == "20"
    assert not {"lr", "rule"} & set(common)
    for name in FIGURES:
        assert is_drawn(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_the_command_in_a_report_makes_the_same_run(trained, tmp_path):
    assert run("analyze", trained, "--out", tmp_path) == 0
    text = Read((tmp_path / "report.html").read_text()).text
    code = next(block for block in text if block.startswith("# a < b & c\n"))
    for name, line in zip(RUNS, code.split("\n\n"), strict=True):
        _, _, *arguments = shlex.split(line.splitlines()[1])
        config = tyro.cli(
            train.Config, args=arguments, default=train.defaults(arguments), config=(tyro.conf.OmitArgPrefixes,)
        )
        execution = config.execution.resolved(config.experiment)
        assert as_config(config.experiment.resolved(), execution) == RunFolder(trained / name).config()


def test_json_is_numbers_alone(trained, tmp_path, capsys):
    assert run("analyze", trained, "--out", tmp_path, "--json") == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert [row["run"] for row in found["runs"]] == list(RUNS)
    for row in found["runs"]:
        summary = json.loads((trained / row["run"] / "summary.json").read_text())
        assert {key: row[key] for key in summary} == summary
    assert [(c["condition"], c["seeds"], c["low"]) for c in found["conditions"]] == [
        ("ar, lr 0.1", [0], None),
        ("backprop, lr 0.2", [0], None),
    ]
    assert (tmp_path / "report.html").exists()


def test_a_run_that_is_not_finished_is_shown_as_far_as_it_came(trained, tmp_path, capsys):
    open_run = tmp_path / "open"
    shutil.copytree(trained / "baseline", open_run)
    (open_run / "summary.json").unlink()
    assert run("analyze", open_run, "--out", tmp_path) == 0
    said = "open: not finished, 1 of 1 epochs"
    assert capsys.readouterr().err == f"{said}; shown up to its last epoch.\n"
    page = Read((tmp_path / "report.html").read_text())
    assert f"{said}." in page.words
    (row,) = page.tables["Each run after its last epoch"].values()
    last = RunFolder(open_run).table("metrics")[-1]
    assert float(row["test accuracy (%)"]) == pytest.approx(100 * last["test_accuracy"], abs=0.005)


@pytest.mark.parametrize("head", [False, True])
def test_a_run_that_has_only_been_begun_takes_nothing_from_the_others(trained, tmp_path, capsys, head):
    begun = RunFolder(tmp_path / "begun")
    begun.write_config(RunFolder(trained / "baseline").config())
    if head:
        (begun.path / "metrics.csv").write_text("epoch,train_loss,train_accuracy,test_accuracy\n")
    assert run("analyze", trained, tmp_path / "begun", "--out", tmp_path) == 0
    assert "begun: not finished, 0 of 1 epochs" in capsys.readouterr().err
    rows = Read((tmp_path / "report.html").read_text()).tables["Each run after its last epoch"]
    assert rows["begun"]["test accuracy (%)"] == ""
    assert float(rows["baseline"]["test accuracy (%)"]) > 0


def test_several_seeds_are_compared(tmp_path, capsys):
    """The second condition has the first one's accuracies minus two points."""
    for condition, assumptions, less in (("one", "ar", 0.0), ("two", "random-feedback", 0.02)):
        for seed, accuracy in enumerate((0.9, 0.92, 0.97)):
            folder = RunFolder(tmp_path / "runs" / f"{condition}{seed}")
            usual = {"rule": "ar", "dataset": "digits", "network": "mlp", "epochs": 1}
            experiment = usual | {"assumptions": assumptions, "seed": seed}
            folder.write_config({"version": 3, "experiment": experiment, "execution": {}})
            rows = [{"epoch": e, "train_accuracy": 0.5, "test_accuracy": accuracy - less} for e in (0, 1)]
            folder.write_tables({"metrics": rows, "timing": [{"train_seconds": 1.0, "evaluate_seconds": 0.0}]})
            summary = {**usual, "assumptions": assumptions, "seed": seed, "test_accuracy": accuracy - less}
            summary |= {"train_accuracy": 0.5, "validation_accuracy": None, "wall_seconds": 1.0}
            summary |= {"images_per_second": 10.0, "device": "cpu", "versions": {}}
            (folder.path / "summary.json").write_text(json.dumps(summary))
    assert run("analyze", tmp_path / "runs", "--out", tmp_path / "out") == 0
    page = Read((tmp_path / "out" / "report.html").read_text())
    table = page.tables["Conditions over their seeds"]
    assert [row["seeds"] for row in table.values()] == ["3", "3"]
    assert table["ar"]["test accuracy (%)"] == "93.0 (84.0 to 102.0)"  # Student's t: 93 -+ 4.303 x 3.606 / sqrt 3
    assert table["random-feedback"]["minus ar"] == "-2.00 (-2.00 to -2.00)"
    assert "bands their 95 % intervals" in page.words
    assert "Conditions over their seeds" in capsys.readouterr().out


def test_runs_on_different_tasks_are_not_compared(tmp_path, capsys):
    usual = ["--network", "digits-mlp", "--steps", "2", "--threads", "1", "--quiet"]
    for seed in ("0", "1"):
        for name, options in (("ar", ["--epochs", "1"]), ("bp", ["--rule", "backprop", "--epochs", "2"])):
            arguments = [*usual, *options, "--train-images", "64", "--seed", seed]
            assert run("train", *arguments, "--out", tmp_path / f"{name}{seed}") == 0
    capsys.readouterr()
    assert run("analyze", *sorted(tmp_path.iterdir()), "--out", tmp_path / "out") == 0
    said, noted = capsys.readouterr()
    assert noted == ("Conditions are compared only where runs share these options, which differ here: epochs.\n")
    assert noted.strip() in Read((tmp_path / "out" / "report.html").read_text()).words
    assert "Conditions over their seeds, epochs 1\n" in said
    assert "Conditions over their seeds, epochs 2\n" in said


def test_a_suite(tmp_path, capsys):
    folder = ROOT / "results" / "smoke"
    assert run("analyze", folder, "--out", tmp_path) == 0
    page = Read((tmp_path / "report.html").read_text())
    assert page.needs_nothing_else()
    written = {row["condition"]: row for row in json.loads((folder / "table.json").read_text())["parts"][0]["rows"]}
    for condition, row in page.tables["Conditions"].items():
        accuracy = written[condition]["accuracy"]
        assert row["seeds"] == str(written[condition]["seeds"])
        assert row["test accuracy (%)"] == "{mean:.1f} ({low:.1f} to {high:.1f})".format(**accuracy)
    runs = list(results_table.read(folder).values())
    text = (tmp_path / "report.html").read_text()
    assert text.count(">finished</td>") == len(runs)
    for o in runs:
        assert f'<td class="number">{o.final_accuracy():.2f}</td>' in text
    assert len(page.images) == 4
    capsys.readouterr()
    assert run("analyze", folder, "--out", tmp_path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["suite"] == "smoke"
    assert len(found["runs"]) == len(runs)
    (table,) = found["tables"]
    means = {row["condition"]: row["accuracy"]["mean"] for row in table}
    assert {c["condition"]: pytest.approx(100 * c["test_accuracy"]) for c in found["conditions"]} == means


@pytest.mark.parametrize(
    ("form", "first", "row"),
    [
        ("latex", "% Conditions, tanh", "backprop & 10 & 95.8 (95.7 to 95.9) &"),
        ("html", "<!-- Conditions, tanh -->", "<td>95.8 (95.7 to 95.9)</td>"),
        ("markdown", "Conditions, tanh", "95.8 (95.7 to 95.9) |"),
    ],
)
def test_a_suites_tables_alone(tmp_path, capsys, form, first, row):
    assert run("analyze", ROOT / "results" / "mlp-mnist", "--out", tmp_path, "--table", form) == 0
    said = capsys.readouterr().out
    assert said.startswith(first)
    assert row in said
    assert said.count("Conditions, ") == 2
    assert "report" not in said


def test_a_suite_of_several_variants_and_one_that_trains_nothing(tmp_path):
    for name in ("mlp-mnist", "gradients"):
        assert run("analyze", ROOT / "results" / name, "--out", tmp_path / name) == 0
    page = Read((tmp_path / "mlp-mnist" / "report.html").read_text())
    assert list(page.tables) == ["Conditions, tanh", "Conditions, relu", "Each run's final accuracy"]
    assert (len(page.images), page.tags.count("details")) == (8, 1)
    page = Read((tmp_path / "gradients" / "report.html").read_text())
    assert "max |x - gradient| / max |gradient|, stays below 0.01" in page.words
    assert [image["alt"] for image in page.images] == [
        "layers, of the suite gradients",
        "rates, of the suite gradients",
    ]


def test_what_cannot_be_analysed(trained, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "table.json").write_text('{"kind": "map", "parts": []}')
    (tmp_path / "file").write_text("")
    smoke = ROOT / "results" / "smoke"
    for arguments, sentence in (
        ([], "actrelax analyze needs a folder, got none: give folders of runs, or a suite's results."),
        ([tmp_path / "nix"], f"{tmp_path / 'nix'} holds no run: give folders that "),
        ([trained, tmp_path / "empty"], f"{tmp_path / 'empty'} holds no run: give folders that "),
        (
            [tmp_path / "text"],
            f"{tmp_path / 'text'} holds no suite's results: table.json lacks name, title, command, remark.",
        ),
        ([trained, smoke], f"{smoke} holds a suite's results, which are shown alone: give only that folder."),
        ([trained, "--table", "latex", "--json"], "--json prints no tables: leave --table out, or leave --json out."),
        ([trained, "--out", tmp_path / "file"], f"can't write to {tmp_path / 'file'}"),
    ):
        assert run("analyze", *arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"actrelax analyze: {sentence}")
        assert said.count("\n") == 1


def test_runs_on_different_images_of_one_name_are_not_compared_unasked(trained, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(trained / "baseline", other)
    found = json.loads((other / "fingerprints.json").read_text())
    found["images"]["test images"] = "0" * 64
    (other / "fingerprints.json").write_text(json.dumps(found))
    words = ["analyze", trained / "baseline", other, "--out", tmp_path / "out"]
    assert run(*words) == 2
    assert capsys.readouterr().err == (
        f"actrelax analyze: {trained / 'baseline'} and {other} were trained with different contents of test images: "
        "compare runs with the same contents, or pass --accept-changes.\n"
    )
    assert not (tmp_path / "out").exists()
    assert run(*words, "--accept-changes") == 0
