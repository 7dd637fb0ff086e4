"""`settle`: the rates of a network with cycles, component by component (docs/theory.md, section 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from actrelax.models._names import known
from actrelax.models.engines.options import TorchOptions
from actrelax.models.engines.request import Agree
from actrelax.models.engines.residual import residual_of_pass
from actrelax.models.engines.solve import engine_named, resolve
from actrelax.models.engines.steps import Steps
from actrelax.models.errors import ActrelaxError, enough_memory, warn
from actrelax.models.integrators import Integrator
from actrelax.models.network import FeedforwardPass, Network, check_network
from actrelax.models.problem import ForwardProblem
from actrelax.models.results import Status


@dataclass(frozen=True)
class Settle:
    """How the rates of a network with cycles settle.

    Parameters
    ----------
    steps : Steps, default Steps.until(1e-6, eta=0.5)
        Step size and tolerance of the residual f(a(r)) - r, relative to the population's largest rate; or a number of
        steps. eta = 1 is fixed-point iteration, which diverges in many networks that settle at a smaller eta.
    integrator : str or Integrator, default "sequential"
        As for `solve`; by default a sweep from the lowest population up.
    start : "zero" or mapping, default "zero"
        Initial rates: zero, or population -> (batch, *population.shape) for all populations in cycles.
    """

    steps: Steps = field(default_factory=lambda: Steps.until(1e-6, eta=0.5))
    integrator: str | Integrator = "sequential"
    start: str | Mapping[str, Tensor] = "zero"

    def __post_init__(self) -> None:
        if not isinstance(self.steps, Steps):
            raise ActrelaxError(
                f"steps must be Steps, got {self.steps!r}: pass Steps(30, eta=0.5) or Steps.until(...)."
            )


@dataclass(frozen=True, eq=False, repr=False)
class _Component(ForwardProblem):
    """The forward phase of some populations, between others that keep their rates.

    members  the populations that move
    rates    population -> its rate, for the input and all others that drive the members
    """

    members: tuple[str, ...] = ()
    rates: Mapping[str, Tensor] = field(default_factory=dict)

    @cached_property
    def relaxing(self) -> list[str]:
        return list(self.members)

    @property
    def held(self) -> Mapping[str, Tensor]:
        return self.rates


@torch.no_grad()
def settle(network: Network, x: Tensor, how: Settle | None = None) -> FeedforwardPass:
    """Return the rates of a batch, with the drives, gains and pooling routes that a relaxation reads.

    Between cycles each population is evaluated once; the populations of a cycle start at `Settle.start` and take steps
    together. Without cycles this is `Network.feedforward`.

    Parameters
    ----------
    network : Network
    x : torch.Tensor
        Stimuli, (batch, *input shape).
    how : Settle, optional
        Steps, integrator and initial rates.

    Returns
    -------
    FeedforwardPass
        For `RelaxationProblem.from_batch`. The output is f(a(r)).

    Raises
    ------
    ActrelaxError
        For invalid arguments.
    DivergenceError
        If a rate becomes non-finite.

    Warns
    -----
    UserWarning
        If some samples have not settled after the largest number of steps.

    Examples
    --------
    >>> from torch import nn
    >>> from actrelax.models.network import Projection
    >>> network = Network(
    ...     (4,),
    ...     {"hidden": "tanh", "output": "identity"},
    ...     [
    ...         Projection("input", "hidden", nn.Linear(4, 3)),
    ...         Projection("hidden", "hidden", nn.Linear(3, 3, bias=False)),
    ...         Projection("hidden", "output", nn.Linear(3, 2)),
    ...     ],
    ... )
    >>> settle(network, torch.rand(5, 4)).activities["output"].shape
    torch.Size([5, 2])
    """
    how = Settle() if how is None else how
    passed = settled_pass(network, x, how)
    if passed.reached is False and how.steps.tolerance is not None:
        for members in network.graph.cycles:
            moving = int((residual_of_pass(passed, members) > how.steps.tolerance).sum())
            if moving:
                warn(
                    f"{moving} of {len(x)} samples have not settled after {passed.steps} steps in the cycle of "
                    f"{', '.join(members)}: a smaller eta may help, or Steps.until with a larger most."
                )
    return passed


@torch.no_grad()
def settled_pass(
    network: Network, x: Tensor, how: Settle, *, check_finite: bool = True, agree: Agree | None = None
) -> FeedforwardPass:
    """Return the result of `settle` without a warning; `FeedforwardPass.reached` says whether the steps sufficed.

    Processes that `agree` take the same number of steps.
    """
    check_network(network)
    if not isinstance(how, Settle):
        raise ActrelaxError(f"how must be a Settle, got {how!r}: pass Settle(Steps.until(1e-6, eta=0.5)).")
    if not network.is_recurrent:
        return network.feedforward(x)
    if isinstance(how.start, Mapping):
        for name in how.start:
            known("population", name, [name for cycle in network.graph.cycles for name in cycle], where="start")
    network.check_stimuli(x)
    whole = FeedforwardPass({}, {network.input: x}, {})
    for members in network.graph.components:
        start = how.start if members in network.graph.cycles else "zero"
        if isinstance(start, Mapping):
            start = {name: rates for name, rates in start.items() if name in members}
        component = _Component(network, x, start=start, members=members, rates=whole.activities)
        settles = members in network.graph.cycles
        part = _settled(component, how, check_finite, agree) if settles else component.feedforward_pass({})
        whole = FeedforwardPass(
            {**whole.drives, **part.drives},
            {**whole.activities, **part.activities},
            {**whole.routes, **part.routes},
            responses={**whole.responses, **part.responses},
            steps=max((each.steps for each in (whole, part) if each.steps is not None), default=None),
            reached=False if part.reached is False or whole.reached is False else part.reached or whole.reached,
        )
    return whole


def _settled(component: _Component, how: Settle, check_finite: bool, agree: Agree | None) -> FeedforwardPass:
    """Let the populations of a cycle settle."""
    options = TorchOptions(check_finite=check_finite)
    request = resolve(component, how.integrator, how.steps, engine="torch", options=options)
    with enough_memory("this network's forward phase", "take smaller batches or networks"):
        trajectory = engine_named("torch").solve(replace(request, agree=agree))
    reached = None if how.steps.tolerance is None else trajectory.status is Status.SETTLED
    return replace(component.feedforward_pass(trajectory.state), steps=trajectory.steps, reached=reached)
