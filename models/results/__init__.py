"""What comes back: trajectories, and the files that hold them."""

from actrelax.models.results.relative_error import relative_error
from actrelax.models.results.trajectory import DivergenceError, Status, Trajectory

__all__ = ["DivergenceError", "Status", "Trajectory", "relative_error"]
