"""Mazes: which pixels can be reached from a seed along passages that no local filter sees at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.data.connected import APART, EMPTY, Connected
from actrelax.simulations.data.rng import random_stream


def mazes(count: int, cells: int, seed: int, cuts: int = 2) -> Connected:
    """Draw mazes of `cells` x `cells` cells with walls between them.

    A random depth-first walk connects all cells by a tree of winding passages, `cuts` of which are closed, and the seed
    is in a random cell. Passages are drawn; walls are not judged.

    Parameters
    ----------
    count : int
        Number of mazes.
    cells : int
        Number of cells per side; a side has 2 cells - 1 pixels, walls between cells included.
    seed : int
        Seed of the mazes.
    cuts : int, default 2
        Number of passages to close, which divide the maze into cuts + 1 parts.

    Raises
    ------
    ActrelaxError
        If the maze has fewer passages than `cuts`.

    Examples
    --------
    >>> images, distance = mazes(1, 3, seed=0)
    >>> distance[0]
    tensor([[ 8,  7,  6, -2, -1],
            [ 9, -2,  5, -2, -2],
            [10, -2,  4,  3,  2],
            [11, -2, -2, -2,  1],
            [12, -2, -1, -2,  0]])
    """
    if not 0 <= cuts < cells**2:
        raise ActrelaxError(f"mazes of {cells} x {cells} cells have {cells**2 - 1} passages, got cuts={cuts}.")
    generator = random_stream(seed, "mazes", cells)
    side = 2 * cells - 1
    images = torch.zeros(count, 2, side, side)
    for passages, origin in images:
        passages[::2, ::2] = 1
        doors = _tree(cells, generator)
        for _ in range(cuts):
            doors.pop(_draw(len(doors), generator))
        for row, column in doors:
            passages[row, column] = 1
        origin[2 * _draw(cells, generator), 2 * _draw(cells, generator)] = 1
    return Connected(images, _distance(images[:, 0] > 0, images[:, 1] > 0))


def _tree(cells: int, generator: torch.Generator) -> list[tuple[int, int]]:
    """Return the pixels between cells through which a depth-first walk passes."""
    stack = [(_draw(cells, generator), _draw(cells, generator))]
    seen, doors = set(stack), []
    while stack:
        i, j = stack[-1]
        beside = [(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)]
        free = [cell for cell in beside if min(cell) >= 0 and max(cell) < cells and cell not in seen]
        if not free:
            stack.pop()
            continue
        chosen = free[_draw(len(free), generator)]
        doors.append((i + chosen[0], j + chosen[1]))
        seen.add(chosen)
        stack.append(chosen)
    return doors


def _draw(below: int, generator: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=generator))


def _distance(passages: Tensor, reached: Tensor) -> Tensor:
    """Return the distance from the first pixels `reached`, by breadth-first search along passages."""
    distance = torch.where(passages, APART, EMPTY)
    step = 0
    new = reached
    while bool(new.any()):
        distance[new] = step
        reached = reached | new
        x = reached[:, None].float()
        beside = torch.maximum(
            max_pool2d(x, (3, 1), stride=1, padding=(1, 0)), max_pool2d(x, (1, 3), stride=1, padding=(0, 1))
        )
        new = (beside[:, 0] > 0) & passages & ~reached
        step += 1
    return distance
