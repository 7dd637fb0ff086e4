"""The items of a part, run one by one in a process that may die: each result is printed at once, a line of JSON."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]

DEVICE_LOST = 3
"""Exit status of a process after an error of its device, which the last item has reported."""


class UnsuitableError(Exception):
    """An item that this machine or this call has nothing for; the text says why."""


@dataclass(frozen=True)
class Options:
    """What a session is asked for.

    device  on which to compute
    tiny    the smallest setting, which shows on a CPU that everything runs
    long    also what eight minutes have no room for
    data    CIFAR-10 as a .npz file, if there is one
    """

    device: str
    tiny: bool
    long: bool
    data: Path | None


@dataclass(frozen=True)
class Item:
    """A check, a measurement or a training, which returns rows of a table."""

    name: str
    run: Callable[[], Rows]


def run(items: Sequence[Item], seconds: float) -> None:
    """Run items until `seconds` are over, and print their names first: what has no result was left out.

    A failure is a result. After an error of the device itself the process ends, since nothing works in it any more.
    """
    until = time.monotonic() + seconds
    say({"plan": [item.name for item in items]})
    for item in items:
        if time.monotonic() > until:
            return
        start, error = time.perf_counter(), None
        try:
            found = result(item.name, "ok", rows=item.run())
        except UnsuitableError as reason:
            found = result(item.name, "left out", str(reason))
        except Exception as raised:  # whatever it is, the next item has its turn
            traceback.print_exc()
            error = raised
            found = result(item.name, "failed", in_a_line(error))
        say({**found, "seconds": round(time.perf_counter() - start, 1)})
        if error is not None and any(name in str(error) for name in ("CUDA error", "CUBLAS_STATUS", "cuDNN error")):
            sys.exit(DEVICE_LOST)


def in_a_line(error: Exception) -> str:
    """Return the first and the last line of an error's message."""
    lines = [line.strip() for line in f"{type(error).__name__}: {error}".splitlines() if line.strip()]
    return " ... ".join(dict.fromkeys((lines[0], lines[-1])))


def result(item: str, status: str, message: str = "", rows: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return the result of an item: ok, failed or left out, and why."""
    return {"item": item, "status": status, "message": message, "rows": list(rows), "seconds": 0.0}


def say(line: dict[str, Any]) -> None:
    """Print one line of JSON, now."""
    print(json.dumps(line), flush=True)
