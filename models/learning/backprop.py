"""Backprop, the baseline: exact gradients of the same network by autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from actrelax.models.assumptions import PRESETS
from actrelax.models.engines import Settle
from actrelax.models.learning.captured import refuse_computed_weights, without_hooks
from actrelax.models.learning.gradients import (
    Backward,
    BackwardOptions,
    Updates,
    add_to_grad,
    has_hooks,
    is_finite,
    refuse_sample_clip,
    separate,
    with_reduction,
)
from actrelax.models.learning.implicit import ImplicitPass
from actrelax.models.learning.plasticity import without_dropped
from actrelax.models.learning.report import SettlingReport
from actrelax.models.learning.settling import losses_learned
from actrelax.models.network import CapturedNetwork, Network, check_network
from actrelax.models.problem import Loss, LossFunction, loss_named


def backprop_backward(
    network: Network,
    x: Tensor,
    y: Tensor,
    *,
    loss: str | Loss | LossFunction = "cross-entropy",
    reduction: Literal["mean", "sum"] = "mean",
    updates: Updates | None = None,
    options: BackwardOptions | None = None,
) -> Backward:
    """Add the gradient of the loss to each parameter's `.grad`, by autograd.

    The forward pass, the loss gradient and the updates' options are the same as in `relax_backward`. On a network with
    cycles this is implicit differentiation: the rates settle, and GMRES solves the linear system of the gradients, with
    autograd's vector-Jacobian products at the settled rates, to a relative residual of 1e-6 or that of the rates.

    Parameters
    ----------
    network, x, y, loss
        As for `relax_backward`.
    reduction, updates
        As for `BackwardOptions`.
    options : BackwardOptions, optional
        Updates, unless `updates` is given; for a network with cycles its `settle`, `unsettled` and `unsettled_above`.

    Returns
    -------
    Backward
        Its trajectory is None.

    Raises
    ------
    ActrelaxError
        For invalid arguments, another reduction in the options, or a `sample_clip`, which clips relaxations.
    DivergenceError
        If a rate in a cycle becomes non-finite; `.grad` is then unchanged.
    """
    options = _options(options, reduction, updates)
    refuse_sample_clip(options, "backprop_backward")
    gradients, backward = _gradients(network, x, y, loss_named(loss), options)
    for w, gradient in gradients.items():
        add_to_grad(w, gradient)
    return backward


def parameter_gradients(
    network: Network,
    x: Tensor,
    y: Tensor,
    *,
    loss: str | Loss | LossFunction = "cross-entropy",
    reduction: Literal["mean", "sum"] = "sum",
    updates: Updates | None = None,
    options: BackwardOptions | None = None,
) -> dict[nn.Parameter, Tensor]:
    """Return parameter -> gradient of the loss, for each weight and bias that requires a gradient."""
    return _gradients(network, x, y, loss_named(loss), _options(options, reduction, updates))[0]


def _options(
    options: BackwardOptions | None, reduction: Literal["mean", "sum"], updates: Updates | None
) -> BackwardOptions:
    """Return the options with the arguments of a function; `updates` replaces theirs."""
    options = with_reduction(options or BackwardOptions(), reduction)
    return options if updates is None else replace(options, updates=updates)


class Differentiable(Protocol):
    """A forward pass in autograd's graph."""

    output: Tensor

    @property
    def report(self) -> SettlingReport | None:
        """Whether the samples have settled, on a network with cycles."""

    def gradients(self, of: Sequence[Tensor], top: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of tensors for a loss gradient, (batch, *output shape)."""


class _Plain:
    """The pass of a network without cycles."""

    report: SettlingReport | None = None

    def __init__(self, network: Network, x: Tensor) -> None:
        with torch.enable_grad():
            self.output = network(x)

    def gradients(self, of: Sequence[Tensor], top: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.output, of, top)


def _gradients(
    network: Network, x: Tensor, y: Tensor, loss: Loss, options: BackwardOptions
) -> tuple[dict[nn.Parameter, Tensor], Backward]:
    check_network(network)
    if isinstance(network, CapturedNetwork):
        return _captured_gradients(network, x, y, loss, options)

    def run(network: Network) -> Differentiable:
        return ImplicitPass(network, x, options) if network.is_recurrent else _Plain(network, x)

    return gradients_of(run, network, y, loss, options)


def gradients_of(
    run: Callable[[Network], Differentiable], network: Network, y: Tensor, loss: Loss, options: BackwardOptions
) -> tuple[dict[nn.Parameter, Tensor], Backward]:
    """Return parameter -> gradient of the loss by autograd, for the pass that `run` makes of a network."""
    kinds = {w: network.kind(p) for p in reversed(network.projections.values()) for w in (p.weight, p.bias)}
    # a Parameter shared by two projections occurs once: its gradient is the sum over both
    parts = (w for p in network.projections.values() for w in (p.weight, p.bias))
    learned = list(dict.fromkeys(w for w in parts if w is not None and w.requires_grad))
    network, leaves = _without_hooks(network, learned)
    passed = run(network)
    output = passed.output.detach()
    batch = len(output)
    losses, top = loss.both(output, y)
    correction = loss.correction(output, y, options.reduction)
    if correction is not None:
        top = top * correction
    # the factor of dense projections scales the loss; gradients of convolutions are rescaled afterwards
    scales = {kind: options.scale(kind, batch) for kind in ("dense", "conv")}
    gradients = passed.gradients(leaves, top * scales["dense"]) if learned else ()
    found = separate(dict(zip(learned, gradients, strict=True)))
    if scales["conv"] != scales["dense"]:
        for w, gradient in found.items():
            if kinds[w] == "conv":
                gradient.mul_(scales["conv"] / scales["dense"])
    report = passed.report
    total = losses_learned(losses, report).sum()
    finite = is_finite((output if report is None else without_dropped(output, report.learning)).sum())
    backward = Backward(options.reduced(total, batch, correction), output, finite, batch, report=report)
    return {w: options.updates.clipped_(each) for w, each in found.items()}, backward


def _captured_gradients(
    network: CapturedNetwork, x: Tensor, y: Tensor, loss: Loss, options: BackwardOptions
) -> tuple[dict[nn.Parameter, Tensor], Backward]:
    """Return the gradients of a captured network's parameters, by autograd on its module."""
    network.check(x)
    refuse_computed_weights(network, PRESETS["ar"], options.updates.factors)
    learned = [w for w in network.parameters() if w.requires_grad]
    kinds = {name: p.kind for p in network.projections.values() for name in (p.weight, p.bias) if name}
    by_weight = {w: kinds.get(name, "phi") for name, w in network.named_parameters()}
    with torch.enable_grad():
        output = network(x)
    losses, top = loss.both(output.detach(), y)
    correction = loss.correction(output.detach(), y, options.reduction)
    batch = len(output)
    top = top * options.scale("phi", batch) if correction is None else top * correction * options.scale("phi", batch)
    with without_hooks(learned):
        gradients = torch.autograd.grad(output, learned, top, allow_unused=True)
    found = {}
    reached = {w: gradient for w, gradient in zip(learned, gradients, strict=True) if gradient is not None}
    for w, gradient in separate(reached).items():
        factor = options.updates.factors.get(by_weight[w], 1.0)
        found[w] = options.updates.clipped_(gradient if factor == 1 else gradient * factor)
    loss_value = options.reduced(losses.sum(), batch, correction)
    return found, Backward(loss_value, output.detach(), is_finite(output.detach().sum()), batch)


def _without_hooks(network: Network, learned: list[nn.Parameter]) -> tuple[Network, Sequence[Tensor]]:
    """Return the network with copies of its parameters, and the copies; later `add_to_grad` calls the hooks."""
    if not any(map(has_hooks, learned)):
        return network, learned
    plain = {w: w.detach().requires_grad_() for w in learned}
    weights = [getattr(network.projections[name], slot) for name, slot in network.slots]
    return network.with_weights([plain.get(w, w) for w in weights]), list(plain.values())


def activity_gradients(
    network: Network,
    x: Tensor,
    y: Tensor,
    *,
    loss: str | Loss | LossFunction = "cross-entropy",
    settle: Settle | None = None,
) -> dict[str, Tensor]:
    """Return dLoss/dx of the hidden populations and the output, the equilibrium of AR with the standard assumptions.

    On a network with cycles by implicit differentiation at the rates that settle as `settle` says, by default
    ``Settle()``.

    Returns
    -------
    dict
        Population -> (batch, *population.shape), the gradient of each sample's loss, in topological order.
    """
    check_network(network)
    chosen, names = loss_named(loss), [*network.hidden, network.output]
    if isinstance(network, CapturedNetwork):
        return _captured_activities(network, x, y, chosen)
    if network.is_recurrent:
        return _recurrent_activities(ImplicitPass(network, x, BackwardOptions(settle=settle or Settle())), y, chosen)
    with torch.enable_grad():
        passed = network.feedforward(x.detach().requires_grad_())
    output = passed.activities[network.output]
    gradients = torch.autograd.grad(
        output, [passed.activities[name] for name in names], chosen.gradient(output.detach(), y)
    )
    return dict(zip(names, gradients, strict=True))


def _recurrent_activities(passed: ImplicitPass, y: Tensor, loss: Loss) -> dict[str, Tensor]:
    """Return the gradients of all populations of a network with cycles."""
    top = loss.gradient(passed.output.detach(), y)
    gradients = passed.gradients(list(passed.ends.values()), top)
    found: dict[str, Tensor] = {}
    rates = passed.passed.activities
    for members, gradient in zip(passed.ends, gradients, strict=True):
        parts = torch.split(gradient.flatten(1), [rates[name][0].numel() for name in members], dim=1)
        found |= {name: part.reshape(rates[name].shape) for name, part in zip(members, parts, strict=True)}
    return {name: found[name] for name in [*passed.network.hidden, passed.network.output]}


def _captured_activities(network: CapturedNetwork, x: Tensor, y: Tensor, loss: Loss) -> dict[str, Tensor]:
    """Return the gradients of a captured network's populations, in autograd's graph of the whole module."""
    with network.fork_state(x):
        path = network.run(x, values=network.paths == "many").path  # finds the populations' places
    network = network.along(path)
    output, edges = network.watch(x, path)
    names = [*network.hidden, network.output]
    ends = [GradientEdge(*edges[name], None) for name in names]
    gradients = torch.autograd.grad(output, ends, loss.gradient(output.detach(), y))
    return dict(zip(names, gradients, strict=True))
