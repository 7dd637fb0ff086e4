"""Items of a part, run one by one in a process; each result is printed at once as a line of JSON."""

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
"""Exit status of a process after an error of its device."""


class UnsuitableError(Exception):
    """Raised by an item that this machine or these options don't support; the text is the reason."""


@dataclass(frozen=True)
class Options:
    """Options of a session.

    device  device of all computations
    tiny    use the smallest networks, to test the program on a CPU
    long    include items that do not fit into eight minutes
    data    CIFAR-10 as a .npz file, or None
    """

    device: str
    tiny: bool
    long: bool
    data: Path | None


@dataclass(frozen=True)
class Item:
    """Check, measurement or training, which returns rows of a table."""

    name: str
    run: Callable[[], Rows]


def run(items: Sequence[Item], seconds: float) -> None:
    """Print the names of all items, then run them for at most `seconds`; items without a result were left out.

    A failure is a result. The process exits after an error of the device, which makes the process unusable.
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
        except Exception as raised:  # continue with the next item
            traceback.print_exc()
            error = raised
            found = result(item.name, "failed", in_a_line(error))
        say({**found, "seconds": round(time.perf_counter() - start, 1)})
        if error is not None and any(name in str(error) for name in ("CUDA error", "CUBLAS_STATUS", "cuDNN error")):
            sys.exit(DEVICE_LOST)


def in_a_line(error: Exception) -> str:
    """Return the first and the last line of an error's message, as one line."""
    lines = [line.strip() for line in f"{type(error).__name__}: {error}".splitlines() if line.strip()]
    return " ... ".join(dict.fromkeys((lines[0], lines[-1])))


def result(item: str, status: str, message: str = "", rows: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return the result of an item; `status` is "ok", "failed" or "left out", `message` the reason."""
    return {"item": item, "status": status, "message": message, "rows": list(rows), "seconds": 0.0}


def say(line: dict[str, Any]) -> None:
    """Print a line of JSON, and flush it."""
    print(json.dumps(line), flush=True)
