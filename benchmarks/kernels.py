"""Kernel times of a training step: backprop, AR's equilibrium and AR's closed form.

    python benchmarks/kernels.py [NETWORK]          # default: cnn

Prints milliseconds per step of the slowest kernels. The three rules take turns; batch 64, random images, fp32.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile

from actrelax.models.learning import BackwardOptions, Rule, backprop_backward, relax_backward
from actrelax.models.learning.trace import Traced
from actrelax.models.network import build

BATCH, STEPS, ROUNDS, LINES = 64, 5, 20, 10

UNCHECKED = BackwardOptions(check_finite=False)

RULES: dict[str, Rule] = {
    "backprop": backprop_backward,
    "equilibrium": Traced(partial(relax_backward, integrator="equilibrium", options=UNCHECKED)),
    "closed form": Traced(partial(relax_backward, steps=100, eta=0.1, options=UNCHECKED)),
}


def main(name: str) -> None:
    """Measure one network, and print a table."""
    shape = (784,) if name.startswith("mlp") else (3, 32, 32)
    generator = torch.Generator().manual_seed(0)
    network = build(name, input_shape=shape, generator=generator)
    x, y = torch.rand(BATCH, *shape, generator=generator), torch.randint(10, (BATCH,), generator=generator)
    spent: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(RULES, 0.0))
    for turn in range(-2, ROUNDS):  # the first two are warm-up
        for title, rule in RULES.items():
            with profile(activities=[ProfilerActivity.CPU]) as profiled:
                for _ in range(STEPS):
                    network.zero_grad()
                    rule(network, x, y)
            for event in profiled.key_averages() if turn >= 0 else ():
                spent[event.key][title] += event.self_cpu_time_total / 1000 / STEPS / ROUNDS
    largest = sorted(spent, key=lambda kernel: -max(spent[kernel].values()))[:LINES]
    rest = {title: sum(times[title] for kernel, times in spent.items() if kernel not in largest) for title in RULES}
    total = {title: sum(times[title] for times in spent.values()) for title in RULES}
    print(" " * 28 + "".join(f"{title:>14}" for title in RULES))
    for kernel, times in [*((k, spent[k]) for k in largest), ("the rest", rest), ("together", total)]:
        print(
            f"{kernel[:28]:28}" + "".join(f"{times[title]:{10 if title == 'backprop' else 14}.3f}" for title in RULES)
        )


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["cnn"])
