"""Activation relaxation: backpropagation's gradient as the equilibrium of a neural dynamical system.

Public names and `actrelax.brian2` are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actrelax import brian2 as brian2
    from actrelax.models.assumptions import PRESETS as PRESETS
    from actrelax.models.assumptions import Assumptions as Assumptions
    from actrelax.models.assumptions import Knobs as Knobs
    from actrelax.models.engines import INTEGRATORS as INTEGRATORS
    from actrelax.models.engines import Brian2Options as Brian2Options
    from actrelax.models.engines import SciPyOptions as SciPyOptions
    from actrelax.models.engines import Settle as Settle
    from actrelax.models.engines import Steps as Steps
    from actrelax.models.engines import TorchOptions as TorchOptions
    from actrelax.models.engines import settle as settle
    from actrelax.models.engines import solve as solve
    from actrelax.models.errors import ActrelaxError as ActrelaxError
    from actrelax.models.learning import ActivationRelaxation as ActivationRelaxation
    from actrelax.models.learning import Backward as Backward
    from actrelax.models.learning import BackwardOptions as BackwardOptions
    from actrelax.models.learning import SettlingReport as SettlingReport
    from actrelax.models.learning import Updates as Updates
    from actrelax.models.learning import activity_gradients as activity_gradients
    from actrelax.models.learning import backprop_backward as backprop_backward
    from actrelax.models.learning import bptt_backward as bptt_backward
    from actrelax.models.learning import relax_backward as relax_backward
    from actrelax.models.learning import relax_continuously as relax_continuously
    from actrelax.models.network import Activation as Activation
    from actrelax.models.network import Network as Network
    from actrelax.models.network import Projection as Projection
    from actrelax.models.network import build as build
    from actrelax.models.problem import ForwardProblem as ForwardProblem
    from actrelax.models.problem import RelaxationProblem as RelaxationProblem
    from actrelax.models.problem import UnitDynamics as UnitDynamics
    from actrelax.models.results import DivergenceError as DivergenceError
    from actrelax.models.results import Record as Record
    from actrelax.models.results import Trajectory as Trajectory
    from actrelax.models.results import open_trajectory as open_trajectory
    from actrelax.simulations.data import digits as digits
    from actrelax.simulations.training.saved import load_run as load_run

__version__ = "0.2.0"

_MODULE_OF = {
    "Activation": "models.network",
    "ActivationRelaxation": "models.learning",
    "ActrelaxError": "models.errors",
    "Assumptions": "models.assumptions",
    "Backward": "models.learning",
    "BackwardOptions": "models.learning",
    "Brian2Options": "models.engines",
    "DivergenceError": "models.results",
    "ForwardProblem": "models.problem",
    "INTEGRATORS": "models.engines",
    "Knobs": "models.assumptions",
    "Network": "models.network",
    "PRESETS": "models.assumptions",
    "Projection": "models.network",
    "Record": "models.results",
    "RelaxationProblem": "models.problem",
    "SciPyOptions": "models.engines",
    "Settle": "models.engines",
    "SettlingReport": "models.learning",
    "Steps": "models.engines",
    "TorchOptions": "models.engines",
    "Trajectory": "models.results",
    "UnitDynamics": "models.problem",
    "Updates": "models.learning",
    "activity_gradients": "models.learning",
    "backprop_backward": "models.learning",
    "bptt_backward": "models.learning",
    "build": "models.network",
    "digits": "simulations.data",
    "load_run": "simulations.training.saved",
    "open_trajectory": "models.results",
    "relax_backward": "models.learning",
    "relax_continuously": "models.learning",
    "settle": "models.engines",
    "solve": "models.engines",
}

__all__ = [*_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name == "brian2":
        return importlib.import_module("actrelax.brian2")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'actrelax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"actrelax.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "brian2"})
