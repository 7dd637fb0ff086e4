"""`solve`: check and resolve its arguments, then run the engine."""

from __future__ import annotations

import importlib
from dataclasses import asdict
from typing import Any, Protocol, Unpack, cast, get_args

import torch

from actrelax.models._names import known
from actrelax.models._values import GeneratorLike, as_generator
from actrelax.models.engines.methods import INTEGRATORS, integrator_named
from actrelax.models.engines.options import Brian2Options, Options, SciPyOptions, TorchOptions
from actrelax.models.engines.request import Evaluation, SolveRequest
from actrelax.models.engines.schedule import schedule
from actrelax.models.engines.steps import PAPERS, Steps, StepSize, as_steps
from actrelax.models.errors import ActrelaxError, enough_memory, warn
from actrelax.models.integrators import Integrator
from actrelax.models.problem import InitialValueProblem
from actrelax.models.results import DivergenceError, Record, Status, Trajectory
from actrelax.models.results.recording import History, Recordable

ENGINES: dict[str, str] = {
    "torch": "actrelax.models.engines.torch",
    "scipy": "actrelax.models.engines.scipy",
    "brian2": "actrelax.models.engines.brian2.engine",
}
"""Engine -> its module (an `Engine`), imported on first use."""

OPTIONS: dict[str, type[Options]] = {"torch": TorchOptions, "scipy": SciPyOptions, "brian2": Brian2Options}
"""Engine -> type of its options."""


class Engine(Protocol):
    """The interface of an engine's module."""

    def unsupported(self, problem: InitialValueProblem, integrator: Integrator) -> str | None:
        """Return None, or one sentence that says why the engine can't run the problem."""

    def solve(self, request: SolveRequest) -> Trajectory:
        """Run a request."""


def engine_named(name: str) -> Engine:
    """Import and return the module of an engine."""
    return cast("Engine", importlib.import_module(ENGINES[known("engine", name, ENGINES)]))


def unsupported(problem: InitialValueProblem, integrator: str | Integrator, engine: str) -> str | None:
    """Return None if the engine can run the problem with the integrator, else the reason in one sentence."""
    scheme = integrator_named(integrator)
    return scheme.unsupported(problem) or engine_named(engine).unsupported(problem, scheme)


def solve(
    problem: InitialValueProblem,
    integrator: str | Integrator = "euler",
    steps: int | Steps = PAPERS,
    *,
    record: Recordable | Record = False,
    engine: str | None = None,
    evaluation: Evaluation = "auto",
    generator: GeneratorLike | None = None,
    options: Options | None = None,
    **size: Unpack[StepSize],
) -> Trajectory:
    """Integrate the problem's ODE from its start.

    Parameters
    ----------
    problem : RelaxationProblem or ForwardProblem
    integrator : str or Integrator, default "euler"
        A key of `INTEGRATORS`, a SciPy method such as ``"DOP853"``, or a Brian2 method such as ``"brian2:rk4"``.
    steps : int or Steps, default Steps(100, eta=0.1)
        Number of steps, or their number and size, or a tolerance (`Steps.until`). Leave it out for "equilibrium".
    record : bool, str, sequence of str, mapping, callable or Record, default False
        Values to record at every step: ``True`` for all hidden populations and the output; see `Record.what`. A
        `Record` also sets an interval and a file.
    engine : str, optional
        A key of `ENGINES`; by default "torch", or the integrator's engine.
    evaluation : {"auto", "stepped", "closed-form"}, default "auto"
        The closed form gives the result of the steps, to rounding, at the cost of a few feedback passes for any number
        of steps; for `Steps.until` with a tolerance of at most 1e-5 it gives the equilibrium, in one pass. "auto" uses
        it in the PyTorch engine if it applies and only the final state is wanted.
    generator : torch.Generator, numpy.random.Generator or int, optional
        Generator for the noise, or a seed; by default torch's global generator.
    options : TorchOptions, SciPyOptions or Brian2Options, optional
        Options of the engine; their type must match the engine.
    eta, dt, duration : float, optional
        Shorthand for `Steps`: ``solve(problem, "rk4", dt=1.0, duration=200.0)``.

    Returns
    -------
    Trajectory

    Raises
    ------
    ActrelaxError
        For arguments that exclude each other, are out of range or don't fit the engine; if ``"closed-form"`` does not
        apply; if the file can't be written. If only writing at the end failed, the error's ``trajectory`` is the
        result.
    DivergenceError
        If a population becomes non-finite; its ``trajectory`` ends with the last finite state.

    Warns
    -----
    UserWarning
        If `Steps.until` takes its largest number of steps without settling.

    Examples
    --------
    >>> import torch
    >>> from actrelax import RelaxationProblem, Steps, build, solve
    >>> network = build("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> problem = RelaxationProblem.from_batch(network, torch.rand(3, 64), torch.tensor([0, 1, 2]))
    >>> solve(problem, "euler", 100, eta=0.1).final["hidden1"].shape
    torch.Size([3, 32])
    >>> solve(problem, "euler", Steps.until(1e-6)).steps
    132
    """
    request = resolve(
        problem,
        integrator,
        as_steps(steps, size),
        record=record,
        engine=engine,
        evaluation=evaluation,
        generator=generator,
        options=options,
    )
    request.recording.arguments = _arguments(request, integrator, as_steps(steps, size))
    return run(request.measured())


