"""Definitions of the suites, against the papers' protocols and valid options."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from committed import CARRIED_OUT, RESULTS

from actrelax.analysis.reports import results_table
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import build, build_module
from actrelax.simulations.suites.definitions import SUITES
from actrelax.simulations.suites.run_store import Kept
from actrelax.simulations.suites.shared import IMAGES
from actrelax.simulations.suites.suite import varied
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.configuration import as_options
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, protocol


@pytest.mark.parametrize("name", SUITES)
def test_every_run_can_be_run(name):
    """Options are compatible, all runs differ, and runs of one seed differ only in the suite's options."""
    suite = replace(SUITES[name], seeds=2)  # two seeds stand for all
    cases = list(suite.cases())
    assert len(cases) == suite.seeds * len(suite.variants) * len(suite.conditions)
    options = []
    for case in cases:
        case.experiment.check()
        case.execution.check(case.experiment)
        assert case.execution.threads == 1
        options.append(as_options(case.experiment))
    assert len({json.dumps(o) for o in options}) == len(cases)
    differing = {n for n in options[0] if any(o[n] != options[0][n] for o in options)}
    assert differing <= suite.varying()
    assert next(iter(suite.conditions)) == "backprop"


@pytest.mark.parametrize("name", CARRIED_OUT)
def test_results_that_are_kept_are_of_the_suites_runs(name):
    """A new option must not change the hashes of stored runs, or all of them would be repeated."""
    suite = replace(CARRIED_OUT[name], seeds=10)
    runs = set()
    for case in suite.cases():
        runs.add((case.variant, case.condition, Kept(Path(), case.experiment.resolved(), case.execution).hash))
    found = results_table.read(RESULTS / name)
    assert found
    assert set(found) <= runs


def test_the_papers_protocols():
    mlp, cnn = (as_options(SUITES[name].base) for name in ("mlp-mnist", "cnn-cifar10"))
    for found, paper in ((mlp, "paper-mlp"), (cnn, "paper-cnn")):
        assert found == as_options(protocol(paper)) | {"epochs": 10}


MLP = ["ar", "learned-feedback", "no-derivatives-relaxation", "simplified-relaxation", "random-feedback"]
UNFROZEN = ["ar", "current-presynaptic", "unfrozen-relaxation", "unfrozen-weights", "unfrozen"]
DENSE_AND_CONV = ["no-derivatives-dense", "no-derivatives-conv", "no-derivatives"]
DENSE_AND_CONV += ["learned-feedback-dense", "learned-feedback-conv", "simplified-dense", "simplified"]
EVERYWHERE = ["random-feedback", "sign-feedback"]
CNN = ["ar", *DENSE_AND_CONV, *EVERYWHERE, "kolen-pollack"]
GRAPH = ["ar", "ar", "no-derivatives", "learned-feedback", "simplified", "random-feedback"]
TEN = ["ar"] * 3 + ["no-derivatives", "kolen-pollack"]
TEN += ["no-derivatives,dense.feedback=kolen-pollack,conv.feedback=kolen-pollack"]
TEN += ["sign-feedback", "random-feedback", "constant-statistics"]
CONTROLS = ["ar", "ar", "kolen-pollack", "simplified", "simplified"]
RECURRENT = ["ar", None, "ar", "ar", "sign-feedback", "random-feedback", "learned-feedback", "kolen-pollack"]
RECURRENT += ["no-derivatives-relaxation", "ar,dense.weight-gain=none,conv.weight-gain=none", None, None]
REMEDIES = [name for name in ("learned-feedback", "kolen-pollack", "no-derivatives", "simplified") for _ in range(5)]
REMEDIES += ["unfrozen"] * 5
SSE, CE = "sum-of-squares", "cross-entropy"
PLANNED = {
    "mlp-mnist": ("mnist", "mlp", SSE, 10, 10, MLP),
    "mlp-fashion": ("fashion-mnist", "mlp", SSE, 10, 10, MLP),
    "mlp-mnist-ce": ("mnist", "mlp", CE, 10, 10, MLP),
    "unfrozen-mnist": ("mnist", "mlp", SSE, 5, 5, UNFROZEN),
    "unfrozen-fashion": ("fashion-mnist", "mlp", SSE, 5, 5, UNFROZEN),
    "cnn-cifar10": ("cifar10", "cnn", SSE, 5, 10, CNN),
    "cnn-cifar10-long": ("cifar10", "cnn", SSE, 5, 30, CNN),
    "cnn-cifar100": ("cifar100", "cnn", SSE, 5, 10, CNN),
    "cnn-svhn": ("svhn", "cnn", SSE, 5, 10, CNN),
    "cnn-svhn10k": ("svhn10k", "cnn", SSE, 5, 10, CNN),
    "cnn-cifar10-controls": ("cifar10", "cnn", SSE, 5, 10, CONTROLS),
    "cnn-svhn10k-controls": ("svhn10k", "cnn", SSE, 5, 10, CONTROLS),
    "cnn-cifar10-converged": ("cifar10", "cnn", SSE, 5, 10, CNN),
    "cnn-cifar10-start": ("cifar10", "cnn", SSE, 5, 10, ["ar"] * 4),
    "cnn-cifar10-adam": ("cifar10", "cnn", CE, 5, 10, CNN[:-1]),
    "graph-cifar10": ("cifar10", "cnn-skip", SSE, 5, 10, GRAPH),
    "continuous-digits": ("digits", "digits-mlp", CE, 5, 20, ["ar", "continuous"]),
    "cnn-cifar10-derivatives": ("cifar10", "cnn", SSE, 5, 10, ["ar", *["no-derivatives-conv"] * 2]),
    "cnn-cifar10-steps": ("cifar10", "cnn", SSE, 3, 10, ["ar"] * 5 + ["no-derivatives-conv"] * 5),
    "cnn-cifar10-single": ("cifar10", "cnn", SSE, 5, 10, ["ar"] * 9),
    "unfrozen-cifar10": ("cifar10", "cnn", SSE, 3, 5, ["ar", *UNFROZEN[2:]]),
    "depth-digits": ("digits", "digits-resnet-8", CE, 5, 20, TEN[:-1]),
    "depth-digits-statistics": ("digits", "digits-resnet-8", CE, 5, 20, ["ar", "constant-statistics"]),
    "resnet-cifar10": ("cifar10", "resnet-8", CE, 5, 10, TEN),
    "resnet20-cifar10": ("cifar10", "resnet-20", CE, 3, 30, ["ar", *TEN[3:6]]),
    "vgg-cifar10": ("cifar10", "vgg8", CE, 3, 30, ["ar", *DENSE_AND_CONV]),
    "smoke": ("digits", "digits-cnn", CE, 3, 6, ["ar", "simplified", "random-feedback"]),
    "recurrent-digits": ("digits", "digits-rec", CE, 10, 30, RECURRENT),
    "recurrent-mnist": ("mnist", "hierarchy", CE, 3, 4, RECURRENT),
    "recurrent-mnist-stability": ("mnist", "hierarchy", CE, 3, 4, ["ar", *REMEDIES]),
    "recurrent-fashion": ("fashion-mnist", "conv-rec", CE, 3, 2, RECURRENT),
}
"""Name -> data set, network, loss, seeds, epochs, and the presets after backprop."""


