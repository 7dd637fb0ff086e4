"""The rule of one of several processes that share each batch: DistributedDataParallel averages their gradients."""

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
    """A network that also takes no samples."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the output; of no samples, its gradients are zero."""
        output: Tensor = self.network(x) if len(x) else self.network(x.new_zeros(1, *x.shape[1:]))[:0]
        return output


class _WithLoss(nn.Module):
    """A module, and a parameter whose gradient is the loss, so that both are summed at once.

    A second sum would wait for the slower process a second time.
    """

    def __init__(self, module: nn.Module, like: Tensor) -> None:
        super().__init__()
        self.module = module
        self.loss = nn.Parameter(torch.zeros_like(like))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.module(x)
        return output


@dataclass(eq=False)
class Shared:
    """A learning rule that takes this process's share of a batch, and leaves the whole batch's gradients in `.grad`.

    module       Backprop, or an ActivationRelaxation with reduction "sum", without factors, clip and decay
    network      the module's; the rule takes no other
    loss         by which output and target are compared
    options      reduction, factors, clip and decay; applied to what the processes have averaged
    assumptions  None for backprop
    processes    that share the batch; a share may be empty
    size         () -> the number of samples of all of them
    mixed        whether to compute in bfloat16, by autocast

    Raises
    ------
    ActrelaxError
        For a clip of AR's updates where projections share weights: it clips each projection's, before they are added.
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
                            "--update-clip is for one process where projections share weights: leave it out."
                        )
                    self.kinds.setdefault(w, network.kind(p))
                    decays = given is not None and w is not p.bias and network.decays(p, given)
                    self.decays[w] = self.decays.get(w, 0) + decays
        # of a convolution of one channel: its strides mean nothing
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        nothing = next(network.parameters()).new_zeros(0, *network.populations[network.input].shape)
        with together():
            self.carrier = _WithLoss(self.module, nothing.new_empty(()))
            self.parallel = DistributedDataParallel(
                self.carrier, process_group=self.processes.sums, gradient_as_bucket_view=True
            )
            self.parallel.broadcast_buffers = False  # they never change
            # the first backward pass decides how gradients are packed later, and so the order of three processes' sum:
            # after one here, it is the same before and after --resume
            torch.autograd.backward([self.parallel(nothing).sum(), self.carrier.loss], [None, nothing.sum()])
        network.zero_grad()

    def __call__(self, network: Network, x: Tensor, y: Tensor) -> Backward:
        """Learn from a batch; gradients replace those before. Of what is returned, only the output is of the share."""
        samples, updates = self.size(), self.options.updates
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.mixed):
            output = self.parallel(x)
        losses, top = self.loss.both(output.detach(), y)
        carried, count = self.carrier.loss, self.processes.count
        self.carrier.zero_grad()
        with together():
            torch.autograd.backward([output, carried], [top, losses.sum().to(carried)])
        loss, *gradients = (w.grad for w in (carried, *self.kinds) if w.grad is not None)
        loss = loss * count
        torch._foreach_mul_(gradients, [count * self.options.scale(kind, samples) for kind in self.kinds.values()])
        finite = is_finite(torch.stack([loss, *torch._foreach_norm(gradients, 1)]).sum())
        for w, gradient in zip(self.kinds, gradients, strict=True):
            updates.clipped_(gradient)
            if updates.decay and self.decays[w]:
                gradient += updates.decay * self.decays[w] * w.detach()
        return Backward(self.options.reduced(loss, samples), output.detach(), finite, samples)
