"""Options of a training that change nothing beside the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from actrelax.models.engines import integrator_named
from actrelax.simulations.training.experiment import Experiment, Optimisation
from actrelax.simulations.training.relaxation import Relaxation


def idle_options(experiment: Experiment) -> list[str]:
    """Return a sentence for each reason why options that are not the usual ones have no effect."""
    found = []
    for names, reason in _reasons(experiment):
        usual, given = (_flat(each) for each in (Experiment(), experiment))
        options = [f"--{name.replace('_', '-')}" for name in names if given[name] != usual[name]]
        if options:
            verb = "has" if len(options) == 1 else "have"
            found.append(f"{' and '.join(options)} {verb} no effect: {reason}.")
    return found


def _reasons(experiment: Experiment) -> Iterator[tuple[list[str], str]]:
    """Yield names of options, and why they have no effect."""
    o, r = experiment.optimisation, experiment.relaxation
    if experiment.rule == "backprop":
        yield [*(f.name for f in fields(Relaxation)), "evaluation"], "backprop relaxes nothing"
    else:
        yield from _reasons_of_relaxation(r)
    decays = o.decay or (o.optimiser == "adam" and o.weight_decay)
    if o.optimiser != "sgd" and not decays:
        yield (
            ["conv_factor", "reduction"],
            f"{o.optimiser} divides each update by its usual size, unless --update-clip bounds it",
        )
    if o.schedule != "step":
        yield ["step_epochs", "step_factor"], "they belong to --schedule step"


def _reasons_of_relaxation(r: Relaxation) -> Iterator[tuple[list[str], str]]:
    if not integrator_named(r.integrator).takes_time:
        yield ["start", "tau", "clip"], f"{r.integrator} takes no time"
    elif r.dt is None and r.duration is None and not r.tau_spread and not r.delay:
        yield ["tau"], "steps are relative to it unless --dt is given"
    if not r.tau_spread:
        yield ["tau_spread_over"], "without --tau-spread all neurons have one tau"
    knobs = r.knobs.both
    if not any("current" in (k.activity_gain, k.weight_gain, k.presynaptic) for k in knobs):
        yield ["input_noise"], "gains and presynaptic factors are those of the feedforward pass"


def _flat(experiment: Experiment) -> dict[str, object]:
    parts: list[Experiment | Relaxation | Optimisation] = [experiment, experiment.relaxation, experiment.optimisation]
    return {f.name: getattr(part, f.name) for part in parts for f in fields(part)}
