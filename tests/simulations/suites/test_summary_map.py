"""The summary map, from artificial rows and from committed results."""

import shutil
from dataclasses import replace

import pytest
from committed import RESULTS, skip_under_way
from outcomes import is_drawn

from actrelax.analysis.reports import results_table, suite_report
from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.runs import State
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.cli import main
from actrelax.simulations.suites import depth_figure, summary_map


def write(results, suite, accuracies, variant=""):
    """Write the rows of a suite: condition -> accuracies of the seeds, None for a divergence."""
    found = []
    for condition, of_seeds in accuracies.items():
        for seed, accuracy in enumerate(of_seeds):
            curves = {"epoch": [0, 1], "train_accuracy": [0.1, 0.5], "test_accuracy": [0.1, (accuracy or 0) / 100]}
            state, reason = (State.DIVERGED, "inf") if accuracy is None else (State.FINISHED, "")
            found.append(Outcome(variant, condition, seed, f"{condition}-{seed}", state, reason, 1.0, curves))
    results_table.write(results / suite, found)


@pytest.fixture
def results(tmp_path):
    write(
        tmp_path,
        "mlp-mnist",
        {
            "backprop": [90.0, 91.0, 92.0],
            "AR": [90.1, 91.0, 91.9],
            "both": [90.4, 91.5, 92.6],
            "random feedback": [80.0, 81.3, None],
            "learned feedback": [None, None, None],
        },
        "relu",
    )
    write(tmp_path, "cnn-cifar10", {"backprop": [50.0, 55.0], "simplified": [45.0, 55.0]})
    write(tmp_path, "cnn-svhn", {"backprop": [50.0]})  # no condition to compare
    write(tmp_path, "smoke", {"backprop": [90.0], "AR": [90.0]})  # not part of the map
    return tmp_path


def test_differences_verdicts_and_what_diverged(results, capsys):
    assert main(["reproduce", "map", "--out", str(results / "map")]) == 0
    document = suite_report.read_document(results / "map")
    assert capsys.readouterr().out == f"{suite_report.text(document)}\nwritten to {results / 'map'}\n"
    (table,) = suite_report.tables(document)
    assert table.head == ["", "mlp-mnist relu (3 seeds)", "cnn-cifar10 (2 seeds)"]
    assert table.rows == [
        ["AR", "+0.0 =%", ""],
        ["learned feedback", "(3 diverged)", ""],
        ["random feedback", "-9.9 * (1 diverged)", ""],
        ["learned feedback, no derivatives in the relaxation", "+0.5 =%*", ""],
        ["no derivatives, and learned feedback, dense", "", "-2.5 ?"],
    ]
    assert is_drawn(results / "map" / "map.png")


def test_a_condition_that_a_seed_has_not_seen_yet_says_so(results):
    write(results, "cnn-cifar10", {"backprop": [50.0, 55.0, 60.0], "AR": [51.0, 55.0]})
    text = summary_map.write(results / "map", results, "actrelax reproduce map")
    assert " +0.5 % (2 seeds) |" in text


def test_runs_of_other_options_in_the_same_folder(results):
    found = list(results_table.read(results / "cnn-cifar10").values())
    results_table.write(results / "cnn-cifar10", [*found, replace(found[0], run="another")])
    with pytest.raises(ActrelaxError, match=r"cnn-cifar10 has two runs of backprop with seed 0 and different options"):
        summary_map.columns(results)
    results_table.write(
        results / "depth-digits",
        [replace(o, variant="ResNet-8 BatchNorm") for o in (found[0], replace(found[0], run="another"))],
    )
    with pytest.raises(ActrelaxError, match=r"depth-digits has two runs of backprop with seed 0 and different options"):
        depth_figure.costs(results)


def test_no_results(tmp_path, capsys):
    assert main(["reproduce", "map", "--out", str(tmp_path / "map")]) == 2
    said = f"{tmp_path} holds no results to compare: carry out a suite first.\n"
    assert capsys.readouterr().err == f"actrelax reproduce: {said}"
    assert not (tmp_path / "map").exists()


@pytest.mark.parametrize("suite", sorted({suite for suite, _ in summary_map.COLUMNS}))
def test_every_condition_has_a_row(suite):
    called = {name for row, names in summary_map.ROWS.items() for name in names or (row,)}
    assert set(summary_map.suite_of(suite).conditions) - called == {"backprop"}
    assert {variant for of, variant in summary_map.COLUMNS if of == suite} == set(summary_map.suite_of(suite).variants)


def test_committed_map_says_what_the_rows_say(tmp_path, monkeypatch):
    skip_under_way()
    for module, drawing in ((summary_map, "_draw"), (depth_figure, "draw")):  # slow, and tested with fewer rows
        monkeypatch.setattr(module, drawing, lambda *_: None)
    for rows in RESULTS.glob("*/*.csv"):
        (tmp_path / rows.parent.name).mkdir(exist_ok=True)
        shutil.copy(rows, tmp_path / rows.parent.name)
    text = summary_map.write(tmp_path / "map", tmp_path, "actrelax reproduce map")
    assert text == suite_report.text(suite_report.read_document(RESULTS / "map"))
