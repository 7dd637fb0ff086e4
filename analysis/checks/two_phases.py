"""Checks of networks with cycles beyond one relaxation: the rates, unrolled forward steps, and the two spectra."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from actrelax.analysis.checks.compare import Report, Row
from actrelax.analysis.checks.solvers import CLOSED_FORM, NAMES, SETTLED, Entry, Restrictions, entries
from actrelax.models.engines import INTEGRATORS, SparseForward, SparseProblem, Steps, schedule, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import postsynaptic_factor, presynaptic_factor
from actrelax.models.network import FeedforwardPass, sum_in_order
from actrelax.models.problem import ForwardProblem, Loss, RelaxationProblem
from actrelax.models.results import Status, relative_error

UNROLLED = (1, 5, 20)
"""Numbers of steps that are compared with backprop through as many forward steps."""
ERROR = 20
"""Bound on the error of rates, relative to their residual: 1/(1 - abscissa) up to an abscissa of 0.95."""
LARGEST = 1_000
"""Largest number of neurons whose eigenvalues are computed."""


def verify_rates(
    problem: ForwardProblem,
    rates: FeedforwardPass,
    steps: Steps,
    *,
    bound: float = 1e-10,
    watch: Callable[[list[Entry]], Iterable[Entry]] = iter,
    **restrictions: Unpack[Restrictions],
) -> Report:
    """Run the forward phase by every engine and integrator until it has settled, and compare the rates.

    Parameters
    ----------
    problem : ForwardProblem
    rates : FeedforwardPass
        What `settle` returns.
    steps : Steps
        Step size; its tolerance, by default that of `SETTLED`, is the residual at which the rates have settled, and its
        largest number of steps limits how long that may take. All integrators take 1.2 times as many steps as Euler's
        method needs on PyTorch.
    bound, watch, **restrictions
        As for `verify`.

    Raises
    ------
    ActrelaxError
        If the rates don't settle.
    """
    until = Steps.until(SETTLED[problem.like.dtype]) if steps.tolerance is None else steps
    grid = schedule(problem, INTEGRATORS["euler"], Steps(eta=steps.eta, dt=steps.dt, unit=steps.unit))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "not settled", UserWarning)
        settled = solve(problem, "euler", replace(until, eta=None, dt=grid.dt))
    bound = max(bound, ERROR * (until.tolerance or 0.0))
    if settled.status is not Status.SETTLED:
        raise ActrelaxError(
            f"the rates have not settled after {settled.steps:,} steps: give a smaller --settle-eta or --dt, or a "
            "larger --settle-steps or --settle-tolerance."
        )
    steps = Steps(max(1, round(1.2 * settled.steps)), dt=grid.dt)
    restrictions["engines"] = [name for name in restrictions.get("engines", NAMES) if name != CLOSED_FORM]
    found, remarks = entries(problem, steps, **restrictions)
    report = Report(remarks=[f"forward phase: {remark}" for remark in remarks])
    names = [*problem.network.hidden, problem.network.output]
    for entry in watch(found):
        errors = dict.fromkeys(names, math.nan)
        try:
            final = entry.solve(problem, steps).final
            errors = {v: relative_error(final[v].cpu().double(), rates.activities[v].cpu().double()) for v in names}
        except ActrelaxError as error:
            report.remarks.append(f"forward phase: {entry.title} failed: {error}")
        limit = max(bound, entry.bound)
        report.rows += [Row(entry.name, entry.scheme.name, "settled rates", v, e, limit) for v, e in errors.items()]
    return report


def verify_unrolled(problem: RelaxationProblem, y: Tensor, loss: Loss, eta: float, bound: float = 1e-12) -> Report:
    """Compare k Euler steps of a relaxation from zero with backprop through k forward steps from the rates.

    Their weight updates are equal if the rates have settled, all neurons have one tau, and the loss is taken at
    f(a(r)) of the output (docs/theory.md). Each population stands for the projections into it.
    """
    report = Report()
    problem = replace(problem, start="zero", tau=1.0)
    for steps in UNROLLED:
        ours = _updates(problem, solve(problem, "euler", steps, eta=eta).final)
        theirs = unrolled_gradients(problem, y, loss, eta, steps)
        for name in [*problem.network.hidden, problem.network.output]:
            of_target = [p.name for p in problem.network.incoming[name] if p.name in ours]
            if of_target:
                error = max(relative_error(ours[key], theirs[key]) for key in of_target)
                title = f"BPTT through {steps} step{'s' if steps > 1 else ''}"
                report.rows.append(Row("torch", "euler", title, name, error, bound))
    return report


def unrolled_gradients(problem: RelaxationProblem, y: Tensor, loss: Loss, eta: float, steps: int) -> dict[str, Tensor]:
    """Return projection -> dLoss/dW by autograd through `steps` forward Euler steps from the problem's rates.

    The loss is that of f(a(r)) at the last rates r, summed over the samples.
    """
    network, rates = problem.network, problem.feedforward.activities
    weights = {name: p.weight for name, p in network.projections.items() if p.weight is not None}
    with torch.enable_grad():
        r = {name: rates[name].detach() for name in [network.input, *network.hidden]}

        def response(name: str) -> Tensor:
            drive = sum_in_order([p.find(r[p.source])[0] for p in network.incoming[name]])
            return network.populations[name].activation.function(drive)

        for _ in range(steps):
            new = {name: (1 - eta) * r[name] + eta * response(name) for name in network.hidden}
            r = {**r, **new}
        output = response(network.output)
        top = loss.gradient(output.detach(), y)
        gradients = torch.autograd.grad(output, [*weights.values()], top, materialize_grads=True)
    return dict(zip(weights, gradients, strict=True))


def _updates(problem: RelaxationProblem, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return projection -> dW by the local rule, summed over the samples."""
    found: dict[str, Tensor] = {}
    for name, p in problem.network.projections.items():
        if p.weight is not None:
            pre, post = presynaptic_factor(problem, p, {**state}), postsynaptic_factor(problem, p, {**state})
            found[name] = p.plasticity(pre, post)["weight"]
    return found


