"""Usual data sets of the named networks."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from actrelax.analysis.files import exists
from actrelax.models.network import MODULES, build
from actrelax.simulations.data.datasets import data_folder

USUAL = {64: "digits", 784: "mnist", 3072: "cifar10"}
"""Number of values per image -> data set."""


def at_hand(network: str, data_dir: Path | None) -> str | None:
    """Return the usual data set of a network if its file exists, otherwise None."""
    name = "digits" if ":" in network else USUAL.get(math.prod(usual_shape(network)))
    folder = data_folder(data_dir)
    return name if name == "digits" or exists(folder / f"{name}.npz") else None


def usual_shape(network: str) -> tuple[int, ...]:
    """Return the default input shape of a named network."""
    if network in MODULES:
        return MODULES[network].input_shape
    usual = build(network, generator=torch.Generator())
    return usual.populations[usual.input].shape


def drawing_shape(network: str) -> tuple[int, ...]:
    """Return the shape of a drawing for a network: its input shape, or a grey square for square inputs.

    A user's function takes drawings with the shape of the digits.
    """
    shape = (64,) if ":" in network else usual_shape(network)
    side = math.isqrt(math.prod(shape))
    return (1, side, side) if len(shape) == 1 and side * side == shape[0] else shape
