"""What goes wrong, in one sentence: what was given, and what would be right."""

from __future__ import annotations


class ActrelaxError(ValueError):
    """Input that can't be used. The message is one sentence."""
