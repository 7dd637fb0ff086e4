"""The relaxation as an initial value problem: its ODE, initial state and clamped output."""

from actrelax.models.problem.feedback_transforms import apply_transform, transform_named
from actrelax.models.problem.losses import (
    LOSSES,
    Loss,
    LossFunction,
    dense_targets,
    from_function,
    loss_named,
    smoothed,
)
from actrelax.models.problem.per_neuron import Value
from actrelax.models.problem.problem import ProblemFields, RelaxationProblem
from actrelax.models.problem.unit_dynamics import Leaky, State, StateSpace, Unit, UnitDynamics

__all__ = [
    "LOSSES",
    "Leaky",
    "Loss",
    "LossFunction",
    "ProblemFields",
    "RelaxationProblem",
    "State",
    "StateSpace",
    "Unit",
    "UnitDynamics",
    "Value",
    "apply_transform",
    "dense_targets",
    "from_function",
    "loss_named",
    "smoothed",
    "transform_named",
]
