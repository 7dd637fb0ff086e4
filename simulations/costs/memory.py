"""The memory that a training step takes beyond weights and images, measured in a separate process per method.

Counted is every tensor that PyTorch's allocator hands out and takes back during one step, the new gradients and the
batch included. What a library allocates by itself (oneDNN's scratchpads) is not seen on the CPU; on a GPU it comes from
the same allocator.
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
    """Return `peak` of random images of this shape, from a separate process.

    Raises
    ------
    ActrelaxError
        If that process fails, as one does that needs more memory than there is.
    """
    asked = {"method": asdict(method), "config": as_config(base, execution), "shape": shape, "classes": classes}
    command = [sys.executable, "-m", "actrelax.simulations.costs.memory"]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ActrelaxError(f"the peak memory of {method.name} could not be measured: {last}")
    return int(done.stdout)


def peak(method: Method, base: Experiment, execution: Execution, shape: tuple[int, ...], classes: int) -> int:
    """Return the most bytes that a step holds beyond those before it, the last step's gradients aside."""
    hardware = execution.hardware(base.precision)
    data = on_device(random_images(shape, classes, 2 * base.batch_size), hardware)
    stepper = Stepper(method.training(base, execution, data))
    for _ in range(2):  # rules are traced in the first
        stepper.step()
    stepper.training.optimiser.zero_grad()  # as the step does, which would free what was not seen to be allocated
    device = torch.device(hardware.device)
    if device.type != "cuda":
        return _peak_on_cpu(stepper.step)
    return step_peak(stepper, device)


def step_peak(stepper: Stepper, device: torch.device) -> int:
    """Return the most bytes that a step on an NVIDIA GPU holds beyond those before it."""
    gc.collect()  # what is freed during the step would lower its peak
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    stepper.step()
    return torch.cuda.max_memory_allocated(device) - before


def _peak_on_cpu(step: Callable[[], None]) -> int:
    """Add up the allocator's reports: each piece of memory that it hands out, and takes back."""
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
        # what was there before may go, and then is not among them
        total += size if size > 0 else -held.pop(address, 0)
        most = max(most, total)
    return most


if __name__ == "__main__":
    given = json.load(sys.stdin)
    print(peak(Method(**given["method"]), *from_config(given["config"]), tuple(given["shape"]), int(given["classes"])))
