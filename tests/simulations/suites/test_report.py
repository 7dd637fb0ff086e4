"""Tables of artificial outcomes, against SciPy's tests."""

import json
import math
import re
from dataclasses import replace

import pytest
from committed import CARRIED_OUT, RESULTS, skip_under_way
from scipy import stats

from actrelax.analysis.reports import comparison, comparison_text, results_table, suite_report
from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.runs import State
from actrelax.analysis.statistics import compare, equivalence_power, power, seeds_for
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.suites import report
from actrelax.simulations.suites.definitions import SUITES

SUITE = replace(SUITES["smoke"], seeds=4)
AGAINST = report.conditions_of(SUITE, "")
ACCURACIES = {
    "backprop": [97.0, 98.0, 96.0, 97.5],
    "AR": [97.1, 98.1, 95.8, 97.5],
    "simplified": [95.0, 96.4, 93.5, 95.0],
    "random feedback": [60.0, None, 70.0, 50.0],
}


def outcome(condition, seed, accuracy, variant=""):
    """Return a run of two epochs; None means that it diverged in the first."""
    curves = {
        "epoch": [0, 1, 2],
        "train_accuracy": [0.1, 0.5, 0.7],
        "test_accuracy": [0.1, (accuracy or 0) / 100 - 0.02, (accuracy or 0) / 100],
    }
    curves |= {} if condition == "backprop" else {"angle": [float("nan"), 3.0, 4.0]}
    state, reason = (State.DIVERGED, "batch 3: inf") if accuracy is None else (State.FINISHED, "")
    if accuracy is None:
        curves = {column: values[:1] for column, values in curves.items()}
    return Outcome(
        variant, condition, seed, f"{condition}-{seed}", state, reason, 30.0, curves, made_with="torch 2.13.0, on cpu"
    )


OUTCOMES = [outcome(name, seed, a) for name, found in ACCURACIES.items() for seed, a in enumerate(found)]


def by_name(outcomes=OUTCOMES):
    return {row["condition"]: row for row in comparison.compared(AGAINST, outcomes)["rows"]}


def compared(name, field, outcomes=OUTCOMES):
    return by_name(outcomes)[name]["against"]["backprop"][field]


def pairs(name):
    """Return the accuracies of a condition and of backprop, for seeds that finished."""
    found = [(a, b) for a, b in zip(ACCURACIES[name], ACCURACIES["backprop"], strict=True) if a is not None]
    return zip(*found, strict=True)


def test_differences_are_paired_by_seed_and_corrected_for_their_number():
    raw = {name: stats.ttest_rel(*pairs(name)) for name in ("simplified", "random feedback")}
    assert compared("simplified", "difference") == pytest.approx(-2.15)
    assert compared("random feedback", "seeds") == 3
    assert compared("simplified", "p_difference") == pytest.approx(2 * raw["simplified"].pvalue)
    assert compared("random feedback", "p_difference") == pytest.approx(raw["random feedback"].pvalue)
    assert not by_name()["backprop"]["against"]  # AR's row has the comparison
    assert compared("AR", "p_equivalence") < 0.05 < compared("simplified", "p_equivalence")
    assert [compared(name, "verdict") for name in ("AR", "simplified", "random feedback")] == ["=%", "*", "*"]


def test_the_primary_contrast_is_tested_alone():
    assert compared("AR", "p_difference") == pytest.approx(stats.ttest_rel(*pairs("AR")).pvalue)
    part = comparison.compared(AGAINST, OUTCOMES)
    assert part["families"] == {
        "backprop": ["simplified", "random feedback"],
        "AR": ["simplified", "random feedback"],
    }
    assert comparison_text.families(part) == [
        "Primary contrast: AR minus backprop, tested alone, p not adjusted.",
        "Holm families: 2 conditions minus backprop; 2 conditions minus AR. "
        "Within each, p (difference) and the two p of equivalence are adjusted separately.",
        "10 % of backprop's errors are 0.29 points.",
    ]
    everyone = comparison.compared(replace(AGAINST, primary=""), OUTCOMES)
    assert len(everyone["families"]["backprop"]) == 3
    assert comparison_text.families(everyone)[0].startswith("Holm families: 3 conditions minus backprop; 2 conditions")


def test_the_interval_is_the_one_that_is_tested():
    for name, level in (("AR", 0.05), ("simplified", 0.025), ("random feedback", 0.05)):
        expected = stats.ttest_rel(*pairs(name)).confidence_interval(1 - level)
        assert (compared(name, "low"), compared(name, "high")) == pytest.approx((expected.low, expected.high))


