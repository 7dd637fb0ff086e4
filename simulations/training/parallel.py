"""The rule of one of several processes that share each batch: their gradients are summed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from actrelax.models.assumptions import Assumptions
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import Backward, BackwardOptions, Rule
from actrelax.models.network import Network
from actrelax.simulations.training.processes import Processes


@dataclass(eq=False)
class Shared:
    """A learning rule that takes a share of a batch and leaves the gradients of the whole batch in `.grad`.

    rule         the rule of a single process, with reduction "sum" and without factors, clip and decay
    network      the network that learns
    options      reduction, factors, clip and decay; applied to the sums over the processes
    assumptions  None for backprop
    processes    processes that share the batch; a share may be empty
    size         () -> number of samples in the whole batch

    Raises
    ------
    ActrelaxError
        For a clip of AR's updates if projections share weights: it bounds the update of each, before they are added.
    AbandonedError
        If another process has ended.
    """

    rule: Rule
    network: Network
    options: BackwardOptions
    assumptions: Assumptions | None
    processes: Processes
    size: Callable[[], int]

    def __post_init__(self) -> None:
        network, given = self.network, self.assumptions
        self.kinds: dict[nn.Parameter, str] = {}
        self.decays: dict[nn.Parameter, int] = {}
        for p in network.projections.values():
            learns_feedback = given is not None and network.knobs(p, given).feedback in ("learned", "kolen-pollack")
            for w in (p.weight, p.bias, p.feedback if learns_feedback else None):
                if isinstance(w, nn.Parameter) and w.requires_grad:
                    if w in self.kinds and given and self.options.updates.clip is not None:
                        raise ActrelaxError(
                            "--update-clip needs a single process if projections share weights: leave it out."
                        )
                    self.kinds.setdefault(w, network.kind(p))
                    decays = given is not None and w is not p.bias and network.decays(p, given)
                    self.decays[w] = self.decays.get(w, 0) + decays

    def __call__(self, network: Network, x: Tensor, y: Tensor) -> Backward:
        """Learn from this share, with `.grad` cleared; only the output in the result is restricted to the share."""
        samples, updates = self.size(), self.options.updates
        like = next(iter(self.kinds))
        output, here = x.new_zeros(0, *network.populations[network.output].shape), like.new_zeros(2)
        if len(x):
            result = self.rule(network, x, y)
            output, here = result.output, torch.stack([result.loss.to(like), (~result.finite).to(like)])
        gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in self.kinds]
        *gradients, (loss, lost) = self.processes.total([*gradients, here])
        for (w, kind), gradient in zip(self.kinds.items(), gradients, strict=True):
            w.grad = updates.clipped_(gradient * self.options.scale(kind, samples))
            if updates.decay and self.decays[w]:
                w.grad += updates.decay * self.decays[w] * w.detach()
        return Backward(self.options.reduced(loss, samples), output, lost == 0, samples)
