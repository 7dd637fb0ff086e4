"""Brian2 names of populations and projections."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """Return name -> a unique identifier of letters, digits and single underscores.

    Examples
    --------
    >>> identifiers(["hidden1", "hidden1->hidden2", "hidden1=>hidden2"])
    {'hidden1': 'hidden1', 'hidden1->hidden2': 'hidden1_to_hidden2', 'hidden1=>hidden2': 'hidden1_to_hidden2_2'}
    """
    words: dict[str, str] = {}
    for name in names:
        word = re.sub("[^0-9A-Za-z]+", "_", re.sub("[-=]>", "_to_", name)).strip("_")
        # Brian2 reads xi and xi_... as noise
        word = word if word[:1].isalpha() and not f"{word}_".startswith("xi_") else f"p_{word}"
        numbered = (word if count == 1 else f"{word}_{count}" for count in itertools.count(1))
        taken = set(words.values())
        words[name] = next(candidate for candidate in numbered if candidate not in taken)
    return words
