"""Training by several processes, with torch.distributed.

torchrun starts the processes. Each has the whole network and the whole data set, and learns from its share of every
batch (`parallel`). All apply the same sums of gradients; only the first process writes files and prints.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.signals import AbandonedError

LAUNCHER = os.getppid()
"""Process that started this one, which is watched."""

NCCL_TIMEOUT = timedelta(seconds=20)
"""Time limit of sums on GPUs, where a killed process is not noticed by a closed connection."""

GRACE = 20.0
"""Seconds for a process to stop after the launcher was killed."""

LAST_WORDS = timedelta(seconds=10)
"""Time for which a failing process waits for the others to fail, too."""


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Convert errors of torch.distributed inside the `with` block into an `AbandonedError`."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise AbandonedError(
            "another process of this run has ended: continue from the last checkpoint with --resume."
        ) from error


@dataclass(frozen=True)
class Processes:
    """Group of processes that train one network, seen from one of them.

    rank    rank of this process, from 0
    count   number of processes
    sums    process group for sums of tensors; None for the default group, which does everything else, on the CPU
    ends    process group with a short timeout, in which failing processes wait for each other

    Methods that communicate raise an `AbandonedError` if another process has ended.
    """

    rank: int = 0
    count: int = 1
    sums: dist.ProcessGroup | None = None
    ends: dist.ProcessGroup | None = None

    def share(self, size: int) -> slice:
        """Return this rank's contiguous slice of `size` items; slices differ by at most one item."""
        return slice(self.rank * size // self.count, (self.rank + 1) * size // self.count)

    @property
    def is_first(self) -> bool:
        """True for the process that writes files and prints."""
        return self.rank == 0

    @property
    def threads(self) -> int | None:
        """Number of threads: this process's share of the machine's cores; None for a single process."""
        return None if self.count == 1 else max(1, _cores() // int(os.environ["LOCAL_WORLD_SIZE"]))

    def on(self, device: str) -> Processes:
        """Return the group for tensors on a device; with "cuda" each process gets a separate GPU.

        Raises
        ------
        ActrelaxError
            If several processes can't share the device, or there are fewer GPUs than processes.
        """
        chosen = torch.device(device)
        if self.count == 1 or chosen.type == "cpu":
            return self
        if chosen.type != "cuda" or ":" in device:
            raise ActrelaxError(
                f"several processes can't share {device!r}: use --device cuda, which gives each a GPU, or cpu."
            )
        here, there = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if here > there:
            raise ActrelaxError(
                f"--device cuda needs one GPU per process, got {here} processes and {there} GPUs: start fewer."
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        return replace(self, sums=dist.new_group(backend="nccl", timeout=NCCL_TIMEOUT))

    def total(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the sums of tensors over all processes, by one message and without waiting for the device."""
        if self.count == 1:
            return tensors
        everything = torch.cat([x.flatten() for x in tensors])
        with together():
            dist.all_reduce(everything, group=self.sums)
        parts = everything.split([x.numel() for x in tensors])  # type: ignore[no-untyped-call]
        return [part.view(x.shape) for part, x in zip(parts, tensors, strict=True)]

    def largest(self, number: float) -> float:
        """Return the largest number over all processes."""
        if self.count == 1:
            return number
        found = torch.tensor(number, dtype=torch.float64)
        with together():
            dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return float(found)

    @property
    def agree(self) -> Callable[[Tensor], Tensor] | None:
        """Function that returns the elementwise maximum over all processes; None for a single process."""
        return None if self.count == 1 else self._largest_each

    def _largest_each(self, numbers: Tensor) -> Tensor:
        found = numbers.double()
        with together():
            dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self.sums)
        return found.to(numbers)

    def gathered(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank."""
        found = [value] * self.count
        if self.count > 1:
            with together():
                dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Wait for all processes, for at most half an hour."""
        if self.count > 1:
            with together():
                dist.barrier()

    @contextlib.contextmanager
    def first_one_first(self) -> Iterator[None]:
        """Run the `with` block in the first process before the others, which may read files that it writes."""
        if not self.is_first:
            self.wait()
        try:
            yield
        finally:
            if self.is_first:
                self.wait()

    @torch.no_grad()
    def agree_on(self, tensors: Sequence[Tensor]) -> None:
        """Copy the first process's tensors to all processes."""
        if self.count > 1:
            for tensor, value in zip(tensors, self.gathered([x.cpu() for x in tensors])[0], strict=True):
                tensor.copy_(value)


ALONE = Processes()
"""Group of a single process, without torchrun."""


@functools.cache
def current() -> Processes:
    """Return the group of processes that torchrun has started; the first call waits for all of them."""
    if not dist.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        return ALONE
    with together():
        # a long timeout for slow processes: one that ends closes its connections, which the others notice at once
        dist.init_process_group("gloo", timeout=timedelta(minutes=30))
        ends = dist.new_group(timeout=LAST_WORDS)  # monitored_barrier applies its timeout in the first process only
    threading.Thread(target=_end_with_the_launcher, args=(LAUNCHER,), daemon=True).start()
    atexit.register(dist.destroy_process_group)  # its threads may abort an interpreter at exit
    return Processes(dist.get_rank(), dist.get_world_size(), ends=ends)


def _end_with_the_launcher(launcher: int) -> None:
    """Stop this process like SIGTERM when its parent, torchrun, has ended or was killed."""
    while os.getppid() == launcher:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)  # the processes stop after the same batch, with a checkpoint
    time.sleep(GRACE)
    os._exit(128 + signal.SIGTERM)  # still in a long batch, or waiting for a lost process


def joined(program: Callable[[], int]) -> int:
    """Run a program in all processes at once, and return its exit status.

    Only the first process prints. torchrun ends all processes once one has failed, so a failing process waits for the
    others to fail, too; if they continue, it prints its own output. `program` may raise `SystemExit`.
    """
    processes, said = current(), io.StringIO()
    with contextlib.ExitStack() as silence:
        if not processes.is_first:
            silence.enter_context(contextlib.redirect_stdout(said))
            silence.enter_context(contextlib.redirect_stderr(said))
        try:
            status = program()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    if status and processes.count > 1:
        try:
            dist.barrier(processes.ends)
        except RuntimeError:
            sys.stderr.write(said.getvalue())
    return status


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
