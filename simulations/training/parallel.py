"""Learning rule of several processes that share each batch, and sum their gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from actrelax.models.assumptions import PRESETS, Assumptions
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import Backward, BackwardOptions, Rule, learning_slots, refuse_hooks
from actrelax.models.network import Network
from actrelax.simulations.training.accuracy import is_right
from actrelax.simulations.training.modules import is_module, kinds
from actrelax.simulations.training.processes import Processes


@dataclass(frozen=True)
class SharedBackward(Backward):
    """Result for a whole batch, except `output`, which belongs to this process's share.

    correct    number of correct answers in the whole batch
    unsettled  number of samples of the whole batch that have not settled; None without cycles
    """

    correct: Tensor = field(kw_only=True)
    unsettled: Tensor | None = field(default=None, kw_only=True)


def unsettled_in(result: Backward) -> Tensor | None:
    """Return the number of samples that have not settled, on the device; None without cycles."""
    if isinstance(result, SharedBackward):
        return result.unsettled
    return None if result.report is None else result.report.count


@dataclass(eq=False)
class Shared:
    """Learning rule for a share of a batch, with the gradients of the whole batch in `.grad`.

    rule         rule of a single process, with reduction "sum" and without factors, clip and decay
    network      network that learns
    options      reduction, factors, clip and decay, which apply to the sums over the processes
    assumptions  None for backprop
    processes    processes that share the batch; a share may be empty
    size         function that returns the number of samples in the whole batch
    agrees       True if the rule calls `Processes.agree`, and so needs samples in every process

    Statistics of a batch, such as BatchNorm's, are those of a share.

    Raises
    ------
    ActrelaxError
        If parameters have hooks, or AR's updates are clipped while projections share weights: the clip would apply to
        each update before they are added.
    AbandonedError
        If another process has ended.
    """

    rule: Rule
    network: Network
    options: BackwardOptions
    assumptions: Assumptions | None
    processes: Processes
    size: Callable[[], int]
    agrees: bool = False

    def __post_init__(self) -> None:
        refuse_hooks(self.network, "several processes share a batch, and none has its whole gradient")
        self.learning: dict[nn.Parameter, tuple[str, int]] = {}  # -> kind, number of projections that let it decay
        if is_module(self.network):
            found = kinds(self.network)
            named = dict(self.network.named_parameters())
            pairs = [
                (named[str(p.parameter)], named[f"{p.psi}.feedback"])  # tied weights decay once
                for p in self.network.projections.values()
                if self.assumptions is not None and self.network.decays(p, self.assumptions)
            ]
            decaying = {w for pair in pairs for w in pair}
            self.learning = {w: (kind, int(w in decaying)) for w, kind in found.items() if w.requires_grad}
            return
        for p in self.network.projections.values():
            for _, w, is_decaying in learning_slots(self.network, self.assumptions or PRESETS["ar"], p):
                if w in self.learning and self.assumptions and self.options.updates.clip is not None:
                    raise ActrelaxError(
                        "--update-clip needs a single process if projections share weights: leave it out."
                    )
                kind, decays = self.learning.get(w, (self.network.kind(p), 0))
                self.learning[w] = kind, decays + is_decaying

    def __call__(self, network: Network, x: Tensor, y: Tensor) -> SharedBackward:
        """Learn from this process's share; `.grad` must be cleared."""
        samples, updates = self.size(), self.options.updates
        if self.agrees and samples < self.processes.count:
            self._settle_along(network, x, y)
        like = next(iter(self.learning))
        output, here = x.new_zeros(0, *network.populations[network.output].shape), like.new_zeros(4)
        if len(x):
            result = self.rule(network, x, y)
            output, correct = result.output, is_right(result.output, y).sum()
            count = unsettled_in(result)
            unsettled = torch.zeros_like(correct) if count is None else count
            here = torch.stack([x.to(like) for x in (result.loss, ~result.finite, correct, unsettled)])
        gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in self.learning]
        if is_module(network):  # running statistics are those of the first one's share
            self.processes.agree_on(list(network.buffers()))
        *gradients, (loss, lost, correct, unsettled) = self.processes.total([*gradients, here])
        for (w, (kind, decays)), gradient in zip(self.learning.items(), gradients, strict=True):
            w.grad = updates.clipped_(gradient * self.options.scale(kind, samples))
            if updates.decay and decays:
                w.grad += updates.decay * decays * w.detach()
        return SharedBackward(
            self.options.reduced(loss, samples),
            output,
            lost == 0,
            samples,
            correct=correct.to(torch.int64),
            unsettled=unsettled.to(torch.int64) if network.is_recurrent else None,
        )

    def _settle_along(self, network: Network, x: Tensor, y: Tensor) -> None:
        """Without samples, learn from a copy of another process's, which changes no maximum; discard the gradients."""
        firsts = self.processes.gathered((x[:1].cpu(), y[:1].cpu()))
        if len(x) == 0:
            first, label = next(pair for pair in firsts if len(pair[0]))
            self.rule(network, first.to(x), label.to(y))
            network.zero_grad()
