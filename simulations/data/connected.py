"""Images with a marked place: which other places are connected to it?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

EMPTY, APART = -2, -1
"""Values of `distance` for places that are not judged, and for places without a connection to the mark."""


class Connected(NamedTuple):
    """Images with a mark each, and the distances from it.

    images    (count, 2, height, width): 1 where something is drawn, and 1 at the mark; otherwise 0
    distance  (count, side, side), int64: steps along a connection from the mark; `APART` or `EMPTY`
    """

    images: Tensor
    distance: Tensor


def one_place_each(data: Connected, generator: torch.Generator) -> Connected:
    """Return the images with one place each that is judged: half of these places are connected to the mark.

    The mark itself is not asked for.

    Examples
    --------
    >>> distance = torch.tensor([[[0, 1, EMPTY], [APART, EMPTY, APART]]]).expand(1000, 2, 3)
    >>> asked = one_place_each(Connected(torch.zeros(1000, 2, 2, 3), distance), torch.Generator().manual_seed(0))
    >>> (asked.distance >= APART).sum((1, 2)).unique(), (asked.distance >= APART).sum(0)
    (tensor([1]), tensor([[  0, 492,   0],
            [259,   0, 249]]))
    """
    count = len(data.distance)
    connected = torch.rand(count, 1, 1, generator=generator) < 0.5
    allowed = torch.where(connected, data.distance > 0, data.distance == APART)
    scores = torch.rand(data.distance.shape, generator=generator) * allowed
    chosen = scores == scores.amax((1, 2), keepdim=True)
    return data._replace(distance=data.distance.where(chosen & allowed, EMPTY))
