"""Plasticity during the relaxation of a captured network: weights change after each step (docs/any-module.md).

The feedback uses the current weights of operations. The adjoints of pieces are fixed by the forward pass, so the
parameters of pieces change only after the last step, by the sum of their updates.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor

from actrelax.models.errors import ActrelaxError
from actrelax.models.learning.captured import (
    learn_at,
    parameter_gradients,
    refuse_computed_weights,
    scaled_updates,
    share_of,
)
from actrelax.models.learning.gradients import BackwardOptions
from actrelax.models.network import CapturedNetwork, CapturedPass, Operation
from actrelax.models.network.captured import leaves_of, parameter_of
from actrelax.models.problem import RelaxationProblem, State


class CapturedDescent:
    """Gradient descent on a captured network, during the relaxation and after it.

    Parameters
    ----------
    problem : RelaxationProblem
    options : BackwardOptions
    correction : torch.Tensor, optional
        `Loss.correction`.

    Raises
    ------
    ActrelaxError
        If a weight that changes during the relaxation is computed from parameters, cut out of one by chunk, split or
        unbind, or enters a piece.
    """

    def __init__(self, problem: RelaxationProblem, options: BackwardOptions, correction: Tensor | None) -> None:
        network, passed = problem.network, problem.feedforward
        assert isinstance(network, CapturedNetwork)
        assert isinstance(passed, CapturedPass)
        self.problem, self.passed, self.options = problem, passed, options
        self.scale = 1.0 if correction is None else correction
        refuse_computed_weights(network, problem.assumptions, options.updates.factors)
        timing = {p.name: network.knobs(p, problem.assumptions).plasticity for p in network.projections.values()}
        timing[""] = problem.assumptions.dense.plasticity  # of pieces without projections
        self.during = {name for name, when in timing.items() if when == "continuous"}
        self.after = timing.keys() - self.during
        self._own = {id(p) for number in range(len(passed.edges)) for p in passed.own_parameters(number)}
        self._refuse_fixed_weights()
        self._sums: dict[Tensor, Tensor] = {}

    def parameters(self) -> list[Tensor]:
        """Return all parameters that may change."""
        return self.passed.leaves()

    def step(self, state: State, rate: float) -> None:
        """Change the weights of projections with continuous plasticity."""
        for parameter, update in self._updates(state, self.during).items():
            if id(parameter) in self._own:
                before = self._sums.get(parameter)
                self._sums[parameter] = rate * update if before is None else before + rate * update
            else:
                parameter.sub_(rate * update)
        self.passed.follow_weights()

    def end(self, state: State, rate: float) -> None:
        """Change the weights of the other projections, and the parameters of pieces."""
        updates = self._updates(state, self.after)
        for parameter, update in updates.items():
            parameter.sub_(rate * update)
        for parameter, change in self._sums.items():
            parameter.sub_(change)

    def _updates(self, state: State, projections: Collection[str]) -> dict[Tensor, Tensor]:
        if not projections:
            return {}
        updates = scaled_updates(self.options, share_of(self.problem, self.options, self.scale))
        learn_at(self.problem, state, updates, projections)
        return parameter_gradients(self.problem, updates, self.options.updates)

    def _refuse_fixed_weights(self) -> None:
        """Refuse weights that can't change during the relaxation."""
        operations: list[Operation] = list(self.passed.operations)
        computed = [w for op in operations for w in (op.weight, op.bias) if w is not None and _is_computed(w)]
        fixed = self._own | {id(leaf) for leaf in leaves_of(computed)}
        projections: Any = self.problem.network.projections.values()
        for p in projections:
            if p.name not in self.during or p.number is None:
                continue
            weights = [w for w in (operations[p.number].weight, operations[p.number].bias) if w is not None]
            if any(_is_computed(w) for w in weights):
                raise ActrelaxError(
                    f"the weights of {p.name!r} are computed from parameters (pruned, normalised, masked ...) in the "
                    "forward pass, so they can't change during the relaxation: choose plasticity at equilibrium for "
                    "them."
                )
            if any(_is_part(w) for w in weights):
                raise ActrelaxError(
                    f"the weights of {p.name!r} are cut out of a parameter by chunk, split or unbind, and PyTorch does "
                    "not let them change: take slices of it, or choose plasticity at equilibrium for them."
                )
            if any(id(parameter_of(w)) in fixed for w in weights):
                raise ActrelaxError(
                    f"the weights of {p.name!r} also enter a function whose derivative is fixed by the forward pass, "
                    "so they can't change during the relaxation: choose plasticity at equilibrium for them."
                )


def _is_computed(weight: Tensor) -> bool:
    """Return whether a weight is a function of parameters that learn, other than a parameter or a view of one."""
    return weight.grad_fn is not None and parameter_of(weight) is weight


def _is_part(weight: Tensor) -> bool:
    """Return whether a weight is one of several views that a single function returns, or a view of one of them."""
    node = weight.grad_fn
    while node is not None and not node.name().startswith(("Split", "Unbind")):
        node = node.next_functions[0][0] if node.next_functions else None
    return node is not None
