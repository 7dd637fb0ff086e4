"""Backprop through time: autograd through the steps of the forward phase, a baseline for networks with cycles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from actrelax.models._names import whole_number
from actrelax.models.engines import Settle, integrator_named
from actrelax.models.engines.request import change_is_small, divergence_message, is_finite
from actrelax.models.engines.residual import largest_residual, relative_residual
from actrelax.models.engines.steps import step_size
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import zero_if_finite
from actrelax.models.learning.backprop import gradients_of
from actrelax.models.learning.gradients import Backward, BackwardOptions, add_to_grad, refuse_sample_clip
from actrelax.models.learning.implicit import respond
from actrelax.models.learning.plasticity import without_dropped
from actrelax.models.learning.report import SettlingReport
from actrelax.models.learning.settling import (
    Ended,
    pass_for,
    report_of,
    stops_at_non_finite,
    time_from_zero,
    warn_of_unsettled_rates,
)
from actrelax.models.network import Network, check_network
from actrelax.models.problem import Loss, LossFunction, loss_named
from actrelax.models.problem.field_checks import check_start
from actrelax.models.results import DivergenceError

Rates = dict[str, Tensor]
"""Population -> its rates, for the input and all hidden populations."""


def bptt_backward(
    network: Network,
    x: Tensor,
    y: Tensor,
    *,
    last: int | None = None,
    loss: str | Loss | LossFunction = "cross-entropy",
    options: BackwardOptions | None = None,
) -> Backward:
    """Add the gradient of the loss to each parameter's `.grad`, by autograd through the steps of the forward phase.

    All hidden populations take the steps, r <- r + eta (f(a(r)) - r), and the output is f(a(r)) after the last one. The
    memory grows with the number of steps. Through all steps to a fixed point this is the implicit gradient; through the
    last k it is exactly k steps of a relaxation from zero, with Euler's method and the same eta.

    Parameters
    ----------
    network, x, y, loss
        As for `relax_backward`; the network has cycles.
    last : int, optional
        Number of steps to differentiate, after the rates have settled without a graph; by default all, from the start
        of the rates.
    options : BackwardOptions, optional
        Reduction, update factors and clip; `settle`, whose integrator is "euler" or "sequential"; `unsettled` and
        `unsettled_above`, for the forward phase; `check_finite`.

    Returns
    -------
    Backward
        Its trajectory is None, and its report is about the forward phase.

    Raises
    ------
    ActrelaxError
        For a network without cycles, another integrator, or a `sample_clip`, which clips relaxations.
    DivergenceError
        If a rate becomes non-finite; `.grad` is then unchanged.

    Warns
    -----
    UserWarning
        If some samples have not settled after the largest number of steps.
    """
    check_network(network)
    if not network.is_recurrent:
        raise ActrelaxError("bptt_backward needs a network with cycles: call backprop_backward.")
    options = options or BackwardOptions()
    refuse_sample_clip(options, "bptt_backward")
    if last is not None:
        last = whole_number("last", last, least=1)
    gradients, backward = gradients_of(
        lambda network: Unrolled(network, x, options, last), network, y, loss_named(loss), options
    )
    for w, gradient in gradients.items():
        add_to_grad(w, gradient)
    return backward


class Unrolled:
    """Steps of the forward phase in autograd's graph.

    output  (batch, *output.shape), f(a(r)) after the last step
    report  how far the rates are from their fixed point
    """

    def __init__(self, network: Network, x: Tensor, options: BackwardOptions, last: int | None) -> None:
        self.network, self.options, how = network, options, options.settle
        network.check_stimuli(x)
        self.eta, self.sweeps = _step_size(how), integrator_named(how.integrator).name == "sequential"
        before, tolerance = 0, None  # number of steps without a graph; tolerance of those in it
        if last is None:
            rates, tolerance = self._initial_rates(x, how), how.steps.tolerance
            last = 100 if how.steps.number is None else how.steps.number
        else:
            passed = pass_for(network, x, options)
            rates, before = {name: passed.activities[name] for name in network.hidden}, passed.steps or 0
        self.start = {network.input: x, **rates}
        self.taken, self.rates, settled = self._run(self.start, tolerance, last)
        if stops_at_non_finite(network, options) and not is_finite(self.rates):
            raise self._divergence(last)
        if tolerance is not None and not settled:
            warn_of_unsettled_rates(self.taken)
        self.report = self._report(before + self.taken)

    def gradients(self, of: Sequence[Tensor], top: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of tensors for a loss gradient; samples that are dropped give none."""
        settled = self.report.in_both
        if self.options.unsettled == "drop" and not bool(settled.all()):
            top = without_dropped(top, settled)
            if not is_finite(self.rates):  # 0 times nan is nan
                self._run({name: without_dropped(r, settled) for name, r in self.start.items()}, None, self.taken)
        return torch.autograd.grad(self.output, of, top, materialize_grads=True)

    def _initial_rates(self, x: Tensor, how: Settle) -> Rates:
        populations = self.network.populations
        zeros = {name: x.new_zeros(len(x), *populations[name].shape) for name in self.network.hidden}
        in_cycles = {name: zeros[name].shape for cycle in self.network.graph.cycles for name in cycle}
        check_start(how.start, in_cycles, x.dtype, ["zero"])
        return zeros | dict(how.start) if isinstance(how.start, Mapping) else zeros

    def _run(self, rates: Rates, tolerance: float | None, most: int) -> tuple[int, Rates, bool]:
        """Take the steps and read the output, in autograd's graph; return what `_unroll` returns."""
        with torch.enable_grad():
            taken, rates, settled = self._unroll(rates, tolerance, most)
            self.output = respond(self.network, self.network.output, rates)
        return taken, rates, settled

    def _unroll(self, rates: Rates, tolerance: float | None, most: int) -> tuple[int, Rates, bool]:
        """Return the number of steps taken, the rates after them, and whether they have reached the tolerance."""
        for taken in range(1, most + 1):
            before = rates
            rates = self._step(rates)
            if tolerance is not None and self._has_settled(before, rates, tolerance):
                return taken, rates, True
        return most, rates, False

    @torch.no_grad()
    def _divergence(self, most: int) -> DivergenceError:
        """Repeat the steps, and return the error with the first population that is not finite."""
        rates, step = self.start, 0
        while is_finite(rates):
            rates, step = self._step(rates), step + 1
        bad = next(v for v in self.network.populations if v in rates and not is_finite({v: rates[v]}))
        return DivergenceError(divergence_message(bad, step, most))

    def _step(self, rates: Rates) -> Rates:
        new = dict(rates)
        for name in self.network.hidden:
            new[name] = torch.lerp(rates[name], respond(self.network, name, new if self.sweeps else rates), self.eta)
        return new

    @torch.no_grad()
    def _has_settled(self, before: Rates, rates: Rates, tolerance: float) -> bool:
        bound, agree = tolerance * self.eta, self.options.agree
        return all(change_is_small(before, rates, [v], bound, agree) for v in self.network.hidden)

    @torch.no_grad()
    def _report(self, steps: int) -> SettlingReport:
        """Return how far each sample is from its fixed point, after a number of steps from the start of the rates."""
        rates = self.rates
        names = [name for cycle in self.network.graph.cycles for name in cycle]
        parts = [relative_residual(respond(self.network, v, rates) - rates[v], rates[v]) for v in names]
        parts += [zero_if_finite(x) for x in (self.output, *(r for v, r in rates.items() if v not in names))]
        how = self.options.settle
        forward = Ended(largest_residual(parts), how.steps.tolerance, self.taken, time_from_zero(how, steps))
        return report_of(self.options, {"forward": forward})


def _step_size(how: Settle) -> float:
    """Return eta, for units with a time constant of 1."""
    name = integrator_named(how.integrator).name
    if name not in ("euler", "sequential"):
        raise ActrelaxError(f'bptt_backward differentiates steps of "euler" or "sequential", got "{name}".')
    if how.steps.duration is not None:
        raise ActrelaxError(f"bptt_backward takes a number of steps, got {how.steps}: pass Steps(30, eta=0.5).")
    eta = step_size(how.steps)
    if eta >= 2:
        raise ActrelaxError(f'eta must lie between 0 and 2 for "{name}", got {eta:g}: take a smaller eta.')
    return eta