def _arguments(request: SolveRequest, integrator: str | Integrator, steps: Steps) -> dict[str, Any]:
    """Return the arguments of `solve` for a file; a custom integrator is stored as None."""
    scheme, generator = request.integrator, request.generator
    own = isinstance(integrator, Integrator) and scheme.engine is None and INTEGRATORS.get(scheme.name) is not scheme
    noise: dict[str, Any] = {}
    if request.problem.is_noisy:
        device = request.problem.like.device if generator is None else generator.device
        on_cpu = device.type == "cpu"
        noise = {"random_state": (generator or torch.default_generator).get_state() if on_cpu else None}
    return {
        "integrator": None if own else scheme.name,
        "engine": request.engine,
        "steps": asdict(steps),
        "evaluation": request.evaluation,
        "every": request.recording.every,
        "options": request.options.given(),
        "seed": (generator or torch.default_generator).initial_seed(),
        **noise,
    }


def run(request: SolveRequest) -> Trajectory:
    """Run a resolved request, and write its file.

    If the file can't be written at the end, the error's ``trajectory`` is the result. If the relaxation has failed
    before, its own error is raised, with a note about the file.
    """
    recording = request.recording
    try:
        with enough_memory("this relaxation", "take smaller batches, networks or delays, or record less"):
            trajectory = engine_named(request.engine).solve(request)
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
    warn_unsettled(request, trajectory.status)
    return trajectory


def warn_unsettled(request: SolveRequest, status: Status) -> None:
    """Warn if `Steps.until` ends before the relaxation has settled."""
    if status is Status.NOT_SETTLED and request.integrator.takes_time:
        warn(f"not settled after {request.grid.steps} steps: pass Steps.until with a larger most or tolerance.")


def resolve(
    problem: InitialValueProblem,
    integrator: str | Integrator,
    steps: Steps,
    *,
    record: Recordable | Record = False,
    engine: str | None = None,
    evaluation: Evaluation = "auto",
    generator: GeneratorLike | None = None,
    options: Options | None = None,
) -> SolveRequest:
    """Check the arguments of `solve` and return them as a request."""
    scheme = integrator_named(integrator)
    chosen = engine or scheme.engine or "torch"
    module = engine_named(chosen)
    grid = schedule(problem, scheme, steps)
    reason = module.unsupported(problem, scheme)
    if reason is not None:
        raise ActrelaxError(f'"{scheme.name}" can\'t be used on {chosen} here: {reason}')
    if known("evaluation", evaluation, get_args(Evaluation)) == "closed-form" and chosen != "torch":
        raise ActrelaxError(f'the closed form needs engine="torch", got "{chosen}": leave evaluation out.')
    options = OPTIONS[chosen]() if options is None else options
    if type(options) is not OPTIONS[chosen]:
        raise ActrelaxError(f"{chosen} takes {OPTIONS[chosen].__name__}, got options={options!r}.")
    about = {"integrator": scheme.name, "engine": chosen, "dt": grid.dt, "options": options.given()}
    recording = History(problem, record if isinstance(record, Record) else Record(record), about)
    return SolveRequest(chosen, problem, scheme, grid, recording, options, evaluation, as_generator(generator))