def test_equivalence_within_a_tenth_of_backprops_errors():
    """Backprop's errors are 2.875 points here, a tenth of which is less than the spread of AR's differences."""
    d = [a - b for a, b in zip(*pairs("AR"), strict=True)]
    expected = max(
        stats.ttest_1samp(d, -0.2875, alternative="greater").pvalue,
        stats.ttest_1samp(d, 0.2875, alternative="less").pvalue,
    )
    assert compared("AR", "p_equivalence_errors") == pytest.approx(expected)
    assert compared("AR", "p_equivalence") < expected < 0.05


def test_where_equals_would_hardly_be_found_equivalent_the_power_stands_in_place_of_a_verdict():
    wide = {
        "backprop": [50.0, 55.0, 52.0, 51.0],
        "AR": [48.5, 49.5, 50.5, 46.0],
        "simplified": [49.0, 54.2, 50.7, 49.8],
    }
    outcomes = [outcome(name, seed, a) for name, found in wide.items() for seed, a in enumerate(found)]
    power = equivalence_power(4, compare(wide["AR"], wide["backprop"]).deviation)
    assert power < 0.5
    assert rows(outcomes)["AR"][5] == f"power {power:.2f}"
    assert compared("AR", "verdict", outcomes) == "~"  # the test within a tenth of the errors has enough power
    assert rows(outcomes)["simplified"][5] == f"{compared('simplified', 'p_equivalence', outcomes):.3f}"
    worse = [outcome("AR", seed, a) for seed, a in enumerate((59.0, 43.0, 58.0, 45.0))]
    assert compared("AR", "verdict", [o for o in outcomes if o.condition != "AR"] + worse) == "?"


def test_one_computation_is_not_tested_against_itself():
    """Otherwise it would enter the family, and increase the correction of all other tests."""
    same = [replace(o, condition="simplified", run=f"same-{o.seed}") for o in OUTCOMES if o.condition == "backprop"]
    outcomes = [o for o in OUTCOMES if o.condition != "simplified"] + same
    assert rows(outcomes)["simplified"][3:7] == ["0 (identical)", "", "", ""]
    assert compared("simplified", "verdict", outcomes) == "=%"
    part = comparison.compared(AGAINST, outcomes)
    assert part["families"]["backprop"] == ["random feedback"]
    assert compared("random feedback", "p_difference", outcomes) == pytest.approx(
        compare(*pairs("random feedback")).p_difference
    )
    said = comparison_text.remarks(part)
    tested = (
        "Power at the levels 0.05 and 0.05 / 1 (Holm's first step) to find a difference of one point from backprop:"
    )
    assert tested in said
    same = [replace(o, condition="AR", run=f"AR-{o.seed}") for o in OUTCOMES if o.condition == "backprop"]
    (line, *_) = comparison_text.families(
        comparison.compared(AGAINST, same + [o for o in OUTCOMES if o.condition != "AR"])
    )
    assert line == "Primary contrast: AR minus backprop, the same computation, not tested."


@pytest.mark.parametrize(
    ("epochs", "judged"), [(1, [1]), (4, [4]), (5, [3, 4, 5]), (10, [8, 9, 10]), (30, [26, 27, 28, 29, 30])]
)
def test_the_last_epochs_decide_and_never_the_untrained_network(epochs, judged):
    curves = {"epoch": list(range(epochs + 1)), "test_accuracy": [9.0, *(e**2 / 1000 for e in range(1, epochs + 1))]}
    run = replace(OUTCOMES[0], curves=curves)
    assert run.final_accuracy() == pytest.approx(sum(e**2 for e in judged) / len(judged) / 10)
    assert math.isnan(run.final_accuracy("validation"))


def test_seeds_are_paired_whatever_their_order():
    shuffled = sorted(OUTCOMES, key=lambda o: (o.seed * 7) % 4)
    assert [row["against"] for row in by_name(shuffled).values()] == [row["against"] for row in by_name().values()]


def rows(outcomes=OUTCOMES):
    """Return condition -> the other cells of its row."""
    return {row[0]: row[1:] for row in comparison_text.table("", comparison.compared(AGAINST, outcomes)).rows}


