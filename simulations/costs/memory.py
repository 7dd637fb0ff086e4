"""Peak memory of a training step beyond weights and images, measured in a separate process per method.

Every allocation by PyTorch's allocator during one step counts, including new gradients and the batch. Memory that a
library allocates by itself (such as oneDNN's scratchpads) is missing on the CPU; on a GPU it comes from the same
allocator.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.costs.images import random_images
from actrelax.simulations.costs.methods import Method
from actrelax.simulations.costs.timing import Stepper
from actrelax.simulations.training.assemble import on_device
from actrelax.simulations.training.configuration import as_config, from_config
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment


def peak_in_own_process(
    method: Method, base: Experiment, execution: Execution, shape: tuple[int, ...], classes: int
) -> int:
    """Return `peak` for random images of the given shape, measured in a separate process.

    Raises
    ------
    ActrelaxError
        If the process fails, for example for lack of memory.
    """
    asked = {"method": asdict(method), "config": as_config(base, execution), "shape": shape, "classes": classes}
    command = [sys.executable, "-m", "actrelax.simulations.costs.memory"]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ActrelaxError(f"the peak memory of {method.name} could not be measured: {last}")
    return int(done.stdout)


def peak(method: Method, base: Experiment, execution: Execution, shape: tuple[int, ...], classes: int) -> int:
    """Return the peak memory of a training step, in bytes above the memory before it."""
    hardware = execution.hardware(base.precision)
    data = on_device(random_images(shape, classes, 2 * base.batch_size), hardware)
    stepper = Stepper(method.training(base, execution, data))
    for _ in range(2):  # the first step traces the rule
        stepper.step()
    stepper.training.optimiser.zero_grad()  # else the step would free gradients that the profiler did not see allocated
    device = torch.device(hardware.device)
    if device.type != "cuda":
        return peak_on_cpu(stepper.step)
    return step_peak(stepper, device)


def step_peak(stepper: Stepper, device: torch.device) -> int:
    """Return the peak memory of a training step on an NVIDIA GPU, in bytes above the memory before it."""
    gc.collect()  # garbage freed during the step would lower the peak
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    stepper.step()
    return torch.cuda.max_memory_allocated(device) - before


def peak_on_cpu(step: Callable[[], None]) -> int:
    """Return the peak of the memory allocated and freed during a step, from the profiler's events."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    reports = [event for event in events if event["name"] == "[memory]"]
    held: dict[int, int] = {}
    total = most = 0
    for report in sorted(reports, key=lambda report: report["ts"]):
        address, size = report["args"]["Addr"], report["args"]["Bytes"]
        if size > 0:
            held[address] = size
        # memory allocated before the step may be freed, and is then not in `held`
        total += size if size > 0 else -held.pop(address, 0)
        most = max(most, total)
    return most


if __name__ == "__main__":
    given = json.load(sys.stdin)
    print(peak(Method(**given["method"]), *from_config(given["config"]), tuple(given["shape"]), int(given["classes"])))
