"""Random numbers: one seed with a separate stream for each purpose."""

from __future__ import annotations

import numpy as np
import torch


def random_stream(seed: int, *purpose: int | str) -> torch.Generator:
    """Return an independent generator for each purpose, seeded by `seed` and the words in `purpose`.

    Examples
    --------
    >>> first, second = random_stream(0, "weights"), random_stream(0, "order", 1)
    >>> bool(torch.rand(1, generator=first) == torch.rand(1, generator=second))
    False
    """
    words = [part if isinstance(part, int) else int.from_bytes(part.encode(), "little") for part in purpose]
    state = np.random.SeedSequence([seed, *words]).generate_state(2)
    return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))
