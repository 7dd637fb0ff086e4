"""Transforms of feedback weights: missing connections, quantised strengths, and one factor for all."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from actrelax.models.errors import ActrelaxError

Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sparse:
    """Sparse feedback: each connection exists with this probability.

    The connections depend on the seed and on the shape of the weights, not on their values. In a problem each
    projection has a different seed (`of_projection`).

    Examples
    --------
    >>> Sparse(0.5)(torch.ones(2, 3)).unique()
    tensor([0., 1.])
    """

    probability: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise ActrelaxError(
                f"the share of sparse feedback must be above 0 and at most 1, got {self.probability:g}."
            )

    def __call__(self, weight: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        kept = torch.rand(weight.shape, generator=generator, dtype=torch.float64) < self.probability
        return weight * kept.to(weight.device)

    def of_projection(self, name: str) -> Sparse:
        """Return the transform of one projection, with a seed derived from its name."""
        return Sparse(self.probability, zlib.crc32(f"{self.seed} {name}".encode()))  # torch reads 32 bits of a seed


@dataclass(frozen=True)
class Quantised:
    """Feedback weights rounded to evenly spaced levels between -m and m, with m the largest magnitude.

    Examples
    --------
    >>> Quantised(3)(torch.tensor([-1.0, -0.6, 0.3, 0.8]))
    tensor([-1., -1.,  0.,  1.])
    """

    levels: int

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise ActrelaxError(f"quantised feedback needs 2 levels or more, got {self.levels}.")

    def __call__(self, weight: Tensor) -> Tensor:
        largest = weight.abs().max()
        width = 2 * largest / (self.levels - 1)
        rounded = ((weight + largest) / width).round() * width - largest
        return torch.where(largest > 0, rounded, weight)  # all weights may be 0


@dataclass(frozen=True)
class Scaled:
    """Feedback weights times one factor, which weakens the feedback around cycles.

    Examples
    --------
    >>> Scaled(0.5)(torch.tensor([-1.0, 0.6]))
    tensor([-0.5000,  0.3000])
    """

    factor: float

    def __post_init__(self) -> None:
        if not 0 < self.factor < math.inf:
            raise ActrelaxError(f"the factor of scaled feedback must be positive, got {self.factor:g}.")

    def __call__(self, weight: Tensor) -> Tensor:
        return weight * self.factor


def apply_transform(transform: Transform, weight: Tensor, projection: str) -> Tensor:
    """Apply a transform to a projection's feedback weights; refuse a result of another shape or dtype."""
    own = transform.of_projection(projection) if isinstance(transform, Sparse) else transform
    result = own(weight.detach().clone())
    if not isinstance(result, Tensor) or (result.shape, result.dtype) != (weight.shape, weight.dtype):
        found = f"{tuple(result.shape)} {result.dtype}" if isinstance(result, Tensor) else type(result).__name__
        raise ActrelaxError(
            f"the feedback transform must return a tensor like the weights of {projection!r}, "
            f"{tuple(weight.shape)} {weight.dtype}, got {found}."
        )
    return result


class TransformedFeedback:
    """Transformed feedback weights of a problem, recomputed when a weight has changed."""

    def __init__(self, transform: Transform) -> None:
        self.transform = transform
        self._found: dict[str, tuple[tuple[int, ...], Tensor]] = {}

    def of(self, projection: str, psi: Tensor, reads: Iterable[Tensor | None]) -> Tensor:
        """Return the feedback weights psi of a projection, which depend on the tensors `reads`, transformed."""
        # every in-place change, such as an optimiser's, raises a tensor's version
        versions = tuple(w._version for w in reads if w is not None)
        found = self._found.get(projection)
        if found is None or found[0] != versions:
            found = versions, apply_transform(self.transform, psi, projection)
            self._found[projection] = found
        return found[1]


def transform_named(given: str | Transform | None, seed: int = 0) -> Transform | None:
    """Return a transform by name, such as ``sparse-0.5``; a function of the weights passes through.

    Parameters
    ----------
    given : str or callable, optional
        ``sparse-SHARE``, ``quantised-LEVELS``, ``scaled-FACTOR``, or a function.
    seed : int, default 0
        Seed of the missing connections.

    Raises
    ------
    ActrelaxError
        For an unknown name, or a value that is neither a name nor a function.
    """
    if given is not None and not isinstance(given, str) and not callable(given):
        raise ActrelaxError(f"a feedback transform must be a name or a function of weights, got {given!r}.")
    if not isinstance(given, str):
        return given
    if match := re.fullmatch(r"sparse-(\d*\.?\d+)", given):
        return Sparse(float(match[1]), seed)
    if match := re.fullmatch(r"quantised-(\d+)", given):
        return Quantised(int(match[1]))
    if match := re.fullmatch(r"scaled-(\d*\.?\d+)", given):
        return Scaled(float(match[1]))
    raise ActrelaxError(
        f"unknown feedback transform {given!r}; known: sparse-SHARE (sparse-0.5), quantised-LEVELS, scaled-FACTOR."
    )
