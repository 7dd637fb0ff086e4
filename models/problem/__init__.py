"""The relaxation and the forward phase as initial value problems."""

from actrelax.models.problem.feedback_transforms import (
    Quantised,
    Scaled,
    Sparse,
    Transform,
    apply_transform,
    transform_named,
)
from actrelax.models.problem.forward import ForwardProblem
from actrelax.models.problem.initial_value_problem import InitialValueProblem
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
    "ForwardProblem",
    "InitialValueProblem",
    "Leaky",
    "Loss",
    "LossFunction",
    "ProblemFields",
    "Quantised",
    "RelaxationProblem",
    "Scaled",
    "Sparse",
    "State",
    "StateSpace",
    "Transform",
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
