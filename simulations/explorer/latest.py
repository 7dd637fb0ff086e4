"""Computing in the background, for controls that move faster than results come: only the latest request counts."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Generic, TypeVar

from actrelax.models.errors import ActrelaxError, lacks_memory

Request = TypeVar("Request")
Result = TypeVar("Result")


class Latest(Generic[Request, Result]):
    """A thread that computes one request at a time; of those that wait under one key, the latest replaces the others.

    compute  request -> result
    deliver  (key, request, result or the error that refused it), called in the thread
    """

    def __init__(
        self, compute: Callable[[Request], Result], deliver: Callable[[str, Request, Result | ActrelaxError], None]
    ) -> None:
        self._compute, self._deliver = compute, deliver
        self._waiting: dict[str, Request] = {}
        self._changed = threading.Condition()
        self._ended = False
        # no daemon: torch does not survive that Python ends while it computes
        threading.Thread(target=self._work).start()

    def ask(self, key: str, request: Request) -> None:
        """Compute a request next, in place of one that waits under the same key."""
        with self._changed:
            self._waiting[key] = request
            self._changed.notify()

    def end(self) -> None:
        """Take no further request; the thread ends after what it computes now."""
        with self._changed:
            self._ended = True
            self._waiting.clear()
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if self._ended:
                    return
                key = next(iter(self._waiting))
                request = self._waiting.pop(key)
            result: Result | ActrelaxError
            try:
                result = self._compute(request)
            except Exception as error:  # of any kind: the thread goes on, and the page says what happened
                result = as_sentence(error)
            self._deliver(key, request, result)


def as_sentence(error: Exception) -> ActrelaxError:
    """Return an error as a sentence for the page; print unexpected errors on standard error, too."""
    if isinstance(error, ActrelaxError):
        return error
    if lacks_memory(error):
        return ActrelaxError("not enough memory: choose a smaller network.")
    traceback.print_exception(error)
    return ActrelaxError(f"this failed unexpectedly, {type(error).__name__}: {error}")
