"""The process of a part, watched from outside: what it prints, how long it takes, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from gpu_parts.items import DEVICE_LOST, result

Result = dict[str, Any]


def results(command: Sequence[str], seconds: float, each: float, log: Path) -> Iterator[Result]:
    """Run a part in a process of its own, and yield a result per item, also of those that were left out.

    A process that dies, or is at an item for too long, takes that one with it: another goes on behind it.

    Parameters
    ----------
    command : sequence of str
        Calls `items.run` on all items behind the first --skip, for --seconds, which are added to it.
    seconds : float
        After them the part ends; the item that is at work is left out with those that follow.
    each : float
        Seconds for one item.
    log : pathlib.Path
        File that the processes' standard error is added to.
    """
    until, done, plan, stopped = time.monotonic() + seconds, 0, ["the whole part"], False
    log.parent.mkdir(parents=True, exist_ok=True)
    while done < len(plan) and not stopped:
        left = until - time.monotonic()
        own = [*command, "--skip", str(done), "--seconds", str(left)]
        with log.open("a") as errors, _process(own, errors) as process, Watch(process, each, until) as watch:
            assert process.stdout is not None
            for line in process.stdout:
                found = parsed(line)
                watch.restart()
                if "plan" in found:
                    plan = [*plan[:done], *found["plan"]]
                elif found:
                    done += 1
                    yield found
            status = process.wait()
        stopped = status == 0 or time.monotonic() >= until
        if not stopped and status != DEVICE_LOST:
            why = f"took more than {each:g} seconds" if watch.killed else f"ended with status {status}"
            yield result(plan[done], "failed", f"the process {why}; its messages are in {log.name}.")
            done += 1
    for name in plan[done:]:
        yield result(name, "left out", "no time was left.")


def _process(command: Sequence[str], errors: IO[str]) -> subprocess.Popen[str]:
    """Start a process that leads a group, so that what it starts ends with it."""
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)


class Watch:
    """Kills a process group that prints nothing for too long, or at the end of the part."""

    def __init__(self, process: subprocess.Popen[str], each: float, until: float) -> None:
        self.killed = False
        self._process, self._each, self._until = process, each, until
        self._timer: threading.Timer | None = None

    def restart(self) -> None:
        """Give the next item its time."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(max(0.0, min(self._each, self._until - time.monotonic())), self._kill)
        self._timer.start()

    def _kill(self) -> None:
        self.killed = True
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def __enter__(self) -> Watch:
        self.restart()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._timer is not None
        self._timer.cancel()
        with suppress(ProcessLookupError):  # also when nobody wants further results
            os.killpg(self._process.pid, signal.SIGKILL)


def parsed(line: str) -> Result:
    """Return a line of JSON that a part printed; what else was printed is passed on."""
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        found = None
    if isinstance(found, dict):
        return found
    print(line, end="", file=sys.stderr)
    return {}
