"""Tables of outcomes that were made up, against SciPy's own tests of them."""

from dataclasses import replace

import pytest
from committed import CARRIED_OUT, RESULTS, skip_under_way
from scipy import stats

from actrelax.analysis.reports import comparison, results_table
from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.runs import State
from actrelax.analysis.statistics import power, seeds_for
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.suites import report
from actrelax.simulations.suites.definitions import SUITES

SUITE = replace(SUITES["smoke"], seeds=4)
AGAINST = report.compared(SUITE, "")
ACCURACIES = {
    "backprop": [97.0, 98.0, 96.0, 97.5],
    "AR": [97.1, 98.1, 95.8, 97.5],
    "simplified": [95.0, 96.4, 93.5, 95.0],
    "random feedback": [60.0, None, 70.0, 50.0],
}


def outcome(condition, seed, accuracy, variant=""):
    """A run of two epochs; None diverged in the first."""
    curves = {"epoch": [0, 1, 2], "train_accuracy": [0.1, 0.5, 0.9], "test_accuracy": [0.1, 0.5, (accuracy or 0) / 100]}
    curves |= {} if condition == "backprop" else {"angle": [float("nan"), 3.0, 4.0]}
    state, reason = (State.DIVERGED, "batch 3: inf") if accuracy is None else (State.FINISHED, "")
    if accuracy is None:
        curves = {column: values[:1] for column, values in curves.items()}
    return Outcome(
        variant, condition, seed, f"{condition}-{seed}", state, reason, 30.0, curves, made_with="torch 2.13.0, on cpu"
    )


OUTCOMES = [outcome(name, seed, a) for name, found in ACCURACIES.items() for seed, a in enumerate(found)]


def by_name(outcomes=OUTCOMES):
    return {line.condition: line for line in comparison.lines(AGAINST, outcomes)}


def test_differences_are_paired_by_seed_and_corrected_for_their_number():
    table = by_name()
    first = ACCURACIES["backprop"]
    raw = {
        name: stats.ttest_rel(
            *zip(*[(a, b) for a, b in zip(found, first, strict=True) if a is not None], strict=True)
        ).pvalue
        for name, found in ACCURACIES.items()
        if name != "backprop"
    }
    assert table["simplified"].against["backprop"].difference == pytest.approx(-2.15)
    assert table["random feedback"].against["backprop"].seeds == 3
    smallest = min(raw, key=raw.get)
    assert table[smallest].p_difference["backprop"] == pytest.approx(3 * raw[smallest])
    assert not table["backprop"].against  # AR is compared with it already
    assert table["AR"].p_equivalence["backprop"] < 0.05 < table["simplified"].p_equivalence["backprop"]
    assert [table[name].verdict("backprop") for name in ("AR", "simplified", "random feedback")] == ["=", "*", "?"]


def test_one_computation_is_not_tested_against_itself():
    """It would be a member of the family whose correction the others pay for."""
    same = [replace(o, condition="AR", run=f"AR-{o.seed}") for o in OUTCOMES if o.condition == "backprop"]
    table = by_name([o for o in OUTCOMES if o.condition != "AR"] + same)
    assert rows([o for o in OUTCOMES if o.condition != "AR"] + same)["AR"][2:5] == ["0 (identical)", "", ""]
    assert table["AR"].verdict("backprop") == "="
    two = sorted(table[name].against["backprop"].p_difference for name in ("simplified", "random feedback"))
    corrected = sorted(table[name].p_difference["backprop"] for name in ("simplified", "random feedback"))
    assert corrected == pytest.approx([2 * two[0], max(2 * two[0], two[1])])
    said = comparison.remarks(AGAINST, list(table.values()))
    assert "Power at 0.05 and at 0.05 / 2, " in said


def test_seeds_are_paired_whatever_their_order():
    shuffled = sorted(OUTCOMES, key=lambda o: (o.seed * 7) % 4)
    assert {n: line.against for n, line in by_name(shuffled).items()} == {
        n: line.against for n, line in by_name().items()
    }


def rows(outcomes=OUTCOMES):
    """Condition -> cells after it."""
    _, found = comparison.cells(AGAINST, comparison.lines(AGAINST, outcomes))
    return {row[0]: row[1:] for row in found}


