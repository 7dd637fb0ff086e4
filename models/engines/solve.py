"""`solve`: check and resolve its arguments, then run the engine."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from torch import Generator

from actrelax.models._names import is_number, known
from actrelax.models.closed_form import ToleranceOf
from actrelax.models.engines.methods import integrator_named
from actrelax.models.engines.request import SolveRequest
from actrelax.models.engines.steps import Steps, schedule, whole_number
from actrelax.models.errors import ActrelaxError, warn
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import DivergenceError, Status, Trajectory
from actrelax.models.results.recording import History, Record, RecordSpec, record_spec

ENGINES: dict[str, str] = {
    "torch": "actrelax.models.engines.torch",
    "scipy": "actrelax.models.engines.scipy",
    "brian2": "actrelax.models.engines.brian2.engine",
}
"""Engine -> its module, an `Engine`, which is imported on first use."""


class Engine(Protocol):
    """The interface of an engine's module."""

    def unsupported(self, problem: RelaxationProblem, integrator: Integrator) -> str | None:
        """Return None, or one sentence that says why the engine can't run the problem."""

    def solve(self, request: SolveRequest, **options: Any) -> Trajectory:
        """Run a request with the options that are specific to this engine."""


def engine_named(name: str) -> Engine:
    """Import and return the module of an engine.

    Raises
    ------
    ActrelaxError
        For an unknown name.
    """
    return cast("Engine", importlib.import_module(ENGINES[known("engine", name, ENGINES)]))


def unsupported(problem: RelaxationProblem, integrator: str | Integrator, engine: str) -> str | None:
    """Return None if the engine can run the problem with the integrator, else the reason in one sentence."""
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
    """Integrate the problem's ODE from its start.

    Parameters
    ----------
    problem : RelaxationProblem
    integrator : str or Integrator, default "sequential"
        A key of `INTEGRATORS`, or a method of one engine: ``"scipy:DOP853"``, ``"brian2:rk4"``.
    dt, eta : float, optional
        Step size in the problem's unit of time, or relative to its single tau (dt = eta tau); eta = 0.1 by default.
        "equilibrium" takes neither, and no steps or duration. SciPy's adaptive methods choose their own steps; for
        them dt is the interval between outputs.
    steps, duration : int or "auto", float, optional
        Number of steps, or total time, a multiple of dt; 100 steps by default. "auto" continues until every
        population is within the tolerance of equilibrium.
    tolerance, tolerance_of, max_steps : float, {"activity", "gradient"}, int, optional
        For steps="auto"; by default 1e-6, "activity" and 10,000. If the closed form applies, it computes the number
        of steps after which the remainder of the initial activity is at most the tolerance, relative to the initial
        activity or the gradient. Otherwise the relaxation stops when no population changes by more than tolerance *
        dt/tau of the slowest population in a step, relative to its largest activity.
    stop_change : float, optional
        Stop when no population changes by more than this in a step, relative to its largest activity. The remaining
        distance from equilibrium is larger by about tau/dt of the slowest population, so choose a value well below
        the smallest dt/tau.
    record : bool, str, sequence of str, mapping, or callable, default False
        Values to record: none; all hidden populations and the output; populations by name; some of their units
        (population -> indices into the flattened shape, recorded as (batch, indices)); or the result of a function
        of the state. The function gets population -> (batch, *shape), which it must not change, and returns name ->
        tensor, NumPy array or number, with the same names, shapes and types each time. If the relaxation diverges,
        the steps are repeated to find the first non-finite one, with further calls of the function.
    every : int, default 1
        Record the start and every `every`-th step.
    path : str or pathlib.Path, optional
        File for the recorded values, read by `open_trajectory`. A path that ends in .zarr is a Zarr store (needs the
        package zarr): blocks of up to 64 points in time or 16 MiB are appended while the relaxation runs, memory holds
        one block at most, and an existing store is replaced when the start is recorded. Any other path is a NetCDF
        file, written, or replaced, once the relaxation has ended or diverged.
    engine : str, optional
        A key of `ENGINES`; by default "torch", or the integrator's engine.
    check_finite : bool, default True
        Raise a `DivergenceError` if the final state has nan or inf. On a GPU the check waits for the device: turn it
        off in loops with less frequent checks.
    generator : torch.Generator, optional
        Generator of the noise; by default torch's global one.
    **options
        Options of the engine: see `solve` of its module.

    Returns
    -------
    Trajectory

    Raises
    ------
    ActrelaxError
        For arguments that exclude each other, are out of range or don't fit the engine; if the file can't be written,
        at the end with the result as the error's ``trajectory``.
    DivergenceError
        If a population becomes non-finite; its ``trajectory`` ends with the last finite state.

    Warns
    -----
    UserWarning
        If steps="auto" reaches max_steps without settling.

    Examples
    --------
    >>> import torch
    >>> from actrelax import RelaxationProblem, build, solve
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
    """Run a resolved request, and write its file.

    Raises
    ------
    ActrelaxError
        If the file can't be written; its ``trajectory`` is the result if the relaxation had ended by then. After a
        divergence or another error, this one is a note of that error.

    Warns
    -----
    UserWarning
        If steps="auto" ends before the relaxation has settled.
    """
    recording = request.recording
    try:
        trajectory = engine_named(request.engine).solve(request, **request.options)
    except BaseException as error:
        try:
            recording.finish(error.trajectory if isinstance(error, DivergenceError) else None)
        except ActrelaxError as unwritten:
            error.add_note(str(unwritten))
        raise
    try:
        recording.finish(trajectory)
    except ActrelaxError as error:
        error.trajectory = trajectory
        raise
    warn_unsettled(request, trajectory.status, trajectory.steps)
    return trajectory


def warn_unsettled(request: SolveRequest, status: Status, steps: int) -> None:
    """Warn if steps="auto" ends before the relaxation has settled."""
    if status is Status.NOT_SETTLED and request.grid.to_settle:
        warn(f"not settled after max_steps = {steps} steps: pass a larger max_steps or tolerance.")


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
    """Check the arguments of `solve` and return them as a request; `length` goes to `schedule`.

    Raises
    ------
    ActrelaxError
        As for `solve`.
    """
    scheme, options = integrator_named(integrator), options or {}
    chosen = engine or scheme.engine or "torch"
    if stop_change is not None and not (is_number(stop_change) and stop_change > 0):
        raise ActrelaxError(f"stop_change must be positive, got {stop_change!r}.")
    every = whole_number("every", every, least=1)
    if not scheme.takes_time and stop_change is not None:
        raise ActrelaxError(f'"{scheme.name}" takes a single sweep: leave out stop_change.')
    if path is not None and spec is None:
        raise ActrelaxError("path needs recorded values, but record is False: pass record=True.")
    module = engine_named(chosen)
    grid = schedule(problem, scheme, **length)
    reason = module.unsupported(problem, scheme)
    if reason is not None:
        raise ActrelaxError(f'"{scheme.name}" can\'t be used on {chosen} here: {reason}')
    if options:
        accepted = list(inspect.signature(module.solve).parameters)[1:]
        for name in options:
            known(f"{chosen} option", name, accepted or ["none"])
    if grid.to_settle and stop_change is not None:
        raise ActrelaxError('stop_change and steps="auto" exclude each other: give one of them.')
    about = {"integrator": scheme.name, "engine": chosen, "dt": grid.dt, "options": options}
    recording = History(problem, spec, every, None if path is None else Path(path), about)
    return SolveRequest(
        chosen, problem, scheme, grid, recording, stop_change or grid.stop_change, check_finite, generator, options
    )
