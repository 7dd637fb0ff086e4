"""Processes that train one network together, by torch.distributed.

torchrun starts the processes; each has the whole network and the whole data set, and learns from its share of every
batch (`parallel`). All act alike on the sums over processes; only the first writes files and prints.
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
"""The process that started this one, if only to watch whether it still runs."""

NCCL_TIMEOUT = timedelta(seconds=20)
"""How long a sum on GPUs waits: a process that is killed there leaves no closed connection behind to tell it by."""

GRACE = 20.0
"""Seconds that a process has to stop after the launcher was killed."""

LAST_WORDS = timedelta(seconds=10)
"""How long a process that refuses waits for the others to refuse, too."""


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Convert errors of torch.distributed into an `AbandonedError`."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise AbandonedError(
            "another process of this run has ended: --resume goes on from its last checkpoint."
        ) from error


@dataclass(frozen=True)
class Processes:
    """The processes that train one network, seen from one of them.

    rank    of this one, from 0
    count   number of processes
    sums    the group that sums tensors; None for the default group, which does everything else, on the CPU
    ends    the group in which processes that fail wait for each other; its timeout is short

    Methods that communicate raise an `AbandonedError` if another process has ended.
    """

    rank: int = 0
    count: int = 1
    sums: dist.ProcessGroup | None = None
    ends: dist.ProcessGroup | None = None

    def share(self, size: int) -> slice:
        """Return this process's part of `size` items: contiguous, and equal to the others' up to one item."""
        return slice(self.rank * size // self.count, (self.rank + 1) * size // self.count)

    @property
    def is_first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    @property
    def threads(self) -> int | None:
        """This process's part of the machine's cores, instead of torchrun's one thread; None for a single process."""
        return None if self.count == 1 else max(1, _cores() // int(os.environ["LOCAL_WORLD_SIZE"]))

    def on(self, device: str) -> Processes:
        """Return the same for tensors on a device; on GPUs, each process gets its own.

        Raises
        ------
        ActrelaxError
            For a device that several processes can't share, or fewer GPUs than processes.
        """
        chosen = torch.device(device)
        if self.count == 1 or chosen.type == "cpu":
            return self
        if chosen.type != "cuda" or ":" in device:
            raise ActrelaxError(
                f"several processes can't share {device!r}: --device cuda gives each a GPU, or use cpu."
            )
        here, there = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if here > there:
            raise ActrelaxError(f"{here} processes need as many GPUs, and this machine has {there}: start fewer.")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        return replace(self, sums=dist.new_group(backend="nccl", timeout=NCCL_TIMEOUT))

    def total(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the tensors' sums over all processes: one message for all, and no look at the device."""
        if self.count == 1:
            return tensors
        everything = torch.cat([x.flatten() for x in tensors])
        with together():
            dist.all_reduce(everything, group=self.sums)
        parts = everything.split([x.numel() for x in tensors])  # type: ignore[no-untyped-call]
        return [part.view(x.shape) for part, x in zip(parts, tensors, strict=True)]

    def largest(self, number: float) -> float:
        """Return the largest of the processes' numbers."""
        if self.count == 1:
            return number
        found = torch.tensor(number, dtype=torch.float64)
        with together():
            dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return float(found)

    def gathered(self, value: Any) -> list[Any]:
        """Return what each process has, by rank."""
        found = [value] * self.count
        if self.count > 1:
            with together():
                dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Wait until all processes are here, half an hour at most."""
        if self.count > 1:
            with together():
                dist.barrier()

    @contextlib.contextmanager
    def first_one_first(self) -> Iterator[None]:
        """Let the first process go through the block before the others: it may write what they read."""
        if not self.is_first:
            self.wait()
        try:
            yield
        finally:
            if self.is_first:
                self.wait()

    @torch.no_grad()
    def agree_on(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the first one's values."""
        if self.count > 1:
            for tensor, value in zip(tensors, self.gathered([x.cpu() for x in tensors])[0], strict=True):
                tensor.copy_(value)


ALONE = Processes()
"""What training is without torchrun."""


@functools.cache
def current() -> Processes:
    """Return the processes that torchrun has started; the first call waits for all of them."""
    if not dist.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        return ALONE
    with together():
        # a process that ends closes its connections, and the others know at once: they may wait for a slow one
        dist.init_process_group("gloo", timeout=timedelta(minutes=30))
        ends = dist.new_group(timeout=LAST_WORDS)  # monitored_barrier would ignore a timeout except in the first
    threading.Thread(target=_end_with_the_launcher, args=(LAUNCHER,), daemon=True).start()
    atexit.register(dist.destroy_process_group)  # threads that still listen may abort an interpreter that ends
    return Processes(dist.get_rank(), dist.get_world_size(), ends=ends)


def _end_with_the_launcher(launcher: int) -> None:
    """Stop this process, as a signal does, when the process that started it is gone: torchrun, perhaps killed."""
    while os.getppid() == launcher:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)  # the processes stop after the same batch, with a checkpoint
    time.sleep(GRACE)
    os._exit(128 + signal.SIGTERM)  # in the middle of a batch that takes longer, or of a message to nobody


def joined(program: Callable[[], int]) -> int:
    """Run a program in this process and the others at once, and return its exit status.

    The first process speaks for all. As torchrun ends everything once one has failed, a process that fails waits for
    the others to fail, too; where they go on, it prints what it had to say. `program` may raise `SystemExit`.
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
