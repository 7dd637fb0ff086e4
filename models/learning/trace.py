"""Tracing of learning rules: a list of kernels, recorded once and run for each batch without Python's overhead.

On small networks Python takes as long as the kernels. A rule that reads no values of tensors runs the same kernels for
all batches of one shape: `make_fx` records them once, and later batches run the list, with bitwise equal results. The
list is a `torch.fx.GraphModule`, which `torch.compile` accepts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from actrelax.models.errors import ActrelaxError
from actrelax.models.learning.gradients import Backward, Rule, add_to_grad, has_hooks
from actrelax.models.network import CapturedNetwork, Network
from actrelax.models.problem import dense_targets, loss_named

Kernels = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


class Traced:
    """A learning rule that is traced once per network and batch shape, and then runs as a list of kernels.

    Parameters
    ----------
    rule : callable
        (network, x, y) -> Backward, which adds gradients to `.grad`, reads no value of a tensor and draws no random
        numbers: `relax_backward` with ``BackwardOptions(check_finite=False)``, frozen or with a fixed number of steps;
        `backprop_backward`. Its loss gets class labels as one-hot targets; a `functools.partial` with a loss that
        weights samples by their labels runs untraced.
    finish : callable, optional
        (kernels, x, y) -> kernels, called with an example batch: ``lambda kernels, x, y: torch.compile(kernels)``.

    Examples
    --------
    >>> from functools import partial
    >>> from actrelax import BackwardOptions, build, relax_backward
    >>> network = build("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> rule = Traced(partial(relax_backward, options=BackwardOptions(check_finite=False)))
    >>> result = rule(network, torch.rand(8, 64), torch.arange(8))
    >>> result.output.shape, network.projections["input->hidden1"].weight.grad.shape
    (torch.Size([8, 10]), torch.Size([32, 64]))
    """

    def __init__(self, rule: Rule, finish: Callable[[Kernels, Tensor, Tensor], Kernels] | None = None) -> None:
        self.rule, self.finish = rule, finish
        given = rule.keywords if isinstance(rule, partial) else {}
        self._reads_labels = loss_named(given.get("loss", "cross-entropy")).weights is not None
        self._lists: WeakKeyDictionary[Network, dict[object, _List]] = WeakKeyDictionary()

    @torch.no_grad()
    def __call__(self, network: Network, x: Tensor, y: Tensor) -> Backward:
        """Run the rule on a batch; refuse labels out of range, and rules with random numbers or a trajectory."""
        if isinstance(network, CapturedNetwork) or any(map(has_hooks, network.parameters())):
            return self.rule(network, x, y)  # modules and hooks are Python code, which a list of kernels can't call
        if network.is_recurrent or self._reads_labels:
            return self.rule(network, x, y)  # steps that depend on values, means that depend on labels
        network._check_sources()
        # converted outside the list of kernels, where labels can be checked
        target = dense_targets(y, network.populations[network.output].shape, x)
        lists = self._lists.setdefault(network, {})
        weights = tuple((id(p), p.requires_grad) for p in [*network.parameters(), *network.buffers()])
        key = (x.shape, x.dtype, x.device, x.stride(), target.shape, weights)
        if key not in lists:
            lists[key] = self._trace(network, x, target)
        loss, output, finite, *gradients = lists[key].kernels(x, target)
        for parameter, gradient in zip(lists[key].learning, gradients, strict=True):
            add_to_grad(parameter, gradient)
        return Backward(loss, output, finite, len(output))

    def _trace(self, network: Network, x: Tensor, target: Tensor) -> _List:
        """Record the kernels, leaving existing gradients as they are."""
        before = [parameter.grad for parameter in network.parameters()]
        learning: list[nn.Parameter] = []

        def run(x: Tensor, target: Tensor) -> tuple[Tensor, ...]:
            result = self.rule(network, x, target)
            if result.trajectory is not None:
                raise ActrelaxError("a traced rule can't return a trajectory: leave keep out.")
            learning[:] = [p for p in network.parameters() if p.grad is not None]
            gradients = [p.grad for p in learning]
            network.zero_grad()
            return (result.loss, result.output, result.finite, *gradients)  # type: ignore[arg-type]

        network.zero_grad()
        try:
            run(x, target)  # fill caches, such as coefficients, so that the list only reads them
            kernels = make_fx(run)(x, target)
        finally:
            for parameter, gradient in zip(network.parameters(), before, strict=True):
                parameter.grad = gradient
        drawing = [node.target.name() for node in kernels.graph.nodes if _draws(node.target)]
        if drawing:
            raise ActrelaxError(
                f"a traced rule would draw the same random numbers for every batch ({drawing[0]}): call it untraced."
            )
        return _List(kernels if self.finish is None else self.finish(kernels, x, target), learning)


def _draws(kernel: object) -> bool:
    return isinstance(kernel, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in kernel.tags


@dataclass(frozen=True)
class _List:
    """A list of kernels and the parameters whose gradients it returns."""

    kernels: Kernels
    learning: list[nn.Parameter]
