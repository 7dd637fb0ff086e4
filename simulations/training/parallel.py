"""The learning rule of a process that shares each batch with others, by DistributedDataParallel."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from actrelax.models.assumptions import Assumptions
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import Backward, BackwardOptions, is_finite
from actrelax.models.network import Network
from actrelax.models.problem import Loss
from actrelax.simulations.training.processes import Processes, together


class Backprop(nn.Module):
    """A network that accepts empty batches."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the output; an empty batch gives zero gradients."""
        output: Tensor = self.network(x) if len(x) else self.network(x.new_zeros(1, *x.shape[1:]))[:0]
        return output


@dataclass(eq=False)
class Shared:
    """A learning rule that takes a share of a batch and leaves the gradients of the whole batch in `.grad`.

    module       Backprop, or an ActivationRelaxation with reduction "sum", without factors, clip and decay
    network      network of the module; the rule accepts no other
    loss         loss function
    options      reduction, factors, clip and decay; applied after the processes have averaged their gradients
    assumptions  None for backprop
    processes    processes that share the batch; a share may be empty
    size         () -> number of samples in the whole batch
    mixed        whether to compute in bfloat16, by autocast

    Raises
    ------
    ActrelaxError
        For a clip if projections share weights: it bounds the update of each, but only their sum is known.
    AbandonedError
        If another process has ended.
    """

    module: nn.Module
    network: Network
    loss: Loss
    options: BackwardOptions
    assumptions: Assumptions | None
    processes: Processes
    size: Callable[[], int]
    mixed: bool = False

    def __post_init__(self) -> None:
        network, given = self.network, self.assumptions
        self.kinds: dict[nn.Parameter, str] = {}
        self.decays: dict[nn.Parameter, int] = {}
        for p in network.projections.values():
            if isinstance(p.feedback, nn.Parameter) and not (
                given and network.knobs(p, given).feedback in ("learned", "kolen-pollack")
            ):
                p.feedback.requires_grad_(False)  # DistributedDataParallel would wait for its gradient
            for w in (p.weight, p.bias, p.feedback):
                if isinstance(w, nn.Parameter) and w.requires_grad:
                    if w in self.kinds and given and self.options.updates.clip is not None:
                        raise ActrelaxError(
                            "--update-clip needs a single process if projections share weights: leave it out."
                        )
                    self.kinds.setdefault(w, network.kind(p))
                    decays = given is not None and w is not p.bias and network.decays(p, given)
                    self.decays[w] = self.decays.get(w, 0) + decays
        # harmless: the strides of a convolution with one channel are arbitrary
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        nothing = next(network.parameters()).new_zeros(0, *network.populations[network.input].shape)
        with together():
            self.parallel = DistributedDataParallel(self.module, process_group=self.processes.sums)
            self.parallel.broadcast_buffers = False  # they never change
            # the first backward pass fixes the order of the gradients, and so the rounding of sums, for all later ones;
            # an empty batch here makes a resumed run equal to an uninterrupted one
            self.parallel(nothing).sum().backward()
        network.zero_grad()

    def __call__(self, network: Network, x: Tensor, y: Tensor) -> Backward:
        """Learn from this share, with `.grad` cleared; only the output in the result is restricted to the share."""
        samples, updates = self.size(), self.options.updates
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.mixed):
            output = self.parallel(x)
        losses, top = self.loss.both(output.detach(), y)
        with together():
            output.backward(top)
        (loss,) = self.processes.total([losses.sum()])
        sums = [loss]
        for w, kind in self.kinds.items():
            assert w.grad is not None
            w.grad *= self.processes.count * self.options.scale(kind, samples)
            sums.append(w.grad.sum())
            updates.clipped_(w.grad)
            if updates.decay and self.decays[w]:
                w.grad += updates.decay * self.decays[w] * w.detach()
        finite = is_finite(torch.stack(sums).sum())
        return Backward(self.options.reduced(loss, samples), output.detach(), finite, samples)