def test_diverged_seeds_are_counted_and_named():
    assert rows()["random feedback"][0] == "3, 1 diverged"
    assert rows()["random feedback"][1].startswith("60.0 (")
    assert rows()["random feedback"][2] == "70.0 (70.0 to 70.0)"
    lines = comparison_text.remarks(comparison.compared(AGAINST, OUTCOMES))
    assert "Diverged under random feedback: seed 1, left out of means and differences." in lines
    said, deviation = "\n".join(lines), compared("random feedback", "deviation")
    assert f"for random feedback (standard deviation of 3 differences: {deviation:.2f} points, the largest)" in said
    assert f"{power(3, deviation):.2f} and {power(3, deviation, level=0.05 / 2):.2f} for random" in said
    median = compared("simplified", "deviation")
    assert f"needs {seeds_for(median, 0.05 / 2)} seeds." in said
    part = comparison.compared(AGAINST, OUTCOMES)
    part["power"]["seeds_for_0.8"] = seeds_for(100.0)
    assert "first step needs more than 10,000 seeds." in "\n".join(comparison_text.remarks(part))
    everything_lost = [replace(o, state=State.DIVERGED) if o.condition == "AR" else o for o in OUTCOMES]
    assert rows(everything_lost)["AR"] == ["0, 4 diverged", *[""] * 10]


def test_one_seed_is_shown_without_what_it_can_not_say():
    assert rows([o for o in OUTCOMES if o.seed == 0])["AR"] == ["1", "97.1", "70.0", "+0.10", *[""] * 7]


def test_variants_have_tables_and_figures_of_their_own(tmp_path):
    suite = replace(SUITE, variants={"dark blue": {}, "red": {}, "unseen": {}})
    both = [replace(o, variant=v) for v in ("dark blue", "red") for o in OUTCOMES]
    text = report.write(tmp_path, "smoke", suite, both, "actrelax reproduce smoke")
    assert text.count("| condition ") == 2
    assert [line for line in text.splitlines() if line.startswith("##")] == ["## dark blue", "## red"]
    assert "\n16 runs of 2 epochs, 8 minutes of wall time in all." in text
    assert "\n15 of 16 runs of 2 epochs, " in suite_report.text(report.document("smoke", SUITE, OUTCOMES[1:], ""))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "angles-dark-blue.png",
        "angles-red.png",
        "learning-curves-dark-blue.png",
        "learning-curves-red.png",
        "table.json",
    ]


@pytest.mark.parametrize("name", CARRIED_OUT)
def test_committed_tables_say_what_their_rows_say(name):
    skip_under_way()
    written, suite = suite_report.read_document(RESULTS / name), CARRIED_OUT[name]
    words = written["command"].split()
    if "--seeds" in words:
        suite = replace(suite, seeds=int(words[words.index("--seeds") + 1]))
    rows = list(results_table.read(RESULTS / name).values())
    found = json.loads(json.dumps(report.document(words[2], suite, rows, written["command"])))
    assert suite_report.text(found) == suite_report.text(written)
    assert [part["power"] for part in found["parts"]] == approx([part["power"] for part in written["parts"]])


def approx(value):
    """Return a copy whose numbers compare approximately."""
    if isinstance(value, list):
        return [approx(inner) for inner in value]
    if isinstance(value, dict):
        return {key: approx(inner) for key, inner in value.items()}
    return pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value


@pytest.mark.parametrize("name", CARRIED_OUT)
def test_committed_rows_are_written_as_they_were_read(name, tmp_path):
    skip_under_way()
    results_table.write(tmp_path, results_table.read(RESULTS / name).values())
    assert (tmp_path / "curves.csv").read_bytes() == (RESULTS / name / "curves.csv").read_bytes()
    committed, written = (folder.joinpath("runs.csv").read_text() for folder in (RESULTS / name, tmp_path))
    if "made_with" not in committed:  # an older table
        written = re.sub(",(made_with)?$", "", written, flags=re.MULTILINE)
    assert written == committed


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
    text = (tmp_path / "runs.csv").read_text()
    assert text.splitlines()[0].endswith(",made_with")
    (tmp_path / "runs.csv").write_text(re.sub(r',(made_with|"torch 2\.13\.0, on cpu")$', "", text, flags=re.MULTILINE))
    assert all(o.made_with == "" for o in results_table.read(tmp_path).values()), "a table from before there was one"
    (tmp_path / "curves.csv").unlink()
    with pytest.raises(ActrelaxError, match=r"that can be read: curves\.csv can't be read, move runs\.csv and curves"):
        results_table.read(tmp_path)
