"""Options that have no effect in combination with others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields

import torch

from actrelax.models.assumptions import PRESETS
from actrelax.models.engines import integrator_named
from actrelax.simulations.training.experiment import Experiment, Optimisation
from actrelax.simulations.training.forward_phase import ForwardPhase
from actrelax.simulations.training.optimisers import optimiser_named
from actrelax.simulations.training.relaxation import Relaxation

NORMALISING = (torch.optim.Adam, torch.optim.NAdam, torch.optim.Adamax, torch.optim.RMSprop, torch.optim.Adagrad)
"""Optimisers whose steps don't depend on the scale of the gradients; AdamW is an Adam."""


def idle_options(experiment: Experiment) -> list[str]:
    """Return one sentence for each reason why given options have no effect."""
    return _sentences(_idle(experiment, Experiment()))


def idle_in_all(experiments: Iterable[Experiment], usual: Experiment) -> list[str]:
    """Return these sentences for options that differ from `usual` and have no effect in any experiment."""
    idle = [_idle(experiment, usual) for experiment in experiments]
    return _sentences({name: reason for name, reason in idle[0].items() if all(name in each for each in idle)})


def idle_in_one_relaxation(relaxation: Relaxation, batch_size: int | None = None) -> list[str]:
    """Return these sentences for a relaxation without learning; `batch_size` is given if copies of one image relax."""
    found: dict[str, str] = {}
    if relaxation.knobs == PRESETS["constant-statistics"]:
        found["assumptions"] = "without learning a BatchNorm is in evaluation mode, where its statistics are constant"
    for names, reason in (*_reasons_of_spread(relaxation), *_reasons_of_input_noise(relaxation, learns=False)):
        found |= {name: reason for name in names if getattr(relaxation, name) != getattr(Relaxation(), name)}
    if batch_size is not None:
        found["batch_size"] = "with noise, copies of the first image relax"
    return _sentences(found)


def _sentences(idle: Mapping[str, str]) -> list[str]:
    """Return one sentence per reason; `idle` maps each option to its reason."""
    found = []
    for reason in dict.fromkeys(idle.values()):
        options = [f"--{name.replace('_', '-')}" for name, why in idle.items() if why == reason]
        verb = "has" if len(options) == 1 else "have"
        found.append(f"{' and '.join(options)} {verb} no effect: {reason}.")
    return found


def _idle(experiment: Experiment, usual: Experiment) -> dict[str, str]:
    """Return option -> reason why it has no effect, for options that differ from `usual`."""
    before, given = _flat(usual), _flat(experiment)
    found: dict[str, str] = {}
    for names, reason in _reasons(experiment):
        found |= {name: reason for name in names if given[name] != before[name]}
    return found


def _reasons(experiment: Experiment) -> Iterator[tuple[list[str], str]]:
    """Yield names of options, and the reason why they have no effect."""
    o, r = experiment.optimisation, experiment.relaxation
    if experiment.rule != "ar":
        yield [*(f.name for f in fields(Relaxation)), "evaluation", "sample_clip"], f"{experiment.rule} relaxes nothing"
    else:
        yield from _reasons_of_relaxation(r)
    normalises = issubclass(optimiser_named(o.optimiser), NORMALISING) and not o.clip_norm
    decays = o.decay or (o.weight_decay and not issubclass(optimiser_named(o.optimiser), torch.optim.AdamW))
    if normalises and not decays:
        yield (
            ["conv_factor", "reduction"],
            f"{o.optimiser} normalises each update, unless --update-clip bounds it",
        )
    if o.schedule != "step":
        yield ["step_epochs", "step_factor"], "they belong to --schedule step"


def _reasons_of_relaxation(r: Relaxation) -> Iterator[tuple[list[str], str]]:
    if not integrator_named(r.integrator).takes_time:
        yield ["start", "tau", "tau_spread", "tau_spread_over", "clip"], f"{r.integrator} takes no time"
    elif r.dt is None and r.duration is None and not r.tau_spread and not r.delay:
        yield ["tau"], "steps are relative to tau unless --dt is given"
    yield from _reasons_of_spread(r)
    yield from _reasons_of_input_noise(r, learns=True)


def _reasons_of_spread(r: Relaxation) -> Iterator[tuple[list[str], str]]:
    if not r.tau_spread:
        yield ["tau_spread_over"], "without --tau-spread all neurons have one tau"


def _reasons_of_input_noise(r: Relaxation, *, learns: bool) -> Iterator[tuple[list[str], str]]:
    knobs = r.knobs.all_knobs
    if any(k.activity_gain == "current" for k in knobs):
        return
    if not learns:
        yield ["input_noise"], f"under {r.condition} gains are those of the feedforward pass"
    elif not any("current" in (k.weight_gain, k.presynaptic) for k in knobs):
        yield ["input_noise"], "gains and presynaptic factors are those of the feedforward pass"


def _flat(experiment: Experiment) -> dict[str, object]:
    e = experiment
    parts: list[Experiment | Relaxation | ForwardPhase | Optimisation] = [e, e.relaxation, e.forward, e.optimisation]
    return {f.name: getattr(part, f.name) for part in parts for f in fields(part)}