@pytest.mark.parametrize("name", SUITES)
def test_suites_are_what_was_planned(name):
    suite = SUITES[name]
    base = as_options(suite.base)
    presets = [options.get("assumptions") for options in suite.conditions.values()]
    found = (base["dataset"], base["network"], base["loss"], suite.seeds, base["epochs"], presets)
    assert found == (*PLANNED[name][:-1], [None, *PLANNED[name][-1]])


def test_one_derivative_or_one_transport_is_lifted_at_a_time():
    """Each derivative of a hidden population, and each weight whose feedback is read."""
    suite = SUITES["cnn-cifar10-single"]
    names = list(build(suite.base.model.network).projections)
    lifted = [options["lift"] for options in list(suite.conditions.values())[2:]]
    gains = [(f"{name}.activity-gain=none", f"{name}.weight-gain=none") for name in names[:-1]]
    assert lifted == gains + [(f"{name}.feedback=learned",) for name in names[1:]]


def test_only_one_condition_has_the_papers_clip():
    """The others don't reach it, so stepping them would only cost time."""
    cases = [(name, case) for name, suite in SUITES.items() for case in replace(suite, seeds=1).cases()]
    clipped = {(name, case.condition) for name, case in cases if case.experiment.relaxation.clip is not None}
    assert clipped == {(f"{name}-controls", "simplified, clipped") for name in ("cnn-cifar10", "cnn-svhn10k")}
    assert {case.experiment.relaxation.clip for _, case in cases} == {None, 50.0}


def test_a_hash_is_of_the_experiment_alone():
    """A new option with the former behaviour as default does not change hashes."""
    experiment = protocol("paper-cnn")
    kept = Kept(Path("here"), experiment, Execution())
    assert replace(kept, root=Path("there"), execution=Execution("cuda", 8, compile="no")).hash == kept.hash
    assert kept.hash == "977d24713be6"
    for other in (replace(experiment, precision="fp64"), replace(experiment, evaluation="stepped")):
        assert Kept(Path(), other, Execution()).hash != kept.hash


