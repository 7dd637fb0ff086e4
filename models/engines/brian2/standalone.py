"""A relaxation as a compiled program: Brian2's cpp_standalone, in a process of its own.

Brian2 keeps one such device a process, for all that is built there; the caller's own Brian2 stays as it is.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actrelax.models.engines.sparse_problem import SparseProblem
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import State

if TYPE_CHECKING:
    from actrelax.models.engines.request import SolveRequest


UNPICKLABLE = (
    "the problem can't be sent to Brian2's program, which runs in a process of its own: "
    "put the functions that it has (activations, transforms) into a module."
)


def run_standalone(request: SolveRequest, method: str, seed: int | None) -> Iterator[tuple[int, State]]:
    """Write, compile and run the program; yield (step, state) of the recorded steps and of the last.

    Raises
    ------
    ActrelaxError
        If it can't be compiled or run.
    """
    every = 1 if request.stop_change is not None else request.recording.every
    records = request.recording.spec is not None or request.stop_change is not None
    order = {
        "problem": request.problem,
        "method": method,
        "dt": request.grid.dt,
        "steps": request.grid.steps,
        "seed": seed,
    }
    with tempfile.TemporaryDirectory(prefix="actrelax-") as folder:
        path = Path(folder)
        try:
            (path / "order.pickle").write_bytes(pickle.dumps(order | {"every": every if records else None}))
        except (AttributeError, pickle.PicklingError) as error:
            raise ActrelaxError(UNPICKLABLE) from error
        done = subprocess.run([sys.executable, "-m", __name__, folder], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ActrelaxError(_complaint(done.stderr))
        with np.load(path / "states.npz") as found:
            states = {name: found[name] for name in found.files}
    flat = SparseProblem(request.problem)
    for index, step in enumerate(states.pop("steps").tolist()):
        yield step, flat.as_tensors({name: x[index] for name, x in states.items()})


def _complaint(said: str) -> str:
    """Say in one sentence what went wrong in the other process."""
    lines = [line for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    if "compilation failed" in said:
        return "Brian2's program could not be compiled: is there a C++ compiler?"
    return UNPICKLABLE if "Can't get attribute" in last else f"Brian2's program failed: {last}"


def main(folder: Path) -> None:
    """Do what `order.pickle` in a folder says, and leave `states.npz` there."""
    import brian2 as b2

    order = pickle.loads((folder / "order.pickle").read_bytes())
    order["directory"] = str(folder / "program")
    b2.set_device("cpp_standalone", directory=order["directory"], build_on_run=False)
    if order["seed"] is not None:
        b2.seed(order["seed"])
    states = _run(order)
    np.savez(folder / "states.npz", **states)


def _run(order: dict[str, Any]) -> dict[str, Any]:
    import brian2 as b2

    from actrelax.models.engines.brian2.build import UNIT, build, own_variables

    problem, dt, steps, every = order["problem"], order["dt"], order["steps"], order["every"]
    simulation = build(problem, order["method"], dt=dt)
    clock = simulation.clock if every in (None, 1) else b2.Clock(every * dt * UNIT, name="records")
    variables = own_variables(problem, simulation)
    monitors = {}
    if every is not None:
        for k, (variable, (group, own)) in enumerate(variables.items()):
            monitors[variable] = b2.StateMonitor(group, own, record=True, clock=clock, name=f"states_{k}")
            simulation.network.add(monitors[variable])
    simulation.network.run(steps * dt * UNIT, namespace={})
    b2.device.build(directory=order["directory"], compile=True, run=True)
    kept = [] if every is None else list(range(0, steps, every))
    states: dict[str, Any] = {"steps": np.array([*kept, steps])}
    for variable, (group, own) in variables.items():
        last = np.array(getattr(group, own))[None]
        before = [getattr(monitors[variable], own).T] if kept else []
        states[variable] = np.concatenate([*before, last])
    return states


if __name__ == "__main__":
    main(Path(sys.argv[1]))