def verify_spectra(problem: RelaxationProblem, *, bound: float = 1e-10, seed: int = 0) -> Report:
    """Compare the Jacobians of both phases at the rates, with a random tau for each neuron.

    With T = diag(tau), J_B = (T J_F T^-1)^T, so that both phases have the same eigenvalues. With a single tau, loops of
    unequal widths have defective eigenvalues, which no solver finds to rounding. Use one sample.
    """
    network, rates = problem.network, problem.feedforward.activities
    ends, draw = [*network.hidden, network.output], np.random.default_rng(seed)
    taus = {name: torch.from_numpy(draw.uniform(0.5, 2.0, network.populations[name].shape)) for name in ends}
    tau = {name: value.to(problem.like) for name, value in taus.items()}
    start = {name: rates[name] for name in ends}  # whose routes the Jacobian follows
    forward = SparseForward(ForwardProblem(network, rates[network.input], tau=tau, start=start))
    del tau[network.output]
    backward = SparseProblem(replace(problem, tau=tau))
    J_F, J_B = (_jacobian(flat, network.hidden) for flat in (forward, backward))
    T = np.concatenate([taus[name].flatten().numpy() for name in network.hidden])
    transposed = (sparse.diags_array(T) @ J_F @ sparse.diags_array(1 / T)).T
    error = float(abs(transposed - J_B).max() / abs(J_B).max())
    report = Report([Row("scipy", "J_B", "transpose of J_F", "all", error, bound)])
    if len(T) > LARGEST:
        report.remarks.append(f"eigenvalues of J_B and J_F are compared up to {LARGEST:,} neurons, got {len(T):,}.")
        return report
    ours, theirs = (np.linalg.eigvals(J.toarray()) for J in (J_B, J_F))
    distances = np.abs(ours[:, None] - theirs)
    error = float(distances[linear_sum_assignment(distances)].max() / np.abs(theirs).max())
    report.rows.append(Row("scipy", "J_B", "eigenvalues of J_F", "all", error, bound))
    return report


def _jacobian(flat: SparseForward | SparseProblem, names: Sequence[str]) -> sparse.csr_array:
    """Return the Jacobian at the initial state, of these populations in this order."""
    units = flat.problem.units
    offsets = dict(zip(units, np.cumsum([0, *(flat.sizes[name] for name in units)]), strict=False))
    kept = np.concatenate([offsets[name] + np.arange(flat.sizes[name]) for name in names])
    return flat.jacobian(flat.initial_state)[kept][:, kept].tocsr()
