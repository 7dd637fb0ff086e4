"""Data sets of images, and seeded random streams."""

from actrelax.simulations.data.datasets import Dataset, Split, digits, load
from actrelax.simulations.data.rng import random_stream

__all__ = ["Dataset", "Split", "digits", "load", "random_stream"]
