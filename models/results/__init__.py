"""Results: trajectories and their files."""

from typing import TYPE_CHECKING, Any

from actrelax.models.results.recording import Record
from actrelax.models.results.relative_error import relative_error
from actrelax.models.results.trajectory import DivergenceError, Status, Trajectory

if TYPE_CHECKING:
    from actrelax.models.results.problem_file import load_problem
    from actrelax.models.results.xarray_io import open_trajectory
from actrelax.models.results.relative_error import FLOOR

__all__ = [
    "FLOOR",
    "DivergenceError",
    "Record",
    "Status",
    "Trajectory",
    "load_problem",
    "open_trajectory",
    "relative_error",
]


def __getattr__(name: str) -> Any:
    if name == "load_problem":
        from actrelax.models.results.problem_file import load_problem  # xarray takes a second to load

        return load_problem
    if name != "open_trajectory":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from actrelax.models.results.xarray_io import open_trajectory

    return open_trajectory
