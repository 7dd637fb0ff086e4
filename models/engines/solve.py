"""Engines solve relaxation problems; `solve` is the only door to them."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from torch import Generator

from actrelax.models._names import is_number, known
from actrelax.models.closed_form.steps_needed import ToleranceOf
from actrelax.models.engines.methods import integrator_named
from actrelax.models.engines.request import SolveRequest
from actrelax.models.engines.steps import Steps, schedule, whole_number
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import Status, Trajectory
from actrelax.models.results.recording import History, Record, RecordSpec, record_spec

ENGINES: dict[str, str] = {
    "torch": "actrelax.models.engines.torch",
    "scipy": "actrelax.models.engines.scipy",
    "brian2": "actrelax.models.engines.brian2.engine",
}
"""Name -> `Engine`, a module that is imported when it is asked for."""


class Engine(Protocol):
    """What the module of an engine has."""

    def unsupported(self, problem: RelaxationProblem, integrator: Integrator) -> str | None:
        """Return None, or one sentence that says what it can't do here."""

    def solve(self, request: SolveRequest, **options: Any) -> Trajectory:
        """Run; the options are those of `solve` that belong to this engine."""


def engine_named(name: str) -> Engine:
    """Import an engine.

    Raises
    ------
    ActrelaxError
        For an unknown name.
    """
    return cast("Engine", importlib.import_module(ENGINES[known("engine", name, ENGINES)]))


def unsupported(problem: RelaxationProblem, integrator: str | Integrator, engine: str) -> str | None:
    """Return None where the engine runs the problem by the integrator, else one sentence that says why not."""
    scheme = integrator_named(integrator)
    return scheme.unsupported(problem) or engine_named(engine).unsupported(problem, scheme)


def solve(
    problem: RelaxationProblem,
    integrator: str | Integrator = "sequential",
    *,
    dt: float | None = None,
    eta: float | None = None,
    steps: Steps | None = None,
    duration: float | None = None,
    tolerance: float | None = None,
    tolerance_of: ToleranceOf | None = None,
    max_steps: int | None = None,
    stop_change: float | None = None,
    record: Record = False,
    every: int = 1,
    path: str | Path | None = None,
    engine: str | None = None,
    check_finite: bool = True,
    generator: Generator | None = None,
    **options: Any,
) -> Trajectory:
    """Relax: integrate the problem's ODE from its start.

    Parameters
    ----------
    problem : RelaxationProblem
    integrator : str or Integrator, default "sequential"
        A name of `integrators.INTEGRATORS`; or one of an engine's own, ``"scipy:DOP853"``, ``"brian2:rk4"``
        (`foreign`).
    dt, eta : float, optional
        The step, in the problem's unit of time or relative to its one tau (dt = eta tau); eta = 0.1 unless given.
        Both must be left out, with steps and duration, for "equilibrium". SciPy's adaptive methods choose their own
        steps: there it is the distance of what is recorded.
    steps, duration : int or "auto", float, optional
        How many steps, or how long, a whole number of dt; 100 steps unless given. "auto": as many as it takes until
        no population is further from equilibrium than the tolerance.
    tolerance, tolerance_of, max_steps : float, {"activity", "gradient"}, int, optional
        Of steps="auto"; 1e-6, "activity" and 10,000 unless given. Where there is a law (`closed_form`) it tells the
        number of steps: until what is left of the initial activity is that small, relative to itself or to the
        gradient. Elsewhere: until no population changes by more in a step, relative to its largest activity and to
        dt/tau.
    stop_change : float, optional
        Stop as soon as each population's largest change in a step, relative to its largest activity, is at most
        this. A change per step, not per tau: the distance left is larger by about tau/dt of the slowest
        population, so choose it well below the smallest dt/tau.
    record : bool, str, sequence of str, mapping, or callable, default False
        What to keep on the way: nothing, all hidden populations and the output, some populations by name, some of
        their units (population -> indices into its flattened shape; (batch, indices) is kept), or what a function
        returns of the state (population -> (batch, *shape), not to be changed): name -> tensor, NumPy array or
        number, the same names, shapes and types each time. It is called once more for each step if the relaxation
        diverges, to say where.
    every : int, default 1
        Record the start and every so many steps.
    path : str or pathlib.Path, optional
        File for the recorded values, read by `open_trajectory`. A path that ends in .zarr is a Zarr store: blocks of
        up to 64 points in time, or 16 MiB, are appended to it while the relaxation runs, memory holds no more than one
        block, and an existing store is replaced when the start is recorded (needs the package zarr). Any other path
        is a NetCDF file, written once the relaxation has ended or diverged; an existing file is replaced then.
    engine : str, optional
        A name of `ENGINES`; "torch" unless the integrator belongs to another.
    check_finite : bool, default True
        Look at the final state for nan and inf. On a GPU that waits for the queue to empty: a loop that looks by
        itself every so many batches turns it off.
    generator : torch.Generator, optional
        What the noise of a noisy problem is drawn from; torch's global generator unless given.
    **options
        What belongs to one engine: see `solve` of its module.

    Returns
    -------
    Trajectory

    Raises
    ------
    ActrelaxError
        For choices that can't be met.
    DivergenceError
        If a population becomes non-finite; its ``trajectory`` holds what was reached.

    Warns
    -----
    UserWarning
        If steps="auto" ends at max_steps.

    Examples
    --------
    >>> import torch
    >>> from actrelax.models.network import build
    >>> network = build("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> problem = RelaxationProblem.from_batch(network, torch.rand(3, 64), torch.tensor([0, 1, 2]))
    >>> solve(problem, "euler", steps=100, eta=0.1).final["hidden1"].shape
    torch.Size([3, 32])
    >>> solve(problem, "euler", steps=1000, stop_change=1e-6).status
    <Status.SETTLED: 'settled'>
    >>> solve(problem, "euler", eta=0.1, steps="auto", tolerance=1e-6).steps
    132
    """
    request = resolve(
        problem,
        integrator,
        stop_change=stop_change,
        spec=record_spec(problem, record),
        every=every,
        path=path,
        engine=engine,
        check_finite=check_finite,
        generator=generator,
        options=options,
        dt=dt,
        eta=eta,
        steps=steps,
        duration=duration,
        tolerance=tolerance,
        tolerance_of=tolerance_of,
        max_steps=max_steps,
    )
    return run(request)


