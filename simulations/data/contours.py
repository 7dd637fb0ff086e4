"""Contours: chains of dashes that continue each other, hidden among dashes of random orientation."""

from __future__ import annotations

import random

import torch

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.data.connected import APART, EMPTY, Connected
from actrelax.simulations.data.rng import random_stream

PITCH = 4
"""Pixels from one dash to the next: a dash is drawn in a square of 3 x 3, with a row and a column between squares."""

STEPS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
"""Steps to the eight neighbours, 45 degrees apart; a dash of orientation o points to two of them, o and o + 4."""

TRIES = 500

Place = tuple[int, int]
Dashes = dict[Place, int]
"""Place -> orientation from 0 to 3, in steps of 45 degrees."""


def contours(count: int, cells: int, longest: int, seed: int, shortest: int = 3, density: float = 0.5) -> Connected:
    """Draw images with `cells` x `cells` places for dashes, in which two contours are hidden.

    A contour is a chain of neighbouring dashes, each of which points to the next, turned by at most 45 degrees. The
    mark is at one end of a contour, and the question is which dashes belong to it rather than to the other contour,
    which is as long. All other dashes are single: they continue none, and are not judged.

    Parameters
    ----------
    count : int
        Number of images.
    cells : int
        Places per side; a side has 4 cells - 1 pixels.
    longest : int
        Dashes of the longest contours; lengths are drawn from `shortest` to `longest`.
    seed : int
        Seed of the images.
    shortest : int, default 3
        Dashes of the shortest contours.
    density : float, default 0.5
        Probability of a single dash at a place where one fits.

    Raises
    ------
    ActrelaxError
        If the lengths are out of order, or too long for the image.

    Examples
    --------
    >>> images, distance = contours(1, 4, longest=4, seed=2, shortest=4)
    >>> distance[0]
    tensor([[-2, -1, -1, -2],
            [ 0, -2, -2, -1],
            [ 1, -2, -2, -1],
            [-2,  2,  3, -2]])
    >>> for row in images[0, 0, :11].int().tolist():
    ...     print("".join("-#"[pixel] for pixel in row))
    ---------------
    ----###-###----
    ---------------
    ---------------
    -#---#------#--
    -#---#-------#-
    -#---#--------#
    ---------------
    #--------#---#-
    -#-------#---#-
    --#------#---#-
    """
    if not 2 <= shortest <= longest:
        raise ActrelaxError(f"contours need 2 <= shortest <= longest, got shortest={shortest} and longest={longest}.")
    drawn = random.Random(int(torch.randint(2**62, (), generator=random_stream(seed, "contours", cells, longest))))
    side = PITCH * cells - 1
    images, distance = torch.zeros(count, 2, side, side), torch.full((count, cells, cells), EMPTY)
    for (figure, mark), steps in zip(images, distance, strict=True):
        dashes: Dashes = {}
        marked, other = _pair(dashes, cells, drawn.randint(shortest, longest), drawn)
        for number, place in enumerate(marked):
            steps[place] = number
        for place in other:
            steps[place] = APART
        _scatter(dashes, cells, density, drawn)
        for place, o in dashes.items():
            for k in (-1, 0, 1):
                figure[tuple(PITCH * i + 1 + k * di for i, di in zip(place, STEPS[o], strict=True))] = 1
        i, j = (PITCH * i for i in marked[0])
        mark[i : i + 3, j : j + 3] = 1
    return Connected(images, distance)


def _continues(place: Place, o: int, other: Place, p: int) -> bool:
    """Return whether one of two neighbouring dashes points to the other, and their angle is at most 45 degrees."""
    step = STEPS.index((other[0] - place[0], other[1] - place[1])) % 4
    return step in (o, p) and (o - p) % 4 != 2


def _fits(dashes: Dashes, place: Place, o: int, before: Place | None = None) -> bool:
    """Return whether a new dash continues none but the one before."""
    around = [(place[0] + i, place[1] + j) for i, j in STEPS]
    return not any(n in dashes and n != before and _continues(place, o, n, dashes[n]) for n in around)


def _pair(dashes: Dashes, cells: int, length: int, drawn: random.Random) -> tuple[list[Place], list[Place]]:
    """Add two contours, and return their places from end to end."""
    for _ in range(TRIES):
        dashes.clear()
        if (one := _walk(dashes, cells, length, drawn)) and (other := _walk(dashes, cells, length, drawn)):
            return one, other
    raise ActrelaxError(
        f"two contours of {length} dashes hardly fit into {cells} x {cells} places: "
        "pass a smaller longest or more cells."
    )


def _walk(dashes: Dashes, cells: int, length: int, drawn: random.Random) -> list[Place]:
    """Add a contour, and return its places; none if a depth-first search takes too long."""
    walk: list[Place] = []
    todo = [(0, (drawn.randrange(cells), drawn.randrange(cells)), drawn.randrange(8))]
    for _ in range(20 * length):
        if not todo:
            break
        depth, place, direction = todo.pop()
        while len(walk) > depth:
            del dashes[walk.pop()]
        inside = min(place) >= 0 and max(place) < cells
        if inside and place not in dashes and _fits(dashes, place, direction % 4, walk[-1] if walk else None):
            dashes[place] = direction % 4
            walk.append(place)
            if len(walk) == length:
                return walk
            after = place[0] + STEPS[direction][0], place[1] + STEPS[direction][1]
            todo += [(depth + 1, after, (direction + turn) % 8) for turn in drawn.sample((-1, 0, 1), 3)]
    for place in walk:
        del dashes[place]
    return []


def _scatter(dashes: Dashes, cells: int, density: float, drawn: random.Random) -> None:
    """Add single dashes."""
    for place in ((i, j) for i in range(cells) for j in range(cells)):
        if place not in dashes and drawn.random() < density:
            fitting = [o for o in range(4) if _fits(dashes, place, o)]
            if fitting:
                dashes[place] = drawn.choice(fitting)
