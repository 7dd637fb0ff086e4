"""What the suites consist of, against the papers' texts and what can be run."""

from dataclasses import replace
from pathlib import Path

import pytest
from committed import RESULTS

from actrelax.analysis.reports import outcomes
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.options import Hardware
from actrelax.simulations.suites.definitions import IMAGES, SUITES, varied
from actrelax.simulations.suites.store import Kept
from actrelax.simulations.training.experiment import as_options, protocol


@pytest.mark.parametrize("name", SUITES)
def test_every_run_can_be_run(name):
    """Options go together, no two runs are the same, and within a seed only what the suite varies differs."""
    suite = SUITES[name]
    cases = list(suite.cases())
    assert len(cases) == suite.seeds * len(suite.variants) * len(suite.conditions)
    options = []
    for case in cases:
        case.experiment.check()
        assert case.experiment.hardware.threads == 1
        options.append(as_options(case.experiment))
    assert len({tuple(o.items()) for o in options}) == len(cases)
    differing = {n for n in options[0] if any(o[n] != options[0][n] for o in options)}
    assert differing <= suite.varying() | {"measure_alignment"}
    assert next(iter(suite.conditions)) == "backprop"


@pytest.mark.parametrize("name", [name for name in SUITES if (RESULTS / name / "runs.csv").exists()])
def test_results_that_are_kept_are_of_the_suites_runs(name):
    """An option that is added must not make strangers of them, or they would all be done again."""
    suite = replace(SUITES[name], seeds=10)
    runs = set()
    for case in suite.cases():
        experiment = replace(case.experiment, hardware=Hardware("cpu", threads=1)).resolved()
        runs.add((case.variant, case.condition, Kept(Path(), experiment).hash))
    found = outcomes.read(RESULTS / name)
    assert found
    assert set(found) <= runs


def test_the_papers_protocols():
    mlp, cnn = (as_options(SUITES[name].base) for name in ("mlp-mnist", "cnn-cifar10"))
    for found, paper in ((mlp, "paper-mlp"), (cnn, "paper-cnn")):
        expected = as_options(protocol(paper)) | {"epochs": 10, "threads": 1, "measure_alignment": 100}
        assert found == expected
    presets = [o["assumptions"] for o in SUITES["cnn-cifar10"].conditions.values() if o["rule"] == "ar"]
    assert presets[:8] == [
        "ar",
        "no-derivatives-dense",
        "no-derivatives-conv",
        "no-derivatives",
        "learned-feedback-dense",
        "learned-feedback-conv",
        "simplified-dense",
        "simplified",
    ]


@pytest.mark.parametrize("epochs", [1, 30])
def test_kolen_pollack_forgets_in_any_number_of_epochs(epochs):
    """Rate times decay times steps is 2: exp(-2) of the initial feedback weights are left."""
    suite = SUITES["cnn-svhn10k"]
    longer = suite.based_on(varied(suite.base, {"epochs": epochs}))
    experiment = next(c.experiment for c in longer.cases() if c.condition.startswith("Kolen"))
    steps = epochs * -(-IMAGES["svhn10k"] // 64)
    assert experiment.optimisation.lr * experiment.optimisation.decay * steps == pytest.approx(2, rel=0.01)


def test_what_is_varied_is_not_to_be_set():
    suite = SUITES["cnn-cifar10"]
    assert suite.based_on(varied(suite.base, {"lr": 0.001})).base.optimisation.lr == 0.001
    with pytest.raises(
        ActrelaxError, match=r"^--assumptions is what the runs of this suite differ in: leave it out\.$"
    ):
        suite.based_on(varied(suite.base, {"assumptions": "simplified"}))
