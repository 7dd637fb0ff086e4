"""Activation relaxation: backpropagation's gradient as the equilibrium of a neural dynamical system.

The public names below are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actrelax.models.activations import Activation as Activation
    from actrelax.models.architectures import build as build
    from actrelax.models.assumptions import Assumptions as Assumptions
    from actrelax.models.assumptions import Knobs as Knobs
    from actrelax.models.backprop import activity_gradients as activity_gradients
    from actrelax.models.backprop import backprop_backward as backprop_backward
    from actrelax.models.continuous import relax_continuously as relax_continuously
    from actrelax.models.engines import solve as solve
    from actrelax.models.errors import ActrelaxError as ActrelaxError
    from actrelax.models.errors import DivergenceError as DivergenceError
    from actrelax.models.learning import relax_backward as relax_backward
    from actrelax.models.netcdf import open_trajectory as open_trajectory
    from actrelax.models.network import Network as Network
    from actrelax.models.problem import RelaxationProblem as RelaxationProblem
    from actrelax.models.projections import Projection as Projection
    from actrelax.models.units import UnitDynamics as UnitDynamics
    from actrelax.models.updates import Updates as Updates
    from actrelax.simulations.training.saved import load_run as load_run

__version__ = "0.1.0"

_MODULE_OF = {
    "Activation": "models.activations",
    "ActrelaxError": "models.errors",
    "Assumptions": "models.assumptions",
    "DivergenceError": "models.errors",
    "Knobs": "models.assumptions",
    "Network": "models.network",
    "Projection": "models.projections",
    "RelaxationProblem": "models.problem",
    "UnitDynamics": "models.units",
    "Updates": "models.updates",
    "activity_gradients": "models.backprop",
    "backprop_backward": "models.backprop",
    "build": "models.architectures",
    "load_run": "simulations.training.saved",
    "open_trajectory": "models.netcdf",
    "relax_backward": "models.learning",
    "relax_continuously": "models.continuous",
    "solve": "models.engines",
}

__all__ = [*_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'actrelax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"actrelax.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
