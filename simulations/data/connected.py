"""Images with a marked place: which other places are connected to it?"""

from __future__ import annotations

from typing import NamedTuple

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
