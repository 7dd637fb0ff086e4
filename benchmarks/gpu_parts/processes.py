"""Supervision of the process of a part: output, time limits and exit status."""

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
    """Run a part in a separate process, and yield one result per item, including omitted items.

    If the process dies, or takes too long for an item, that item fails and a new process continues with the next.

    Parameters
    ----------
    command : sequence of str
        Command that calls `items.run`; --skip, the number of items to skip, and --seconds are appended.
    seconds : float
        Time limit of the part in seconds; unfinished items are left out.
    each : float
        Time limit of one item, in seconds.
    log : pathlib.Path
        File to which standard error of the processes is appended.
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
    """Start a process as leader of a process group, so that its children can be killed with it."""
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)


class Watch:
    """Watchdog that kills a process group if an item or the part exceeds its time limit."""

    def __init__(self, process: subprocess.Popen[str], each: float, until: float) -> None:
        self.killed = False
        self._process, self._each, self._until = process, each, until
        self._timer: threading.Timer | None = None

    def restart(self) -> None:
        """Restart the time limit for the next item."""
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
        with suppress(ProcessLookupError):  # even if the caller stops early
            os.killpg(self._process.pid, signal.SIGKILL)


def parsed(line: str) -> Result:
    """Parse a line of JSON from a part; print any other line to standard error and return {}."""
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        found = None
    if isinstance(found, dict):
        return found
    print(line, end="", file=sys.stderr)
    return {}
