"""The process of a part, watched from outside: what it prints, how long it takes, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpu_parts.items import DEVICE_LOST, result

GRACE = 20.0
"""Seconds that an item may take beyond the part's time."""

Result = dict[str, Any]


def results(command: Sequence[str], seconds: float, log: Path) -> Iterator[Result]:
    """Run a part in a process of its own, and yield a result per item, also of those that were left out.

    A process that dies, or takes too long, takes one item with it: another one goes on behind that.

    Parameters
    ----------
    command : sequence of str
        Calls `items.run` on all items behind the first --skip, for --seconds, which are added to it.
    seconds : float
        No item begins after them; one that is at work then has `GRACE` seconds more.
    log : pathlib.Path
        File that the processes' standard error is added to.
    """
    until, done, plan, started = time.monotonic() + seconds, 0, ["the whole part"], False
    log.parent.mkdir(parents=True, exist_ok=True)
    while done < len(plan) and (time.monotonic() < until or not started):
        left = until - time.monotonic()
        own = [*command, "--skip", str(done), "--seconds", str(left)]
        with (
            log.open("a") as errors,
            subprocess.Popen(own, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            killer = threading.Timer(left + GRACE, process.kill)
            killer.start()
            assert process.stdout is not None
            for line in process.stdout:
                found = parsed(line)
                if "plan" in found:
                    plan, started = [*plan[:done], *found["plan"]], True
                elif found:
                    done += 1
                    yield found
            status = process.wait()
            killer.cancel()
        if status == 0:
            break
        if status != DEVICE_LOST:
            why = "took too long" if time.monotonic() > until + GRACE else f"ended with status {status}"
            yield result(plan[done], "failed", f"the process {why}; its messages are in {log.name}.")
            done += 1
    for name in plan[done:]:
        yield result(name, "left out", "no time was left.")


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
