"""Integrators: numerical schemes for a relaxation, one step at a time."""

from actrelax.models.integrators.chain import Matrix, Transition, chain_matrix, coefficients, flow, holding, sweep
from actrelax.models.integrators.components import (
    TOLERANCE,
    equilibrium_by_components,
    residual_of_equilibrium,
    zero_if_finite,
)
from actrelax.models.integrators.delay_lines import fill_delay_lines, shift_delay_lines
from actrelax.models.integrators.gmres import gmres
from actrelax.models.integrators.noise import add_noise
from actrelax.models.integrators.schemes import (
    EQUILIBRIUM,
    EULER,
    EXPONENTIAL,
    HEUN,
    RK4,
    SEQUENTIAL,
    Integrator,
    equilibrium,
)

__all__ = [
    "EQUILIBRIUM",
    "EULER",
    "EXPONENTIAL",
    "HEUN",
    "RK4",
    "SEQUENTIAL",
    "TOLERANCE",
    "Integrator",
    "Matrix",
    "Transition",
    "add_noise",
    "chain_matrix",
    "coefficients",
    "equilibrium",
    "equilibrium_by_components",
    "fill_delay_lines",
    "flow",
    "gmres",
    "holding",
    "residual_of_equilibrium",
    "shift_delay_lines",
    "sweep",
    "zero_if_finite",
]
