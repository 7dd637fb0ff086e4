"""A sweep is a suite at several rates; the best validation rates become the suite's rates."""

import csv
import re
from dataclasses import replace

import pytest

from actrelax.analysis.reports import suite_report
from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.runs import State
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.suites import learning_rates
from actrelax.simulations.suites.definitions import SUITES
from actrelax.simulations.suites.shared import forgetting
from actrelax.simulations.suites.suite import varied
from actrelax.simulations.training.assemble import learning_rate_factor
from actrelax.simulations.training.configuration import as_options

SMOKE = SUITES["smoke"]


def outcome(condition, rate, seed, accuracy, variant=""):
    """Return a run with this final validation accuracy, whose last epoch and test accuracy are misleading."""
    label = f"{variant} lr {rate:g}".strip()
    final = accuracy or 0.1
    curves = {
        "epoch": [*range(6)],
        "validation_accuracy": [0.1, 0.1, 0.1, 3 * final - 1, 1.0, 0.0],
        "test_accuracy": [1 - final] * 6,
    }
    state = State.DIVERGED if accuracy is None else State.FINISHED
    return Outcome(label, condition, seed, f"{condition}{rate}{seed}", state, "", 1.0, curves)


def test_every_condition_at_every_rate_with_images_held_out():
    sweep = learning_rates.swept(replace(SMOKE, seeds=2), [0.3, 0.1])
    cases = list(sweep.suite.cases())
    assert len(cases) == 2 * 2 * len(SMOKE.conditions)
    found = {(c.condition, c.experiment.seed, c.experiment.optimisation.lr) for c in cases}
    assert found == {(name, seed, lr) for name in SMOKE.conditions for seed in (0, 1) for lr in (0.1, 0.3)}
    assert {c.experiment.images.validation for c in cases} == {143}
    for case in cases:
        case.experiment.check()


def test_the_grid_is_around_the_suites_own_rate():
    found = [rate for _, rate in learning_rates.swept(SUITES["mlp-mnist"]).labels][:7]
    assert found == [6.25e-05, 0.000125, 0.00025, 0.0005, 0.001, 0.002, 0.004]
    assert learning_rates.swept(varied_smoke(validation=7)).suite.base.images.validation == 7


def varied_smoke(**options):
    return replace(SMOKE, base=varied(SMOKE.base, options))


def test_kolen_pollack_forgets_at_every_rate():
    sweep = learning_rates.swept(SUITES["cnn-svhn10k"], [0.0001, 0.001])
    steps = 10 * -(-(8001 - 800) // 64)
    for case in sweep.suite.cases():
        if case.condition.startswith("Kolen"):
            o = case.experiment.optimisation
            assert o.lr * o.decay * steps == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("options", [{"schedule": "step", "step_epochs": 3.0}, {"warmup": 4.0}, {"schedule": "cosine"}])
def test_kolen_pollack_forgets_as_much_under_any_schedule(options):
    """The product of 1 - rate * decay over all updates is about exp(-2)."""
    experiment = varied(SUITES["cnn-cifar10"].base, {"validation": 40_000, **options})
    o, batches = experiment.optimisation, -(-10_000 // 64)
    rates = [
        o.lr * learning_rate_factor(o, step, epochs=experiment.epochs, batches=batches)
        for step in range(batches * experiment.epochs)
    ]
    assert sum(rates) * forgetting(experiment) == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"momentum": 1.0}, "--momentum must be below 1, got 1"),
        ({"validation": 50_000}, "--validation 50000 leaves no"),
    ],
)
def test_a_decay_needs_updates(options, said):
    with pytest.raises(ActrelaxError, match=f"^{said}"):
        forgetting(varied(SUITES["cnn-cifar10"].base, options))


