"""Runs are labelled by the options that differ, and by no others, and compared only on one task."""

from dataclasses import fields

import pytest

from actrelax.analysis.reports.load_runs import OF_AR, TASK, command, gather, run_folders
from actrelax.analysis.reports.run_report import compared, not_compared, outcome_table, page
from actrelax.analysis.runs import RunFolder, State
from actrelax.analysis.summary import Summary
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.configuration import as_options
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.relaxation import Relaxation

USUAL = {"rule": "ar", "assumptions": "ar", "dataset": "digits", "network": "mlp", "epochs": 2, "lr": 0.1, "clip": None}


def written(path, *, ended="finished", epochs=2, **options):
    """Write an artificial run folder."""
    folder = RunFolder(path)
    execution = {"threads": options.pop("threads", 1), "measure_alignment": options.pop("measure_alignment", None)}
    wanted = {"epochs": epochs} if ended == "finished" else {}
    config = {**USUAL, **wanted, "seed": 0, **options}
    folder.write_config({"version": 3, "experiment": config, "execution": execution})
    rows = [{"epoch": e, "train_accuracy": 0.3 * e, "test_accuracy": 0.4 * e} for e in range(epochs + 1)]
    timing = [{"epoch": e, "train_seconds": 2.0, "evaluate_seconds": 0.5} for e in range(1, epochs + 1)]
    folder.write_tables({"metrics": rows, "timing": timing})
    if ended == "finished":
        values = (config[name] for name in ("rule", "assumptions", "dataset", "network", "epochs", "seed"))
        folder.write_summary(Summary(0.8, 0.6, None, *values, 5.0, 100.0, "cpu", {"torch": "2"}))
    if ended == "diverged":
        folder.write_divergence("batch 3: inf.")
    return folder


def conditions(*folders):
    return [run.outcome.condition for run in gather(folders)]


def test_runs_that_differ_in_their_seed_are_one_condition(tmp_path):
    first = written(tmp_path / "a", seed=0)
    second = written(tmp_path / "b", seed=1, threads=2, measure_alignment=10)
    assert conditions(first, second) == ["ar", "ar"]


def test_a_label_names_what_differs_between_runs_and_the_options_of_ar_among_those_of_a_rule(tmp_path):
    folders = [
        written(tmp_path / "a", lr=0.1),
        written(tmp_path / "b", lr=0.25),
        written(tmp_path / "c", lr=0.1, clip=50.0),
        written(tmp_path / "d", assumptions="random-feedback", lr=0.5),
        written(tmp_path / "e", rule="backprop", lr=0.7, assumptions="simplified"),
        written(tmp_path / "f", lift=["a.feedback=sign", "b.weight-gain=none"]),
    ]
    assert conditions(*folders) == [
        "ar, lr 0.1, clip not given",
        "ar, lr 0.25, clip not given",
        "ar, lr 0.1, clip 50",
        "random-feedback, lr 0.5",
        "backprop, lr 0.7",
        "ar,a.feedback=sign,b.weight-gain=none, lr 0.1",
    ]


def test_the_options_of_ar_are_those_of_relaxations():
    assert {f.name for f in fields(Relaxation)} < set(OF_AR)
    assert {*OF_AR, *TASK} < as_options(Experiment()).keys()


def on_task(path, seeds=2, **options):
    """Write runs of AR and of backprop on one task, and return their folders."""
    name = "-".join(map(str, options.values()))
    rules = ("ar", "backprop")
    return [
        written(path / f"{name}-{rule}{seed}", rule=rule, seed=seed, **options)
        for rule in rules
        for seed in range(seeds)
    ]


@pytest.mark.parametrize(
    ("option", "first", "second"),
    [("dataset", "digits", "/data/grey.npz"), ("epochs", 2, 3), ("train_images", 300, None), ("network", "mlp", "cnn")],
)
def test_runs_on_different_tasks_are_not_compared(tmp_path, option, first, second):
    """Neither between rules, where AR has one task and backprop another, nor between tasks of one rule."""
    both = on_task(tmp_path / "a", **{option: first}) + on_task(tmp_path / "b", **{option: second})
    shown = "not given" if second is None else second
    sections = compared(gather(both))
    assert [section.title for section in sections] == [
        f"Conditions, {option} {first}",
        f"Conditions, {option} {shown}",
    ]
    for section, value in zip(sections, (first, shown), strict=True):
        (table,) = section.tables
        assert [row[0] for row in table.rows] == [f"ar, {option} {value}", f"backprop, {option} {value}"]
        assert [name for name in table.head if name.startswith("minus")] == [f"minus backprop, {option} {value}"]
        assert section.text[0].endswith(f"which differ here: {option}.")
    split = gather([both[0], both[1], both[6], both[7]])  # AR on the first task, backprop on the second
    alone = [table for section in compared(split) for table in section.tables]
    assert [[row[0] for row in table.rows] for table in alone] == [
        [f"ar, {option} {first}"],
        [f"backprop, {option} {shown}"],
    ]
    assert len(not_compared(split)) == 1
    assert not_compared(gather(both[:4])) == []
    assert not_compared(gather([both[0], both[4]])) == []  # nothing is compared


