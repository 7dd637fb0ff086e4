"""What analyses require of a problem and of its step."""

from __future__ import annotations

from actrelax.models.engines import Steps, integrator_named, require_stable
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator
from actrelax.models.problem import InitialValueProblem, RelaxationProblem


def require_relaxation(problem: InitialValueProblem, what: str, *, also: str = "") -> None:
    """Refuse a problem other than a relaxation; `what` begins the sentence and `also` ends it.

    Raises
    ------
    ActrelaxError
        For a `ForwardProblem`.
    """
    if not isinstance(problem, RelaxationProblem):
        raise ActrelaxError(
            f"{what} needs a RelaxationProblem, got a {type(problem).__name__}: pass "
            f"RelaxationProblem.from_batch(network, x, y){also}."
        )


def require_hidden(problem: RelaxationProblem, what: str) -> None:
    """Refuse a problem in which nothing relaxes; `what` begins the sentence.

    Raises
    ------
    ActrelaxError
        If the network has no hidden population.
    """
    if not problem.network.hidden:
        raise ActrelaxError(
            f"{what} needs a network with hidden populations, got one without: add a hidden population."
        )


def checked_step(problem: InitialValueProblem, integrator: str | Integrator, dt: float) -> float:
    """Return dt as a number in the problem's unit of time, after the checks of `solve`.

    Unlike `solve` it does not warn of dt / tau above 1, since predictions show how errors then grow.

    Raises
    ------
    ActrelaxError
        If dt is not positive or too large for the integrator, or the integrator takes no time.
    """
    scheme, dt = integrator_named(integrator), problem.time("dt", dt)
    if not scheme.takes_time:
        raise ActrelaxError(
            f'a relaxation over time is needed, and "{scheme.name}" takes none: name another integrator.'
        )
    Steps(dt=dt)  # raises
    require_stable(problem, scheme, dt)
    return dt