def test_the_best_rate_is_that_of_the_highest_mean_where_no_seed_diverged(tmp_path):
    sweep = learning_rates.swept(replace(SMOKE, seeds=2), [0.1, 0.2, 0.4])
    outcomes = []
    for name in SMOKE.conditions:
        outcomes += [outcome(name, 0.1, seed, a) for seed, a in enumerate((0.5, 0.5))]
        outcomes += [outcome(name, 0.2, seed, a) for seed, a in enumerate((0.4, 0.8))]
        outcomes += [outcome(name, 0.4, seed, a) for seed, a in enumerate((0.9, None))]
    outcomes = [o for o in outcomes if o.condition != "AR"]
    outcomes += [outcome("AR", rate, seed, a) for rate, a in ((0.1, 0.3), (0.2, 0.2), (0.4, 0.1)) for seed in (0, 1)]
    assert "Some runs are not done yet: rates.csv will be written after the last." in learning_rates.write(
        tmp_path, "smoke", sweep, outcomes[1:], ""
    )
    assert not (tmp_path / "rates.csv").exists()
    text = learning_rates.write(tmp_path, "smoke", sweep, outcomes, "actrelax sweep smoke")
    with (tmp_path / "rates.csv").open(newline="") as file:
        best = {row["condition"]: float(row["lr"]) for row in csv.DictReader(file)}
    assert best == {"backprop": 0.2, "AR": 0.1, "simplified": 0.2, "random feedback": 0.2}
    (table,) = suite_report.tables(suite_report.read_document(tmp_path))
    assert table.rows[0] == ["backprop", "50.0", "**60.0**", "90.0, 1 diverged"]
    assert table.numeric == [False, True, True, True]
    assert "after 6 epochs:\nmean over the finished ones of 2 seeds, for each condition" in text
    assert text.count("is at the end of the grid") == 1
    assert "The best rate of AR is at the end of the grid." in text

    own = learning_rates.own_rates("smoke", SMOKE, tmp_path)
    assert {c.condition: c.experiment.optimisation.lr for c in own.cases()} == best
    assert own.remark.endswith(", found by `actrelax sweep smoke`.")
    before, after = (as_options(next(s.cases()).experiment) for s in (SMOKE, own))
    assert {name for name in before if before[name] != after[name]} == {"lr"}
    with pytest.raises(ActrelaxError, match=r"^--lr differs between the runs of this suite"):
        own.based_on(varied(SMOKE.base, {"lr": 0.5}))


def test_where_all_rates_diverge_the_smallest_is_taken_and_none_is_best(tmp_path):
    sweep = learning_rates.swept(replace(SMOKE, seeds=1), [0.1, 0.05])
    outcomes = [
        outcome(name, rate, 0, None if name == "AR" else 0.5) for name in SMOKE.conditions for rate in (0.1, 0.05)
    ]
    text = learning_rates.write(tmp_path, "smoke", sweep, outcomes, "")
    assert re.search(r"\| AR +\| +1 diverged +\| +1 diverged +\|", suite_report.markdown_table(tmp_path))
    assert "after 6 epochs:\nseed 0, for each condition" in text
    assert "AR diverged at all rates: it gets the smallest." in text
    own = learning_rates.own_rates("smoke", SMOKE, tmp_path)
    assert {c.experiment.optimisation.lr for c in own.cases() if c.condition == "AR"} == {0.05}
    path = tmp_path / learning_rates.FILE
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if ",AR," not in line))
    with pytest.raises(ActrelaxError, match=r"rates\.csv has no rate for AR: sweep this suite again\.$"):
        learning_rates.own_rates("smoke", SMOKE, tmp_path)


def test_what_is_refused(tmp_path):
    for make in (
        learning_rates.swept,
        lambda suite: learning_rates.own_rates("cnn-cifar10-derivatives", suite, tmp_path),
    ):
        with pytest.raises(ActrelaxError, match=r"^the runs of this suite differ in their learning rates already: it"):
            make(SUITES["cnn-cifar10-derivatives"])
    with pytest.raises(ActrelaxError, match=r"^a sweep holds a tenth of the training images out, got 9: train on 10"):
        learning_rates.swept(varied_smoke(train_images=9))
    with pytest.raises(ActrelaxError, match=r"has no rates\.csv of a sweep: name the --out of actrelax sweep\.$"):
        learning_rates.own_rates("smoke", SMOKE, tmp_path)
    said = r"^a sweep needs validation images, and the size of mine\.npz is unknown: give --validation\.$"
    with pytest.raises(ActrelaxError, match=said):
        learning_rates.swept(varied_smoke(dataset="mine.npz"))
