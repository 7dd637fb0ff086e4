"""Types of the keywords for the fields of a problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from torch import Tensor

from actrelax.models.problem.feedback_transforms import Transform
from actrelax.models.problem.per_neuron import Value
from actrelax.models.problem.unit_dynamics import UnitDynamics


class ProblemFields(TypedDict, total=False):
    """Keywords for the optional fields of a `RelaxationProblem`, without the assumptions."""

    tau: Value | Mapping[str, Value]
    start: str | Mapping[str, Tensor]
    clip: float | None
    noise: Value | Mapping[str, Value]
    input_noise: float
    delays: float | Mapping[str, float]
    feedback_transform: str | Transform | None
    dynamics: Mapping[str, UnitDynamics]
