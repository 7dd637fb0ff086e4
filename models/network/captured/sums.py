"""Sums of the signals that arrive at several places, in place where nothing else holds a tensor."""

from __future__ import annotations

from torch import Tensor


class Sums:
    """Signals added up by the number of their place.

    signals  number -> sum so far; a place that nothing has reached is missing
    own      numbers whose tensor nothing else holds, so that it may change in place
    """

    def __init__(self) -> None:
        self.signals: dict[int, Tensor] = {}
        self.own: set[int] = set()

    def add(self, number: int, signal: Tensor, is_new: bool) -> None:
        """Add a signal; `is_new` says that nothing else holds its tensor."""
        before = self.signals.pop(number, None)
        if before is None:
            self.signals[number] = signal
        elif number in self.own and before.dtype == signal.dtype:
            self.signals[number] = before.add_(signal)
        elif is_new and before.dtype == signal.dtype:
            self.signals[number] = signal.add_(before)
        else:
            self.signals[number], is_new = before + signal, True
        if is_new:
            self.own.add(number)
