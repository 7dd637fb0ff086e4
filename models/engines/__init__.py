"""Engines solve relaxation problems; `solve` is the only door to them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import INTEGRATORS, Integrator
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.registry import known, look_up
from actrelax.models.schedule import schedule, whole_number
from actrelax.models.trajectory import Trajectory

ENGINES: dict[str, str] = {"torch": "actrelax.models.engines.torch"}
"""Name -> module with a `solve`; imported when asked for."""

Record = bool | str | Sequence[str] | Callable[[State], Mapping[str, Tensor]]


def solve(
    problem: RelaxationProblem,
    integrator: str | Integrator = "sequential",
    *,
    dt: float | None = None,
    eta: float | None = None,
    steps: int | None = None,
    duration: float | None = None,
    stop_change: float | None = None,
    record: Record = False,
    every: int = 1,
    engine: str = "torch",
    check_finite: bool = True,
) -> Trajectory:
    """Relax: integrate the problem's ODE from its start.

    Parameters
    ----------
    problem : RelaxationProblem
    integrator : str or Integrator, default "sequential"
        A name of `integrators.INTEGRATORS`.
    dt, eta : float, optional
        The step, in the problem's unit of time or relative to its one tau (dt = eta tau); eta = 0.1 unless given.
        Both must be left out, with steps and duration, for "equilibrium".
    steps, duration : int, float, optional
        How many steps, or how long, a whole number of dt; 100 steps unless given.
    stop_change : float, optional
        Stop as soon as each population's largest change in a step, relative to its largest activity, is at most
        this. A change per step, not per tau: the distance left is larger by about tau/dt of the slowest
        population, so choose it well below the smallest dt/tau.
    record : bool, str, sequence of str, or callable, default False
        What to keep on the way: nothing, all hidden populations and the output, some populations by name, or what
        a function returns of the state (population -> (batch, *shape), not to be changed): a mapping of tensors.
        It is called once more for each step if the relaxation diverges, to say where.
    every : int, default 1
        Record the start and every so many steps.
    engine : str, default "torch"
        A name of `ENGINES`.
    check_finite : bool, default True
        Look at the final state for nan and inf. On a GPU that waits for the queue to empty: a loop that looks by
        itself every so many batches turns it off.

    Returns
    -------
    Trajectory

    Raises
    ------
    ActrelaxError
        For choices that can't be met.
    DivergenceError
        If a population becomes non-finite; its ``trajectory`` holds what was reached.

    Examples
    --------
    >>> import torch
    >>> from actrelax.models.architectures import build
    >>> network = build("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> problem = RelaxationProblem.from_batch(network, torch.rand(3, 64), torch.tensor([0, 1, 2]))
    >>> solve(problem, "euler", steps=100, eta=0.1).final["hidden1"].shape
    torch.Size([3, 32])
    >>> solve(problem, "euler", steps=1000, stop_change=1e-6).status
    <Status.SETTLED: 'settled'>
    """
    scheme = look_up("integrator", integrator, INTEGRATORS)
    if stop_change is not None and not stop_change > 0:
        raise ActrelaxError(f"stop_change must be positive, got {stop_change}.")
    every = whole_number("every", every, least=1)
    if not scheme.takes_time and stop_change is not None:
        raise ActrelaxError(f'"{scheme.name}" is there after one sweep: leave out stop_change.')
    recorder = _recorder(problem, record)
    grid = schedule(problem, scheme, dt=dt, eta=eta, steps=steps, duration=duration)
    module = importlib.import_module(ENGINES[known("engine", engine, ENGINES)])
    trajectory: Trajectory = module.solve(problem, scheme, grid, stop_change, recorder, every, check_finite)
    return trajectory


def _recorder(problem: RelaxationProblem, record: Record) -> Callable[[State], Mapping[str, Tensor]] | None:
    if record is False:
        return None
    if callable(record):
        return record
    populations = [*problem.network.hidden, problem.network.output]
    if record is True:
        names = populations
    else:
        asked = [record] if isinstance(record, str) else record
        names = [known("recorded population", name, populations) for name in asked]
    return lambda state: {name: state[name] for name in names}
