"""The problem and the arguments of `solve` in a trajectory's file, from which the relaxation can be repeated."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import xarray as xr
from torch import Tensor

from actrelax.models.assumptions import Assumptions, Knobs
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import FeedforwardPass, Network
from actrelax.models.network.description import describe, rebuild
from actrelax.models.problem import (
    ForwardProblem,
    InitialValueProblem,
    Quantised,
    RelaxationProblem,
    Scaled,
    Sparse,
    Transform,
    UnitDynamics,
)

GROUP = "problem"
"""The file's group with the problem."""


def problem_dataset(problem: InitialValueProblem, arguments: Mapping[str, Any]) -> xr.Dataset:
    """Return weights, psi, stimulus, target, clamp and rates as variables, everything else as attributes.

    Attributes are JSON text; each tensor is replaced by the name of its variable. "not repeatable" lists the parts that
    a file can't hold.
    """
    network, tensors = describe(problem.network), _Tensors()
    obstacles = [*network["functions"], *_obstacles(problem, arguments)]
    own: dict[str, Any] = {"stimulus": tensors.add("stimulus", _stimulus(problem))}
    if isinstance(problem, RelaxationProblem):
        rates = _settled_rates(problem)
        own |= {
            "rates": tensors.pack("rates", rates),
            "clamped": tensors.add("clamped", problem.clamped),
            "target": None if problem.target is None else tensors.add("target", problem.target),
            "assumptions": asdict(problem.assumptions),
            "feedback_transform": _transform(problem.feedback_transform),
            "clip": problem.clip,
        }
        obstacles += _obstacles_of_relaxation(problem, rates)
    attributes = {
        "kind": "relaxation" if isinstance(problem, RelaxationProblem) else "forward phase",
        "network": network,
        "weights": {key: tensors.add(key, x) for key, x in problem.network.state_dict().items()},
        "dtype": str(problem.like.dtype).removeprefix("torch."),
        "dynamics": {name: asdict(dynamics) for name, dynamics in problem.dynamics.items()},
        **own,
        **{name: tensors.pack(name, getattr(problem, name)) for name in _FIELDS},
        "arguments": {name: tensors.pack(name, value) for name, value in arguments.items()},
        "not repeatable": obstacles,
    }
    return xr.Dataset(tensors.variables, attrs={name: json.dumps(value) for name, value in attributes.items()})


_FIELDS = ("tau", "start", "noise", "input_noise", "delays", "time_unit")
"""Fields of all problems that hold a number, name or tensor, or one per population."""


def load_problem(path: str | Path) -> tuple[RelaxationProblem | ForwardProblem, dict[str, Any]]:
    """Return the problem in a trajectory's file, and the arguments of the call of `solve`.

    Parameters
    ----------
    path : str or pathlib.Path
        A NetCDF file or a Zarr store. No code in it is run.

    Returns
    -------
    problem : RelaxationProblem or ForwardProblem
        On the CPU. A relaxation on a network with cycles has the rates from which it started; they don't settle anew.
    arguments : dict
        "integrator", a name, or None for one of your own; "engine" and "evaluation", names; "steps", the fields of a
        `Steps`; "options", the fields of the engine's options; "every", of the `Record`; "seed", and for noise
        "random_state", the state of a `torch.Generator`.

    Raises
    ------
    ActrelaxError
        If the file can't be read, was written by an earlier version, or its problem has Python functions.
    """
    try:
        variables, attributes = _read(Path(path))
        obstacles = attributes["not repeatable"]
    except Exception as error:  # damaged files make h5netcdf and zarr raise nearly anything
        raise ActrelaxError(
            f"{path} holds no problem to relax again: it is missing, damaged, or from an earlier version."
        ) from error
    if obstacles:
        raise ActrelaxError(f"{path} can't be relaxed again: a file can't hold {' or '.join(obstacles)}.")
    try:
        return _problem(attributes, variables), _unpack(attributes["arguments"], variables)
    except ActrelaxError:
        raise
    except Exception as error:  # edited attributes may raise anything
        raise ActrelaxError(f"{path} holds no problem to relax again: its group {GROUP!r} is damaged.") from error


def _problem(attributes: Mapping[str, Any], variables: Mapping[str, Tensor]) -> RelaxationProblem | ForwardProblem:
    dtype = getattr(torch, attributes["dtype"])
    weights = {key: variables[name] for key, name in attributes["weights"].items()}
    network = rebuild(attributes["network"], {key: x.to(dtype) for key, x in weights.items()})
    stimulus = variables[attributes["stimulus"]].to(dtype)
    fields = {name: _unpack(attributes[name], variables) for name in _FIELDS}
    fields["dynamics"] = {name: UnitDynamics(**given) for name, given in attributes["dynamics"].items()}
    if attributes.get("kind") == "forward phase":
        return ForwardProblem(network, stimulus, **fields)
    target, rates = attributes["target"], _unpack(attributes.get("rates", {}), variables)
    return RelaxationProblem(
        network,
        _pass_at(network, stimulus, {name: r.to(dtype) for name, r in rates.items()}),
        variables[attributes["clamped"]].to(dtype),
        _assumptions(attributes["assumptions"]),
        clip=_unpack(attributes["clip"], variables),
        feedback_transform=_rebuild_transform(attributes["feedback_transform"]),
        target=None if target is None else variables[target],
        **fields,
    )