DEFAULTS = {
    "rule": "ar",
    "epochs": 20,
    "batch_size": 64,
    "seed": 0,
    "precision": "fp32",
    "evaluation": "auto",
    "dataset": "digits",
    "validation": 0,
    "normalise": "none",
    "layout": None,
    "augment": "none",
    "network": "digits-cnn",
    "activation": None,
    "weight_std": None,
    "loss": "cross-entropy",
    "assumptions": "ar",
    "integrator": "sequential",
    "steps": None,
    "tolerance": None,
    "tolerance_of": None,
    "max_steps": None,
    "eta": None,
    "dt": None,
    "duration": None,
    "tau": 1.0,
    "tau_spread": 0.0,
    "tau_spread_over": "neurons",
    "start": None,
    "clip": None,
    "noise": 0.0,
    "input_noise": 0.0,
    "delay": 0.0,
    "feedback_transform": None,
    "optimiser": "sgd",
    "lr": 0.1,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "schedule": "constant",
    "warmup": 0.0,
    "step_epochs": 10.0,
    "step_factor": 0.1,
    "reduction": "mean",
    "conv_factor": 1.0,
    "update_clip": None,
    "decay": None,
    # added later, with the former behaviour as default
    "test_split": None,
    "label_smoothing": 0.0,
    "clip_norm": None,
    "patience": None,
    "width": None,
    "skips": None,
    "norm": None,
    "lift": [],
    "feedback_strength": None,
    "settle_steps": None,
    "settle_eta": None,
    "settle_tolerance": None,
    "unsettled": None,
    "unsettled_above": None,
    "sample_clip": None,
    "recurrent_bound": None,
    "train_images": None,
    "freeze": [],
}


def test_defaults_are_those_of_the_stored_runs():
    """Hashes omit default options, so another default would assign old runs to new experiments."""
    assert as_options(Experiment()) == DEFAULTS


def test_conditions_of_a_seed_begin_with_the_same_weights_and_batches():
    """Forward weights and the order of images are paired within a seed, and differ between seeds."""
    suite = SUITES["smoke"]
    begun: dict[int, list] = {0: [], 1: []}
    for case in suite.cases():
        if case.variant == "" and case.experiment.seed in begun:
            training = assemble(case.experiment).training
            weights = torch.cat(
                [w.flatten() for name, w in training.network.named_parameters() if "feedback" not in name]
            )
            begun[case.experiment.seed].append((weights, next(training.batches.epoch(1))[0]))
    for runs in begun.values():
        assert len(runs) == len(suite.conditions)
        assert all(torch.equal(a, b) for run in runs for a, b in zip(run, runs[0], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(begun[0][0], begun[1][0], strict=True))


@pytest.mark.parametrize("epochs", [1, 30])
def test_kolen_pollack_forgets_in_any_number_of_epochs(epochs):
    """Rate times decay times steps is 2, which leaves exp(-2) of the initial feedback weights."""
    suite = SUITES["cnn-svhn10k"]
    longer = suite.based_on(varied(suite.base, {"epochs": epochs}))
    experiment = next(c.experiment for c in longer.cases() if c.condition.startswith("Kolen"))
    steps = epochs * -(-IMAGES["svhn10k"] // 64)
    assert experiment.optimisation.lr * experiment.optimisation.decay * steps == pytest.approx(2, rel=0.01)


def test_kolen_pollack_forgets_under_momentum_and_a_cosine():
    """Momentum 0.9 multiplies the rate by 10, and a cosine halves it on average."""
    suite = SUITES["resnet-cifar10"]
    experiment = next(c.experiment for c in suite.cases() if c.condition.startswith("Kolen"))
    o, steps = experiment.optimisation, 10 * -(-IMAGES["cifar10"] // 64)
    assert (o.momentum, o.schedule) == (0.9, "cosine")
    assert o.lr * 10 / 2 * o.decay * steps == pytest.approx(2, rel=0.01)


def test_networks_of_the_map_at_depth():
    """Each has the layers of its name, plain networks have no copies, and only BatchNorm depends on the batch."""
    for suite, norms in (("depth-digits", ("BatchNorm", "GroupNorm")), ("depth-digits-statistics", ("BatchNorm",))):
        variants = SUITES[suite].variants
        assert list(variants) == [f"{k}-{n} {m}" for n in (8, 14, 20, 32) for m in norms for k in ("ResNet", "plain")]
    for name, options in SUITES["depth-digits"].variants.items():
        network, norm = name.split()
        model = varied(SUITES["depth-digits"].base, options).model
        module = build_module(model.network, design=model.design)
        kinds = [type(part).__name__ for part in module.modules()]
        assert kinds.count("Conv2d") + kinds.count("Linear") == int(network.partition("-")[2])
        assert kinds.count(f"{norm}2d" if norm == "BatchNorm" else norm) == kinds.count("Conv2d")
        assert [module.stages[0][0].shortcut is None] == [network.startswith("plain")]
        assert module.head.in_features == 32


def test_what_is_varied_is_not_to_be_set():
    suite = SUITES["cnn-cifar10"]
    assert suite.based_on(varied(suite.base, {"lr": 0.001})).base.optimisation.lr == 0.001
    with pytest.raises(ActrelaxError, match=r"^--assumptions differs between the runs of this suite: leave it out\.$"):
        suite.based_on(varied(suite.base, {"assumptions": "simplified"}))
