"""Number of kernel launches in a training step, which limits the speed of small networks on a GPU.

    python benchmarks/launches.py [NETWORK ...]          # default: mlp and cnn

The count is taken on the CPU: operations that reach PyTorch's backend in a complete step of `actrelax train` with SGD,
from the stored images to the updated weights. A GPU launches one kernel for each, sometimes two, and none for a view or
an empty tensor. On a GPU, every method needs three more to check the labels.
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
    *("aminmax", "_local_scalar_dense"),  # checks of the labels, on the CPU only
    *("_record_function_enter_new", "_record_function_exit"),  # from the profiler
}


class Launches(TorchDispatchMode):
    """Counter of the operations that launch a kernel."""

    count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not operation.is_view and operation.overloadpacket.__name__ not in NO_KERNEL:
            self.count += 1
        return operation(*args, **(kwargs or {}))


def launches(method: Method, network: str) -> int:
    """Return the number of kernels of the third step, after two that trace the rule and fill its caches."""
    base, execution = Experiment(batch_size=BATCH, model=Model(network)), Execution(threads=torch.get_num_threads())
    stepper = Stepper(method.training(base, execution, random_images(usual_shape(network), 10, 4 * BATCH)))
    for group in stepper.training.optimiser.param_groups:
        group["foreach"] = True  # one kernel for all weights, PyTorch's default on a GPU
    stepper.step()
    stepper.step()
    with Launches() as counted:
        stepper.step()
    return counted.count


def main(networks: Sequence[str]) -> None:
    """Count the kernels of all methods, and print a table."""
    print("| method | steps | " + " | ".join(f"`{network}`" for network in networks) + " |")
    print("| --- | --- |" + " --- |" * len(networks))
    for method in METHODS:
        counts = " | ".join(f"{launches(method, network):,}" for network in networks)
        print(f"| `{method.name}` | {method.steps or ''} | {counts} |")


if __name__ == "__main__":
    main(sys.argv[1:] or ["mlp", "cnn"])
