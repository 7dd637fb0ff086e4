"""One step of a relaxation each."""

from actrelax.models.integrators.chain import Matrix, Transition, chain_matrix, coefficients, flow
from actrelax.models.integrators.schemes import (
    EQUILIBRIUM,
    EULER,
    EXPONENTIAL,
    HEUN,
    RK4,
    SEQUENTIAL,
    Integrator,
    holding,
)

__all__ = [
    "EQUILIBRIUM",
    "EULER",
    "EXPONENTIAL",
    "HEUN",
    "RK4",
    "SEQUENTIAL",
    "Integrator",
    "Matrix",
    "Transition",
    "chain_matrix",
    "coefficients",
    "flow",
    "holding",
]