def _stimulus(problem: InitialValueProblem) -> Tensor:
    if isinstance(problem, RelaxationProblem):
        return problem.feedforward.activities[problem.network.input]
    assert isinstance(problem, ForwardProblem)
    return problem.stimulus


def _settled_rates(problem: RelaxationProblem) -> dict[str, Tensor]:
    """Return the rates that a feedforward pass does not compute: of populations in cycles, and any that differ."""
    passed, cycles = problem.feedforward, problem.network.graph.cycles
    names = {*passed.responses, *(name for cycle in cycles for name in cycle)}
    return {name: r for name, r in passed.activities.items() if name in names}


@torch.no_grad()
def _pass_at(network: Network, stimulus: Tensor, rates: Mapping[str, Tensor]) -> FeedforwardPass:
    """Return the forward pass in which some populations have these rates in place of f(a)."""
    if rates:
        return ForwardProblem(network, stimulus).feedforward_pass(dict(rates))
    return network.feedforward(stimulus, keep_drives=False)


def _assumptions(given: Mapping[str, Any]) -> Assumptions:
    dense, conv = (Knobs(**given[kind]) for kind in ("dense", "conv"))
    return Assumptions(dense, conv, given.get("projections", {}), given.get("statistics", "exact"))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if path.suffix == ".zarr":
        dataset = xr.open_zarr(path, group=GROUP, consolidated=False)
    else:
        with h5py.File(path) as file:  # fail here first: h5netcdf leaves incomplete objects behind
            dict(file[GROUP].attrs)
        dataset = xr.open_dataset(path, group=GROUP, engine="h5netcdf")
    with dataset:
        variables = {str(name): torch.from_numpy(np.array(x.values)) for name, x in dataset.data_vars.items()}
        return variables, {name: json.loads(value) for name, value in dataset.attrs.items()}


def _obstacles(problem: InitialValueProblem, arguments: Mapping[str, Any]) -> list[str]:
    """Return the arguments that a file can't hold, in words."""
    found = []
    if not arguments:
        found.append("the arguments of a relaxation that was not run by solve")
    elif arguments["integrator"] is None:
        found.append("a custom integrator")
    if "random_state" in arguments and arguments["random_state"] is None:
        found.append("noise drawn on a GPU")
    return found


def _obstacles_of_relaxation(problem: RelaxationProblem, rates: Mapping[str, Tensor]) -> list[str]:
    """Return the parts of a relaxation that a file can't hold, besides the network's functions, in words."""
    found, network = [], problem.network
    if problem.feedback_transform is not None and _transform(problem.feedback_transform) is None:
        found.append("a feedback transform that is a Python function")
    again = _pass_at(network, _stimulus(problem), rates).activities[network.output]
    if not torch.equal(again, problem.feedforward.activities[network.output]):
        found.append("a feedforward pass with weights other than the network's")
    return found


def _transform(transform: object) -> dict[str, Any] | None:
    return asdict(transform) if isinstance(transform, Sparse | Quantised | Scaled) else None


def _rebuild_transform(given: Mapping[str, Any] | None) -> Transform | None:
    if given is None:
        return None
    return next(transform(**given) for field, transform in _TRANSFORMS.items() if field in given)


_TRANSFORMS: dict[str, Callable[..., Transform]] = {"probability": Sparse, "levels": Quantised, "factor": Scaled}
"""A field that no other transform has -> transform."""


class _Tensors:
    """Tensors as variables of a Dataset, under names that NetCDF allows."""

    def __init__(self) -> None:
        self.variables: dict[str, tuple[tuple[str, ...], Any]] = {}

    def add(self, name: str, x: Tensor) -> str:
        """Store a tensor, and return the name of its variable."""
        word = re.sub(r"[^\w.>-]", "_", name)
        while word in self.variables:
            word += "_"
        x = x.detach().cpu()
        if x.dtype in (torch.float16, torch.bfloat16):
            x = x.to(torch.float32)
        self.variables[word] = (tuple(f"{word}_{i}" for i in range(x.dim())), x.numpy())
        return word

    def pack(self, name: str, value: Any) -> Any:
        """Return a value for JSON; a tensor becomes {"variable": its name}."""
        if isinstance(value, Tensor):
            return value.item() if value.dim() == 0 else {"variable": self.add(name, value)}
        if isinstance(value, Mapping):
            return {"by name": {key: self.pack(f"{name} of {key}", each) for key, each in value.items()}}
        return value.item() if isinstance(value, np.generic) else value


def _unpack(value: Any, variables: Mapping[str, Tensor]) -> Any:
    """Invert `_Tensors.pack`."""
    if not isinstance(value, dict):
        return value
    if "variable" in value:
        return variables[value["variable"]]
    return {key: _unpack(each, variables) for key, each in value.get("by name", value).items()}
