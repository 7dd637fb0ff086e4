"""Results: trajectories and their files."""

from typing import TYPE_CHECKING, Any

from actrelax.models.results.recording import Record
from actrelax.models.results.relative_error import relative_error
from actrelax.models.results.trajectory import DivergenceError, Status, Trajectory

if TYPE_CHECKING:
    from actrelax.models.results.xarray_io import open_trajectory
from actrelax.models.results.relative_error import FLOOR

__all__ = ["FLOOR", "DivergenceError", "Record", "Status", "Trajectory", "open_trajectory", "relative_error"]


def __getattr__(name: str) -> Any:
    if name != "open_trajectory":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from actrelax.models.results.xarray_io import open_trajectory  # xarray takes a second to load

    return open_trajectory