def test_diverged_seeds_are_counted_and_named():
    assert rows()["random feedback"][0] == "3, 1 diverged"
    assert rows()["random feedback"][1].startswith("60.0 (")
    said = comparison.remarks(AGAINST, comparison.lines(AGAINST, OUTCOMES))
    assert "Diverged under random feedback: seed 1; means and differences are those of the others.\n" in said
    deviation = by_name()["random feedback"].against["backprop"].deviation
    assert f"under random feedback (deviation of 3 differences: {deviation:.2f} points, the most)" in said
    assert f"{power(3, deviation):.2f} and {power(3, deviation, level=0.05 / 3):.2f} under random" in said
    median = by_name()["simplified"].against["backprop"].deviation
    assert f"takes {seeds_for(median, 0.05 / 3)} seeds at the median." in said
    everything_lost = [replace(o, state=State.DIVERGED) if o.condition == "AR" else o for o in OUTCOMES]
    assert rows(everything_lost)["AR"] == ["0, 4 diverged", *[""] * 7]


def test_one_seed_is_shown_without_what_it_can_not_say():
    assert rows([o for o in OUTCOMES if o.seed == 0])["AR"] == ["1", "97.1", "+0.10", *[""] * 5]


def test_variants_have_tables_and_figures_of_their_own(tmp_path):
    suite = replace(SUITE, variants={"dark blue": {}, "red": {}, "unseen": {}})
    both = [replace(o, variant=v) for v in ("dark blue", "red") for o in OUTCOMES]
    text = report.write(tmp_path, "smoke", suite, both, "actrelax reproduce smoke")
    assert text.count("| condition |") == 2
    assert [line for line in text.splitlines() if line.startswith("##")] == ["## dark blue", "## red"]
    assert "\n16 runs of 2 epochs, 8 minutes of wall time in all." in text
    assert "\n15 of 16 runs of 2 epochs, " in report.tables("smoke", SUITE, OUTCOMES[1:], "")[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "angles-dark-blue.png",
        "angles-red.png",
        "learning-curves-dark-blue.png",
        "learning-curves-red.png",
        "table.md",
        "table.tex",
    ]


@pytest.mark.parametrize("name", [name for name in CARRIED_OUT if (RESULTS / name / "table.md").exists()])
def test_committed_tables_say_what_their_rows_say(name):
    skip_under_way()
    rows = results_table.read(RESULTS / name).values()
    written = [(RESULTS / name / file).read_text() for file in ("table.md", "table.tex")]
    (command,) = [line.strip() for line in written[0].splitlines() if line.startswith("    ")]
    suite, words = CARRIED_OUT[name], command.split()
    if "--seeds" in words:
        suite = replace(suite, seeds=int(words[words.index("--seeds") + 1]))
    assert list(report.tables(words[2], suite, list(rows), command)) == written


def test_rows_that_another_command_adds_are_kept(tmp_path):
    mine, others = OUTCOMES[:3], OUTCOMES[3:6]
    results_table.write(tmp_path, mine)
    results_table.add(tmp_path, {("", o.condition, o.run): o for o in others})
    found = results_table.add(tmp_path, {("", o.condition, o.run): o for o in mine})
    assert [o.run for o in found.values()] == [o.run for o in (*mine, *others)]
    assert results_table.read(tmp_path).keys() == found.keys()


def test_figures_say_how_many_seeds_they_show(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(report, "over_training", lambda ax, runs, column, order: drawn.append((column, order)) or ax)
    report.write(tmp_path, "smoke", SUITE, OUTCOMES, "actrelax reproduce smoke")
    assert ("angle", ["backprop", "AR", "simplified", "random feedback (3 of 4 seeds)"]) in drawn


def test_rows_come_back_as_they_were_written(tmp_path):
    results_table.write(tmp_path, OUTCOMES)
    found = results_table.read(tmp_path)
    assert list(found) == [("", o.condition, o.run) for o in OUTCOMES]
    for before, after in zip(OUTCOMES, found.values(), strict=True):
        assert replace(before, curves={}) == replace(after, curves={})
        for column, values in before.curves.items():
            assert after.curves[column] == pytest.approx(values, nan_ok=True)
    early = replace(OUTCOMES[-1], run="diverged at once", state=State.DIVERGED, curves={})
    results_table.write(tmp_path, [*OUTCOMES, early])
    assert results_table.read(tmp_path)["", early.condition, early.run] == early
    head, *lines = (tmp_path / "runs.csv").read_text().splitlines()
    assert head.endswith(",made_with")
    (tmp_path / "runs.csv").write_text("\n".join(line.partition(",made_with")[0] for line in (head, *lines)))
    assert all(o.made_with == "" for o in results_table.read(tmp_path).values()), "a table from before there was one"
    (tmp_path / "curves.csv").unlink()
    with pytest.raises(ActrelaxError, match=r"holds no results that can be read: move runs\.csv and curves\.csv away"):
        results_table.read(tmp_path)
