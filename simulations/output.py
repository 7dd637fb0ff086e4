"""Standard output and error, which a closed pipe, a full disk or a missing stream do not turn into a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

FAILED = 1


class Output:
    """A text stream whose first error is kept and not raised; what comes after it is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write text; what the encoding lacks is escaped."""
        try:
            self._try(self.stream.write, text)
        except UnicodeEncodeError as error:
            self._try(self.stream.write, text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        """Write what waits."""
        self._try(self.stream.flush)

    def _try(self, call: Callable[..., object], *arguments: object) -> None:
        if self.error is None:
            try:
                call(*arguments)
            except OSError as error:
                self.error = error

    def end(self) -> None:
        """Write what waits; where that is impossible, leave nothing to be written when Python ends."""
        self.flush()
        if self.error is not None:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            except OSError:  # a stream without a file
                return

    @property
    def lost(self) -> str:
        """Why output is missing, or empty: a reader that has enough, as of `| head`, misses nothing."""
        if self.error is None or self.error.errno == errno.EPIPE:
            return ""
        return self.error.strerror or str(self.error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def speaking(call: Callable[[], int]) -> int:
    """Call with such streams; returns its exit status, or 1 with a sentence if its output could not be written."""
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
    """Put the null device where a standard stream was closed, before another file gets its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
