"""Scenes as JSON for a browser: activities as 16-bit codes, arrays in base64, units arranged as images."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actrelax.analysis.view.scene import Floats, Scene, Shown

HALF = 32_767
"""Code of zero; codes run from 0 to twice this number."""
WIDEST = 256
"""Largest number of units in one row of a strip."""


def packed(scene: Scene) -> dict[str, Any]:
    """Return a scene as an object for viewer.js."""
    return {
        "title": scene.title,
        "trajectory": scene.trajectory,
        "times": list(scene.times),
        "unit": scene.unit,
        "points": list(scene.points),
        "stimuli": [_picture(x) for x in scene.stimuli],
        "labels": None if scene.labels is None else list(scene.labels),
        "arrived": scene.arrived,
        "no_law": scene.no_law,
        "rounding": max((rounding(shown) for shown in scene.populations.values()), default=0.0),
        "populations": [_population(name, shown) for name, shown in scene.populations.items()],
    }


def scales(shown: Shown) -> tuple[Floats, Floats]:
    """Return, for each sample, the largest gradient, and the largest activity or gradient; 1 for silent populations.

    A population without a gradient is scaled by its largest activity.
    """
    gradient = np.abs(shown.gradient).max(1)
    most = np.maximum(gradient, np.abs(shown.activities).max((1, 2)))
    most = np.where(most > 0, most, 1.0)
    return np.where(gradient > 0, gradient, most), most


def codes(values: Floats, scale: ArrayLike, most: ArrayLike) -> NDArray[np.uint16]:
    """Encode values by asinh(value / scale), which is linear up to the scale and logarithmic beyond."""
    scale, most = np.asarray(scale), np.asarray(most)
    shares = np.arcsinh(values / scale) / np.arcsinh(most / scale)
    found: NDArray[np.uint16] = (HALF + np.rint(HALF * shares)).astype("<u2")
    return found


def rounding(shown: Shown) -> float:
    """Return an upper bound on the error of a code, relative to the larger of the value and the largest gradient.

    d sinh(u) = cosh(u) du, and cosh(u) is at most sqrt(2) times the larger of 1 and |sinh(u)|.
    """
    scale, most = scales(shown)
    return float(np.arcsinh(most / scale).max() * math.sqrt(2) / (2 * HALF))


def arrangement(shape: Sequence[int]) -> NDArray[np.int32]:
    """Return the unit at each pixel of a population's image, -1 in gaps: maps in a grid, or units in a strip.

    Examples
    --------
    >>> arrangement((2, 1, 2))
    array([[ 0,  1],
           [-1, -1],
           [ 2,  3]], dtype=int32)
    """
    count = math.prod(shape)
    if len(shape) != 3:
        rows = math.ceil(count / WIDEST)
        columns = math.ceil(count / rows)
        places = np.full(rows * columns, -1, np.int32)
        places[:count] = np.arange(count)
        return places.reshape(rows, columns)
    maps, height, width = shape
    across = _across(maps, math.sqrt(2 * maps * height / width))
    down = math.ceil(maps / across)
    places = np.full((down * (height + 1) - 1, across * (width + 1) - 1), -1, np.int32)
    for each, units in enumerate(np.arange(count, dtype=np.int32).reshape(maps, height, width)):
        y, x = each // across * (height + 1), each % across * (width + 1)
        places[y : y + height, x : x + width] = units
    return places


def _across(maps: int, best: float) -> int:
    """Return the number of maps per row, close to `best`, with complete rows if possible."""
    whole = [count for count in range(1, maps + 1) if maps % count == 0 and best / 1.6 < count < best * 1.6]
    return min(whole, key=lambda count: abs(count - best)) if whole else min(maps, math.ceil(best))


def _population(name: str, shown: Shown) -> dict[str, Any]:
    scale, most = scales(shown)
    places = arrangement(shown.shape)
    return {
        "name": name,
        "shape": list(shown.shape),
        "hops": shown.hops,
        "units": math.prod(shown.shape),
        "rows": len(places),
        "columns": places.shape[1],
        "places": text(places.astype("<i4")),
        "sorted": len(shown.shape) != 3,
        "scale": scale.tolist(),
        "most": most.tolist(),
        "activities": text(codes(shown.activities, scale[:, None, None], most[:, None, None])),
        "gradient": text(codes(shown.gradient, scale[:, None], most[:, None])),
        "errors": text(shown.errors.astype("<f4")),
        "arrived": text(shown.arrived.astype("<f4")),
        "predicted": None if shown.predicted is None else text(shown.predicted.astype("<f4")),
    }


def _picture(x: Floats) -> dict[str, Any]:
    """Return a stimulus as grey or colour bytes; features form a square if their number allows."""
    side = math.isqrt(x.size)
    if x.ndim == 3:
        image = x.transpose(1, 2, 0)
        image = image[..., :3] if len(x) >= 3 else image[..., :1]
    else:
        image = x.reshape((side, side, 1) if side * side == x.size else (1, -1, 1))
    low, high = float(x.min()), float(x.max())
    grey = np.rint(255 * (image - low) / ((high - low) or 1)).astype(np.uint8)
    rows, columns, channels = grey.shape
    return {"rows": rows, "columns": columns, "channels": channels, "bytes": text(grey), "low": low, "high": high}


def text(array: NDArray[np.generic]) -> str:
    """Return the bytes of an array in base64."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
