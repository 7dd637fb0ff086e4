"""Implicit differentiation of a network with cycles, by autograd's vector-Jacobian products (docs/theory.md).

The baseline shares no adjoint with the local rule: autograd differentiates one evaluation of each population at the
settled rates, and GMRES solves x = J^T x + e for the populations of each cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from actrelax.models.engines.residual import largest_residual, residual_of_pass
from actrelax.models.integrators import gmres
from actrelax.models.integrators.gmres import Solution
from actrelax.models.learning.gradients import BackwardOptions
from actrelax.models.learning.plasticity import without_dropped
from actrelax.models.learning.report import SettlingReport
from actrelax.models.learning.settling import Ended, forward_end, pass_for, report_of
from actrelax.models.network import Network, sum_in_order

TIGHT = 1e-6
"""Relative residual of the linear systems, unless the rates settle to a smaller one or the dtype is coarser."""


class ImplicitPass:
    """Settled rates of a batch, in autograd's graph as the fixed point that they are.

    Attributes
    ----------
    output : torch.Tensor
        (batch, *output.shape), with a graph.
    ends : dict
        Populations -> tensor whose gradient is dLoss/dr: for the populations of a cycle (batch, units) of all of them.
    report : SettlingReport or None
        How far each sample was from its fixed points in the last call of `gradients`.
    """

    report: SettlingReport | None = None

    def __init__(self, network: Network, x: Tensor, options: BackwardOptions) -> None:
        self.network, self.options = network, options
        rounding = 4 * torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0
        self.tolerance = max(min(TIGHT, options.settle.steps.tolerance or TIGHT), rounding)
        self.passed = pass_for(network, x, options)
        self._solutions: list[Solution] = []
        self.ends: dict[tuple[str, ...], Tensor] = {}
        self._connect(x)

    def _connect(self, x: Tensor) -> None:
        """Build autograd's graph of the settled rates for the stimuli x."""
        network, activities = self.network, {self.network.input: x}
        with torch.enable_grad():
            for members in network.graph.components:
                if members in network.graph.cycles:
                    activities |= self._fixed_point(members, activities)
                else:
                    (name,) = members
                    self.ends[members] = activities[name] = respond(network, name, activities)
        self.output = activities[network.output]

    def gradients(self, of: Sequence[Tensor], top: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of tensors for a loss gradient; samples that are dropped give none."""
        found = torch.autograd.grad(self.output, of, top, retain_graph=True)
        residual = [solution.residual for solution in self._solutions]
        steps = max((solution.products for solution in self._solutions), default=0)
        at_rest = [] if residual else [torch.zeros_like(residual_of_pass(self.passed))]  # no gradient in a cycle
        self.report = report_of(
            self.options,
            {
                "forward": forward_end(self.options, self.passed),
                "backward": Ended(largest_residual(residual + at_rest), self.tolerance, steps),
            },
        )
        settled = self.report.in_both
        if self.options.unsettled == "drop" and not bool(settled.all()):
            rates = {name: without_dropped(r, settled) for name, r in self.passed.activities.items()}
            self.passed = replace(self.passed, activities=rates)  # which can be nan, as stimuli can
            self._connect(rates[self.network.input])
            found = torch.autograd.grad(self.output, of, without_dropped(top, settled), retain_graph=True)
        return found

    def _fixed_point(self, members: tuple[str, ...], below: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the rates of a cycle, whose gradients pass through one evaluation, and then the linear system."""
        rates = {name: self.passed.activities[name].detach() for name in members}
        self.ends[members] = joined = _joined(self.network, rates, below)
        leaves = {name: r.clone().requires_grad_() for name, r in rates.items()}
        again = _joined(self.network, leaves, {name: r.detach() for name, r in below.items()})

        def transposed(v: Tensor) -> Tensor:
            products = torch.autograd.grad(again, list(leaves.values()), v.to(again), retain_graph=True)
            return torch.cat([product.flatten(1) for product in products], 1).to(v)

        found = _Settled.apply(  # type: ignore[no-untyped-call]
            joined, torch.cat([r.flatten(1) for r in rates.values()], 1), transposed, self.tolerance, self._solutions
        )
        sizes = [r[0].numel() for r in rates.values()]
        parts = torch.split(found, sizes, dim=1)
        return {name: part.view(r.shape) for (name, r), part in zip(rates.items(), parts, strict=True)}


class _Settled(torch.autograd.Function):
    """The rates r of a cycle, in place of their responses f(a(r)); the backward pass solves x = J^T x + gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        joined: Tensor,
        rates: Tensor,
        transposed: Callable[[Tensor], Tensor],
        tolerance: float,
        solutions: list[Solution],
    ) -> Tensor:
        ctx.transposed, ctx.tolerance, ctx.solutions = transposed, tolerance, solutions
        return rates.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        wide = torch.promote_types(gradients[0].dtype, torch.float32)
        solution = gmres(ctx.transposed, gradients[0].to(wide), tolerance=ctx.tolerance)
        ctx.solutions.append(solution)
        return solution.x.to(gradients[0]), None, None, None, None


def respond(network: Network, name: str, activities: Mapping[str, Tensor]) -> Tensor:
    """Return f(a) of one population, (batch, *population.shape), in autograd's graph."""
    drive = sum_in_order([p.find(activities[p.source])[0] for p in network.incoming[name]])
    return network.populations[name].activation(drive)


def _joined(network: Network, rates: Mapping[str, Tensor], below: Mapping[str, Tensor]) -> Tensor:
    """Return f(a(r)) of the populations of a cycle, (batch, units of all)."""
    activities = {**below, **rates}
    return torch.cat([respond(network, name, activities).flatten(1) for name in rates], 1)
