"""Deliberate defects, each of which breaks one equation: a test marked ``catches(NAME)`` must fail with it.

A defect is an object of the package with a function that returns a wrong version of it. Nothing is named in text, so
a renaming tool also renames the object here, and a missing object fails on import.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from actrelax.models.assumptions import Assumptions
from actrelax.models.closed_form import steps_until
from actrelax.models.engines import schedule
from actrelax.models.engines.captured_feedback import CapturedFeedback
from actrelax.models.engines.residual import relative_residual
from actrelax.models.integrators import EULER, RK4, SEQUENTIAL, add_noise, coefficients
from actrelax.models.learning import BackwardOptions
from actrelax.models.learning.gradients import to_gradients
from actrelax.models.learning.settling import shares_of
from actrelax.models.network import CapturedPass, FeedforwardPass, Network
from actrelax.models.network.captured import record
from actrelax.models.network.captured.gains import Gains
from actrelax.models.network.captured.gates import close_gates
from actrelax.models.network.captured.psi import view_of_feedback
from actrelax.models.network.layers import Dense
from actrelax.models.network.pooling import AvgPool2d, MaxPool2d
from actrelax.models.problem import LOSSES, Leaky, Loss, RelaxationProblem
from actrelax.models.problem.delays import Delays
from actrelax.models.problem.per_neuron import PerNeuron


@dataclass(frozen=True)
class Defect:
    """Deliberate defect: `wrong(right)` replaces `right` everywhere in the package.

    right  a function, method, cached property or frozen dataclass of the package
    wrong  right -> its replacement: a function of the same arguments, or a dataclass of the same type
    """

    right: Any
    wrong: Callable[[Any], Any]

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        """Replace the right object by the wrong one until the patch is undone."""
        if is_dataclass(self.right):  # a shared instance: change it in place
            for name, value in vars(self.wrong(self.right)).items():
                patch.setitem(vars(self.right), name, value)
        elif isinstance(self.right, cached_property):
            patch.setattr(self.right, "func", self.wrong(self.right.func))
        else:
            wrong, places = self.wrong(self.right), list(_places(self.right))
            assert places, f"the package has {self.right} nowhere"
            for owner, name in places:
                patch.setattr(owner, name, wrong)


def _places(function: object) -> Iterator[tuple[ModuleType | type, str]]:
    """Yield each module and class of the package that has the function, with its name there."""
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "actrelax"]
    classes = {each for module in modules for each in vars(module).values() if isinstance(each, type)}
    for owner in (*modules, *classes):
        yield from [(owner, name) for name, value in vars(owner).items() if value is function]


def full_third_stage(problem, state, dt):
    """rk4 with k3 evaluated after a whole step along k2 instead of half a step."""

    def along(slope, h):
        return {v: x + h * slope[v] for v, x in state.items()}

    k1 = problem.vector_field(state)
    k2 = problem.vector_field(along(k1, dt / 2))
    k3 = problem.vector_field(along(k2, dt))
    k4 = problem.vector_field(along(k3, dt))
    return along({v: (k1[v] + 2 * k2[v] + 2 * k3[v] + k4[v]) / 6 for v in state}, dt)


def tails_reversed(right):
    """Coefficients of the clamp, the tails of the hop distribution, in the wrong order."""

    def wrong(*args):
        C = right(*args).copy()
        C[:-1, -1] = C[-2::-1, -1]
        return C

    return wrong


def no_update_of_the_bias(right):
    def wrong(*args):
        weight, bias = right(*args)
        return weight, None if bias is None else 0 * bias

    return wrong


def no_update_of_psi(right):
    def wrong(network, assumptions, projection, *rest):
        updates = right(network, assumptions, projection, *rest)
        return [(slot, update) for slot, update in updates if slot != "feedback"]

    return wrong


def decay_of_the_weights_only(right):
    def wrong(network, assumptions, projection, scaled, updates):
        for slot, update in right(network, assumptions, projection, scaled, updates):
            decayed = slot == "feedback" and updates.decay
            yield slot, update - updates.decay * projection.feedback if decayed else update

    return wrong


def nothing_along_copies(right):
    """The signals that a population sends to those that are copied into it."""

    def wrong(passed, number, *args, **given):
        found, piece = right(passed, number, *args, **given), passed.path.pieces[number]
        copies = range(len(piece.drives), len(piece.drives) + len(piece.copies))
        return [None if n in copies else signal for n, signal in enumerate(found)]

    return wrong


def means_subtracted_still(right):
    """Constant statistics whose signal has the mean over batch and space subtracted."""

    def wrong(gains, scale):
        change = right(gains, scale)

        def changed(found, signals):
            over = [0, *range(2, signals[0].dim())]
            return change(found, [signals[0] - signals[0].mean(over, keepdim=True)])

        return changed

    return wrong


DEFECTS = {
    # which gain, which activities, which weights
    "gain dropped in the relaxation": Defect(
        RelaxationProblem.activity_gain, lambda right: lambda problem, projection: "none"
    ),
    "current gain taken at the feedforward drive": Defect(
        RelaxationProblem.gain_times_activity,
        lambda right: (
            lambda problem, projection, gain, state: right(
                problem, projection, "feedforward" if gain == "current" else gain, state
            )
        ),
    ),
    "presynaptic factor always the feedforward activity": Defect(
        Network.knobs, lambda right: lambda *args: replace(right(*args), presynaptic="feedforward")
    ),
    "knobs of a kind in place of a projection's": Defect(
        Assumptions.of, lambda right: lambda assumptions, name, kind: getattr(assumptions, kind)
    ),
    "feedback by W where psi is meant": Defect(
        Network.feedback_weight, lambda right: lambda network, projection, assumptions: projection.weight
    ),
    "gains from rates that have not settled": Defect(
        FeedforwardPass.response, lambda right: lambda passed, population: passed.activities[population]
    ),
    "feedback of the first projection only": Defect(
        RelaxationProblem.sent,
        lambda right: (
            lambda problem, projection, state: (
                right(problem, projection, state) * (projection is problem.network.outgoing[projection.source][0])
            )
        ),
    ),
    # the ODE and its steps
    "tau ignored": Defect(PerNeuron.of, lambda right: lambda values, population: values.default),
    "clip on one side only": Defect(
        Leaky.residual,
        lambda right: lambda unit, x, u: u - x if unit.clip is None else (u - x).clip(max=unit.clip),
    ),
    "states as coarse as the weights": Defect(
        RelaxationProblem.state_like, lambda right: lambda problem: problem.clamped
    ),
    "old for new values in the sequential sweep": Defect(SEQUENTIAL, lambda right: replace(right, step=EULER.step)),
    "a stage of rk4 at the wrong time": Defect(RK4, lambda right: replace(right, step=full_third_stage)),
    "one step too few": Defect(
        schedule, lambda right: lambda *args, **given: replace(s := right(*args, **given), steps=s.steps - 1)
    ),
    "noise of half the variance": Defect(
        add_noise, lambda right: lambda problem, state, dt, *rest: right(problem, state, dt / 2, *rest)
    ),
    "delays of one step too many": Defect(
        Delays.steps, lambda right: lambda *args: {name: steps + 1 for name, steps in right(*args).items()}
    ),
    # the closed form
    "the clamp's tails in the wrong order": Defect(coefficients, tails_reversed),
    "euler's transition for the sequential sweep": Defect(
        SEQUENTIAL, lambda right: replace(right, transition=EULER.transition)
    ),
    "settled a step early": Defect(
        steps_until, lambda right: lambda *args, **given: (n := right(*args, **given)) and n - 1
    ),
    # pooling
    "max pooling's feedback spread as a mean": Defect(
        MaxPool2d.adjoint,
        lambda right: (
            lambda pool, y, route: AvgPool2d(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode).adjoint(
                y, route
            )
        ),
    ),
    "winners of the moment": Defect(MaxPool2d.apply, lambda right: lambda pool, x, route: pool.find(x)[0]),
    # the loss and the local rule
    "papers' factor 2 forgotten": Defect(
        LOSSES["sum-of-squares"], lambda right: replace(right, gradient=LOSSES["half-sum-of-squares"].gradient)
    ),
    "clamp divided by the batch": Defect(
        Loss.both, lambda right: lambda loss, *batch: ((both := right(loss, *batch))[0], both[1] / len(batch[0]))
    ),
    "sum for mean": Defect(
        BackwardOptions.scale, lambda right: lambda options, *args: right(replace(options, reduction="sum"), *args)
    ),
    "transpose forgotten in the update": Defect(
        Dense.hebbian,
        lambda right: (
            lambda layer, x, y, weight, bias, scale: (
                scale * (x.T @ y).reshape(weight.shape),
                right(layer, x, y, weight, bias, scale)[1],
            )
        ),
    ),
    "bias gradient skipped": Defect(Dense.hebbian, no_update_of_the_bias),
    "psi not updated": Defect(to_gradients, no_update_of_psi),
    "decay of W only": Defect(to_gradients, decay_of_the_weights_only),
    # learning on networks with cycles
    "unsettled samples learn all the same": Defect(
        shares_of,
        lambda right: lambda report, *rest: right(replace(report, above=dict.fromkeys(report.above, math.inf)), *rest),
    ),
    "one residual for the whole batch": Defect(
        relative_residual, lambda right: lambda change, x: right(change, x).amax().expand(len(x))
    ),
    # captured networks
    "gate left open": Defect(close_gates, lambda right: lambda *given: None),
    "copy forgotten": Defect(CapturedPass.transposed, nothing_along_copies),
    "gain of the updates in the relaxation of pieces": Defect(
        CapturedPass.gains_of,
        lambda right: lambda *given: replace(found := right(*given), sent=tuple(g or "none" for g in found.learned)),
    ),
    "means subtracted under constant statistics": Defect(Gains._constant, means_subtracted_still),
    "psi of a transposed weight not transposed": Defect(
        view_of_feedback, lambda right: lambda psi, weight: psi if psi.shape == weight.shape else right(psi, weight)
    ),
    "stimulus left out of the present drive": Defect(
        CapturedFeedback.drive, lambda right: lambda *given: replace(right(*given), bias=np.zeros(1))
    ),
    "relay kept while weights change": Defect(
        CapturedPass.follow_weights,
        lambda right: lambda passed: [each.follow() for each in (*passed.operations, passed.versions)],
    ),
    "value lost in place": Defect(
        record._wanted,
        lambda right: (
            lambda *args: {call: [(*each[:2], False) for each in kept] for call, kept in right(*args).items()}
        ),
    ),
}
