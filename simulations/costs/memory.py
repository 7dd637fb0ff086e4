"""How much memory a step of training takes beyond what stays: in a process of its own, which knows of nothing else.

Counted is every tensor that PyTorch's allocator hands out and takes back during one step, the new gradients and the
batch included; weights and images were there before. What a library allocates by itself (oneDNN's scratchpads) is not
seen on the CPU; on a GPU it comes from the same allocator.
"""

from __future__ import annotations

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


def unmeasurable(execution: Execution) -> str | None:
    """Return None, or one sentence on why memory can't be measured here."""
    if execution.device == "mps":
        return "peak memory is left out: PyTorch does not count it on mps."
    return None


def peak_in_own_process(
    method: Method, base: Experiment, execution: Execution, shape: tuple[int, ...], classes: int
) -> int:
    """Return what `peak` does, for random images of this shape, in a process of its own.

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
    """Return the most bytes that a step has beyond what was there before it, the last step's gradients aside."""
    hardware = execution.hardware(base.precision)
    data = on_device(random_images(shape, classes, 2 * base.batch_size), hardware)
    stepper = Stepper(method.training(base, execution, data))
    for _ in range(2):  # rules are traced in the first
        stepper.step()
    stepper.training.optimiser.zero_grad()  # as the step does, which would free what was not seen to be allocated
    stepper.wait()
    if stepper.device.type == "cuda":
        return _peak_on_gpu(stepper.step, stepper.device)
    return _peak_on_cpu(stepper.step)


def _peak_on_gpu(step: Callable[[], None], device: torch.device) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    return torch.cuda.max_memory_allocated(device) - before


def _peak_on_cpu(step: Callable[[], None]) -> int:
    """Add up what the allocator reports: each piece of memory that it hands out, and takes back."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    reports = [(event["ts"], event["args"]) for event in events if event["name"] == "[memory]"]
    held: dict[int, int] = {}
    total = most = 0
    for _, report in sorted(reports, key=lambda report: report[0]):
        if report["Bytes"] > 0:
            held[report["Addr"]] = report["Bytes"]
            total += report["Bytes"]
            most = max(most, total)
        else:  # what was there before may go, and then is not among them
            total -= held.pop(report["Addr"], 0)
    return most


if __name__ == "__main__":
    given = json.load(sys.stdin)
    print(peak(Method(**given["method"]), *from_config(given["config"]), tuple(given["shape"]), int(given["classes"])))
