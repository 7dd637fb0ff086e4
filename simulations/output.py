"""Standard output and error of a command: no traceback for a closed pipe or a full disk, and warnings as sentences."""

from __future__ import annotations

import errno
import os
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any, TextIO

FAILED = 1


class Output:
    """Text stream that stores its first error instead of raising it, and drops all later output."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write text, escaping characters that the encoding lacks."""
        try:
            self._try(self.stream.write, text)
        except UnicodeEncodeError as error:
            self._try(self.stream.write, text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        """Write buffered text."""
        self._try(self.stream.flush)

    def _try(self, call: Callable[..., object], *arguments: object) -> None:
        if self.error is None:
            try:
                call(*arguments)
            except OSError as error:
                self.error = error

    def end(self) -> None:
        """Write buffered text; if that fails, redirect the stream to the null device for Python's exit."""
        self.flush()
        if self.error is not None:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            except OSError:  # a stream without a file
                return

    @property
    def lost(self) -> str:
        """Reason of lost output, or ""; a closed pipe, as with `| head`, does not count."""
        if self.error is None or self.error.errno == errno.EPIPE:
            return ""
        return self.error.strerror or str(self.error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def speaking(call: Callable[[], int]) -> int:
    """Call with safe streams, and return the exit status, or 1 with a message if output was lost."""
    if isinstance(sys.stdout, Output):
        return call()
    _open_missing()
    streams = sys.stdout, sys.stderr
    out, err = Output(sys.stdout), Output(sys.stderr)
    sys.stdout, sys.stderr = out, err
    try:
        status = call()
    except SystemExit as end:
        out.end()
        if end.code or not out.lost:
            raise
        status = 0
    finally:
        out.end()
        err.end()
        sys.stdout, sys.stderr = streams
    return _failed(out, err) if out.lost and status == 0 else status


def _failed(out: Output, err: Output) -> int:
    print(f"actrelax: can't write to standard output: {out.lost}.", file=err)
    err.end()
    return FAILED


def _open_missing() -> None:
    """Open the null device for closed standard streams, before another file gets their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


_NUMBER = re.compile(r"(?<![\w.'\"])\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.]*\w)")
"""A number by itself, but not the 1 in hidden1, the 0 in 0.weight, or a name in quotes."""


def say_warnings(name: str) -> None:
    """From now on write a warning as one sentence after the command's name, and once if later ones differ in numbers.

    Without it, each batch of a training would repeat a warning that counts its samples.
    """
    said = set()

    def say(message: Warning | str, *_: object, **__: object) -> None:
        without_numbers = _NUMBER.sub("#", str(message))
        if without_numbers not in said:
            said.add(without_numbers)
            print(f"actrelax {name}: warning: {message}", file=sys.stderr)

    warnings.showwarning = say
