"""An autograd function whose backward pass is a relaxation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from actrelax.models.closed_form import PopulationState
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning.captured import without_autocast
from actrelax.models.network import ACTIVATIONS, CapturedPass, FeedforwardPass, Network, Slot
from actrelax.models.problem import RelaxationProblem

Run = Callable[[Network, Tensor], FeedforwardPass]
"""(network, stimuli) -> pass."""
Relax = Callable[[Network, FeedforwardPass, Tensor, bool], tuple[Mapping[Slot, Tensor], Tensor | None]]
"""(network, pass, output gradient, whether the input needs one) -> gradients of the weights and of the input."""
_NOTHING = torch.empty(0)


def feedforward(network: Network, run: Run, relax: Relax, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Return the output of a network with these weights in its slots; its backward pass calls `relax`."""
    output: Tensor = _Relaxation.apply(network, run, relax, x, *weights)  # type: ignore[no-untyped-call]
    return output


class _Relaxation(torch.autograd.Function):
    """Feedforward pass with a relaxation as its backward pass."""

    @staticmethod
    def forward(ctx: Any, network: Network, run: Run, relax: Relax, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.network, ctx.relax, ctx.count = network, relax, len(weights)
        network = network.with_weights(weights)
        with without_autocast(x.device):
            passed = run(network, x)
        output = passed.activities[network.output]
        if network.populations[network.output].activation == ACTIVATIONS["identity"]:
            # the gain of identity does not need the output, which the caller may change in place
            passed = replace(passed, activities={**passed.activities, network.output: _NOTHING})
        ctx.passed = passed.with_tensors(repeat(_NOTHING))
        # autograd raises an error if a saved tensor changes in place before the backward pass
        ctx.save_for_backward(*weights, *passed.tensors())
        return output.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        (gradient,) = gradients
        saved = ctx.saved_tensors  # read once: each access runs the saved-tensor hooks
        weights, passed = saved[: ctx.count], ctx.passed.with_tensors(saved[ctx.count :])
        network = ctx.network.with_weights(weights)
        if passed.activities[network.output].numel() == 0:
            passed.activities[network.output] = gradient.new_zeros(()).expand_as(gradient)  # only the shape is used
        with without_autocast(gradient.device):
            found, at_input = ctx.relax(network, passed, gradient, ctx.needs_input_grad[3])
        return None, None, None, at_input, *(found.get(slot) for slot in network.slots)


CapturedRelax = Callable[[CapturedPass, Tensor], Mapping[Tensor, Tensor]]
"""(pass, output gradient) -> gradients of the parameters, and of the stimulus if it needs one."""


def captured_output(passed: CapturedPass, relax: CapturedRelax, x: Tensor, leaves: Mapping[Tensor, Tensor]) -> Tensor:
    """Return the output of a captured pass; its backward pass calls `relax`.

    `leaves` maps the tensors that the module read to those whose gradients they are.
    """
    learning = {read: leaves.get(read, read) for read in passed.leaves()}
    asked = [x] if passed.stimulus.requires_grad else []
    reads = [*([passed.stimulus] if asked else ()), *learning]
    output: Tensor = _CapturedRelaxation.apply(  # type: ignore[no-untyped-call]
        _Once(passed), relax, reads, *asked, *learning.values()
    )
    return output


class _Once:
    """A pass that can be used once."""

    def __init__(self, passed: CapturedPass) -> None:
        self.passed: CapturedPass | None = passed

    def take(self) -> CapturedPass:
        passed, self.passed = self.passed, None
        if passed is None:
            raise ActrelaxError("the relaxation has run backward already: call the model again before each backward.")
        return passed


class _CapturedRelaxation(torch.autograd.Function):
    """The output of a captured pass, with a relaxation as its backward pass."""

    @staticmethod
    def forward(ctx: Any, once: _Once, relax: CapturedRelax, reads: Sequence[Tensor], *given: Tensor) -> Tensor:
        assert once.passed is not None
        ctx.once, ctx.relax, ctx.reads = once, relax, reads
        return once.passed.output.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        found = ctx.relax(ctx.once.take(), gradients[0])
        reads, ctx.reads = ctx.reads, ()
        return None, None, None, *(found.get(read) for read in reads)


class InputFeedback:
    """Sum of all feedback to the input, collected while iterating over the populations."""

    def __init__(self, problem: RelaxationProblem) -> None:
        self.problem = problem

    def __call__(self, arrivals: Iterator[PopulationState]) -> Iterator[PopulationState]:
        problem, network = self.problem, self.problem.network
        self.total = torch.zeros_like(problem.feedforward.activities[network.input])
        for arrived in arrivals:
            for projection in network.outgoing[network.input]:
                if projection.target in arrived.names:
                    self.total += problem.feedback_along(projection, arrived.state)
            yield arrived


def _refuse_second_derivative() -> None:
    if torch.is_grad_enabled():
        raise ActrelaxError(
            "a relaxation has no second derivative: leave create_graph out, or differentiate the plain module."
        )