def test_a_brief_table_has_the_data_set_and_the_network_where_they_differ(tmp_path):
    a, b, c = (
        gather(on_task(tmp_path / name, **options))
        for name, options in (("a", {}), ("b", {"dataset": "mnist"}), ("c", {"network": "cnn"}))
    )
    for runs, columns in ((a, set()), ([*a, *b], {"data set"}), ([*a, *c], {"network"})):
        assert {"data set", "network"} & set(outcome_table(runs, brief=True).head) == columns


def test_what_is_said_of_a_comparison_is_what_was_done(tmp_path):
    """The last epoch decides for runs of fewer than five; no contrast is primary; one condition is not tested."""
    (tested,) = compared(gather(on_task(tmp_path / "a")))
    (alone,) = compared(gather(on_task(tmp_path / "b")[:2]))
    (long,) = compared(gather(on_task(tmp_path / "c", epochs=5)[:2]))
    said = [" ".join([*section.text, *section.notes]) for section in (tested, alone, long)]
    assert ["judged by their last epoch" in words for words in said] == [True, True, False]
    assert ["paired t test" in words for words in said] == [True, False, False]
    assert not any("rimary contrast" in words for words in said)
    assert ["p (difference)" in section.tables[0].head for section in (tested, alone)] == [True, False]


def test_one_seed_twice_is_no_second_sample(tmp_path):
    folders = [written(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 1), ("copy-of-a", 0))]
    assert conditions(*folders) == ["a", "b", "copy-of-a"]


def test_runs_that_have_not_ended_are_conditions_of_their_own(tmp_path):
    folders = [
        written(tmp_path / "a"),
        written(tmp_path / "b", ended="no", epochs=1),
        written(tmp_path / "c", ended="diverged", epochs=0, seed=1),
    ]
    runs = gather(folders)
    assert [run.outcome.condition for run in runs] == ["ar", "b (not finished)", "ar"]
    assert [run.said for run in runs] == ["finished", "not finished, 1 of 2 epochs", "diverged, 0 of 2 epochs"]
    assert [run.outcome.state for run in runs] == [State.FINISHED, State.BEGUN, State.DIVERGED]
    assert [run.outcome.wall_seconds for run in runs] == [5.0, 2.5, 0]
    assert runs[2].outcome.reason == "batch 3: inf."


def test_folders_of_runs_are_found(tmp_path):
    for name in ("x/b", "x/a", "y/a"):
        written(tmp_path / name)
    found = run_folders([tmp_path / "x", tmp_path / "y" / "a", tmp_path / "x" / "a"])
    assert [folder.path for folder in found] == [tmp_path / name for name in ("x/a", "x/b", "y/a")]
    assert [run.name for run in gather(found)] == [str(tmp_path / "x/a"), "b", str(tmp_path / "y/a")]
    with pytest.raises(
        ActrelaxError, match=r"holds no run: give folders that actrelax train or actrelax demo wrote\.$"
    ):
        run_folders([tmp_path / "x", tmp_path])


def test_what_is_no_configuration(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.write_config({"lr": 0.1})
    with pytest.raises(
        ActrelaxError, match=r"is not a run of actrelax train: its config\.json has no execution or experiment\.$"
    ):
        gather([folder])


def test_a_command_is_one_for_the_shell():
    assert command({"network": "my net.py:small"}) == "actrelax train --network 'my net.py:small'"
    lifts = ["a.feedback=sign", "b->c.weight-gain=none"]
    assert command({"lift": lifts}) == "actrelax train --lift a.feedback=sign --lift 'b->c.weight-gain=none'"


def test_a_condition_counts_the_seeds_that_diverged(tmp_path):
    folders = [written(tmp_path / f"bp{seed}", rule="backprop", seed=seed) for seed in (0, 1)]
    folders += [written(tmp_path / "rf0", assumptions="random-feedback")]
    folders += [written(tmp_path / "rf1", assumptions="random-feedback", ended="diverged", epochs=0, seed=1)]
    folders += [written(tmp_path / "sf0", assumptions="sign-feedback", ended="diverged", epochs=1)]
    shown = page(gather(folders), tmp_path / "report")
    (table,) = (table for section in shown.sections for table in section.tables if "seeds" in table.head)
    assert [row[:2] for row in table.rows] == [
        ["backprop", "2"],
        ["random-feedback", "1, 1 diverged"],
        ["sign-feedback", "0, 1 diverged"],
    ]
    curves = next(section for section in shown.sections if section.pictures)
    assert curves.text[-1] == "Runs that diverged are left out."
    assert curves.pictures[0].alt.endswith("At the end: backprop 80; random-feedback 80.")
    assert "rf1: diverged, 0 of 2 epochs. batch 3: inf." in shown.sections[0].text