def run(request: SolveRequest) -> Trajectory:
    """Do what was asked for.

    Warns
    -----
    UserWarning
        If the relaxation was to settle, and did not.
    """
    try:
        trajectory = engine_named(request.engine).solve(request, **request.options)
    finally:
        request.recording.flush()
    warn_unsettled(request, trajectory.status, trajectory.steps)
    return trajectory


def warn_unsettled(request: SolveRequest, status: Status, steps: int, stacklevel: int = 4) -> None:
    """Warn if a relaxation was to settle, and did not."""
    if status is Status.NOT_SETTLED and request.grid.to_settle:
        warnings.warn(
            f"not settled after max_steps = {steps} steps: the state is kept; give more, or a larger tolerance.",
            stacklevel=stacklevel,
        )


def resolve(
    problem: RelaxationProblem,
    integrator: str | Integrator,
    *,
    stop_change: float | None = None,
    spec: RecordSpec | None = None,
    every: int = 1,
    path: str | Path | None = None,
    engine: str | None = None,
    check_finite: bool = True,
    generator: Generator | None = None,
    options: Mapping[str, Any] | None = None,
    **length: Any,
) -> SolveRequest:
    """Check and resolve what `solve` was given; `length` goes to `schedule`.

    Raises
    ------
    ActrelaxError
        For choices that can't be met.
    """
    scheme, options = integrator_named(integrator), options or {}
    chosen = engine or scheme.engine or "torch"
    if stop_change is not None and not (is_number(stop_change) and stop_change > 0):
        raise ActrelaxError(f"stop_change must be positive, got {stop_change!r}.")
    every = whole_number("every", every, least=1)
    if not scheme.takes_time and stop_change is not None:
        raise ActrelaxError(f'"{scheme.name}" is there after one sweep: leave out stop_change.')
    if path is not None and spec is None:
        raise ActrelaxError("path needs something to write, but record is False: pass record=True.")
    module = engine_named(chosen)
    grid = schedule(problem, scheme, **length)
    reason = module.unsupported(problem, scheme)
    if reason is not None:
        raise ActrelaxError(f'"{scheme.name}" can\'t be used on {chosen} here: {reason}')
    if options:
        accepted = list(inspect.signature(module.solve).parameters)[1:]
        for name in options:
            known(f"option of the engine {chosen}", name, accepted or ["none"])
    if grid.to_settle and stop_change is not None:
        raise ActrelaxError('stop_change and steps="auto" exclude each other: give one of them.')
    about = {"integrator": scheme.name, "engine": chosen, "dt": grid.dt, "options": options}
    recording = History(problem, spec, every, None if path is None else Path(path), about)
    return SolveRequest(
        chosen, problem, scheme, grid, recording, stop_change or grid.stop_change, check_finite, generator, options
    )
