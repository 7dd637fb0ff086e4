"""How many kernels a step of training launches: on a GPU, small networks take as long as their launches do.

    python benchmarks/launches.py [NETWORK ...]          # mlp and cnn unless given

Counted on the CPU: the operations that reach PyTorch's backend, in the whole step of `actrelax train`, from the stored
images to the moved weights, with SGD. A GPU launches a kernel for each, sometimes two, and none for a view or an empty
tensor. Three more, in every method, check the labels there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from actrelax.simulations.costs.images import random_images
from actrelax.simulations.costs.methods import Method
from actrelax.simulations.costs.timing import Stepper
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Model
from actrelax.simulations.training.usual_images import usual_shape

BATCH = 64
METHODS = (
    Method("backprop"),
    Method("autograd"),
    Method("equilibrium"),
    Method("closed-form", 100),
    Method("stepped", 10),
    Method("stepped", 100),
)
NO_KERNEL = {
    *("alias", "detach", "empty", "empty_like", "empty_strided", "lift_fresh", "new_empty", "_unsafe_view"),
    *("aminmax", "_local_scalar_dense"),  # labels are looked at on the CPU alone
    *("_record_function_enter_new", "_record_function_exit"),  # of the profiler
}


class Launches(TorchDispatchMode):
    """Counts the operations that take a kernel."""

    count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not operation.is_view and operation.overloadpacket.__name__ not in NO_KERNEL:
            self.count += 1
        return operation(*args, **(kwargs or {}))


def launches(method: Method, network: str) -> int:
    """Return the number of kernels of a step, after two that trace the rule and fill its caches."""
    base, execution = Experiment(batch_size=BATCH, model=Model(network)), Execution(threads=torch.get_num_threads())
    stepper = Stepper(method.training(base, execution, random_images(usual_shape(network), 10, 4 * BATCH)))
    for group in stepper.training.optimiser.param_groups:
        group["foreach"] = True  # all weights in one kernel, as PyTorch chooses by itself on a GPU
    stepper.step()
    stepper.step()
    with Launches() as counted:
        stepper.step()
    return counted.count


def main(networks: Sequence[str]) -> None:
    """Print a table."""
    print("| method | steps | " + " | ".join(f"`{network}`" for network in networks) + " |")
    print("| --- | --- |" + " --- |" * len(networks))
    for method in METHODS:
        counts = " | ".join(f"{launches(method, network):,}" for network in networks)
        print(f"| `{method.name}` | {method.steps or ''} | {counts} |")


if __name__ == "__main__":
    main(sys.argv[1:] or ["mlp", "cnn"])
