"""Train with DistributedDataParallel for a few batches, and compare the gradients with those of one process."""

from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from actrelax import ActivationRelaxation, Network, Steps, relax_backward
from actrelax.models.network import Design, build_module
from actrelax.models.results import relative_error

STEPS = Steps(12, eta=0.2)


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, 15), nn.ReLU(), nn.Linear(15, 10)).double()


def resnet() -> nn.Module:
    torch.set_default_dtype(torch.float64)
    return build_module("digits-resnet-8", design=Design(width=4, norm="group"), generator=0)


def main() -> None:
    dist.init_process_group("gloo")
    chain = ActivationRelaxation(layers(), input_shape=(64,), steps=STEPS)
    alone = Network.from_sequential(layers(), (64,))
    compare("chain", chain, partial(relax_backward, alone, steps=STEPS), alone, (64,))
    example = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    captured = ActivationRelaxation(resnet(), example=example)
    alone = Network.from_module(resnet(), example)
    compare("captured", captured, partial(relax_backward, alone, integrator="equilibrium"), alone, (1, 8, 8))
    dist.destroy_process_group()


def compare(
    name: str, model: ActivationRelaxation, learn: Callable[..., object], alone: Network, shape: tuple[int, ...]
) -> None:
    """Print the largest difference between the gradients of both processes together and of one alone."""
    rank, count = dist.get_rank(), dist.get_world_size()
    parallel = nn.parallel.DistributedDataParallel(model)
    optimisers = [torch.optim.SGD(each.parameters(), lr=0.5) for each in (model, alone)]
    generator = torch.Generator().manual_seed(1)
    for size in (8, 13, 1):  # even, uneven, and none for one of the two
        x = torch.randn(size, *shape, generator=generator, dtype=torch.float64)
        y = torch.randint(10, (size,), generator=generator)
        share = slice(rank * size // count, (rank + 1) * size // count)
        for optimiser in optimisers:
            optimiser.zero_grad()
        # DistributedDataParallel averages over the processes
        model.loss_scale = count * len(x[share]) / size or 1.0
        (F.cross_entropy(parallel(x[share]), y[share], reduction="sum") * count / size).backward()
        learn(x, y)
        pairs = zip(model.parameters(), alone.parameters(), strict=True)
        worst = max(relative_error(p.grad, q.grad) for p, q in pairs)
        if rank == 0:
            print(f"{name}-{size} {worst:.3g}")
        for optimiser in optimisers:
            optimiser.step()


if __name__ == "__main__":
    main()
