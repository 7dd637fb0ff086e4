"""Checks of results on a device: they equal the CPU's, backprop's and the exact ones."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actrelax.models.closed_form import why_not
from actrelax.models.engines import INTEGRATORS, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import (
    ActivationRelaxation,
    activity_gradients,
    backprop_backward,
    relax_backward,
    relax_continuously,
)
from actrelax.models.problem import RelaxationProblem
from actrelax.simulations.training.assemble import set_up
from actrelax.simulations.training.hardware import Hardware
from actrelax.simulations.training.mixed_precision import in_bfloat16
from gpu_parts.cases import (
    BOUNDS,
    NETWORKS,
    RULES,
    UNCHECKED,
    Case,
    difference,
    gradients,
    make_case,
    rule_named,
    within,
)
from gpu_parts.items import UnsuitableError


def results_stay_on_the_device(device: str) -> str:
    """Check that public functions return tensors on the network's device."""
    kind, seen = torch.device(device).type, 0

    def check(tensors: object) -> None:
        nonlocal seen
        for tensor in tensors.values() if isinstance(tensors, dict) else tensors:  # type: ignore[attr-defined]
            if tensor.device.type != kind:
                raise AssertionError(f"a result is on {tensor.device}")
            seen += 1

    for name in NETWORKS:
        case = make_case(name).on(device)
        problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
        for integrator in [*INTEGRATORS, "RK45"]:
            trajectory = solve(problem, integrator, record=True)
            check(dict(trajectory.final))
            check(dict(trajectory.recorded))
            trajectory.error(activity_gradients(case.network, case.x, case.y))
        passed = case.network.feedforward(case.x)
        check(dict(passed.activities))
        for rule in (backprop_backward, relax_backward):
            result = rule(case.network, case.x, case.y)
            check([result.loss, result.output, result.finite])
        check([ActivationRelaxation(case.network)(case.x)])
    return f"{seen} tensors"


def rules_agree_with_the_cpu(device: str, *, dtype: torch.dtype) -> str:
    """Check that every rule computes the same gradients as on the CPU."""
    largest = 0.0
    for name in NETWORKS:
        for rule in RULES:
            case = make_case(name, rule, dtype)
            pair = (gradients(rule_named(rule), each) for each in (case.on(device), case))
            largest = max(largest, difference(*pair))
    return within(largest, BOUNDS[dtype])


def relaxations_agree_with_the_cpu(device: str) -> str:
    """Check that every integrator ends at the same state as on the CPU, stepped and by the closed form."""
    case, largest, count = make_case("digits-cnn"), 0.0, 0
    pair = [RelaxationProblem.from_batch(each.network, each.x, each.y) for each in (case.on(device), case)]
    for name, integrator in INTEGRATORS.items():
        for evaluation in ("closed-form", "stepped"):
            if evaluation == "closed-form" and why_not(pair[0], integrator) is not None:
                continue
            ends = [dict(solve(problem, name, evaluation=evaluation).final) for problem in pair]
            largest, count = max(largest, difference(*ends)), count + 1
    return f"{within(largest, BOUNDS[torch.float64])} in {count}"


def equilibrium_is_backprop(device: str) -> str:
    """Check that `relax_backward` at equilibrium computes backprop's gradients."""
    largest = 0.0
    for name in NETWORKS:
        case = make_case(name).on(device)
        at_equilibrium = partial(relax_backward, integrator="equilibrium", options=UNCHECKED)
        largest = max(largest, difference(gradients(at_equilibrium, case), gradients(backprop_backward, case)))
    return within(largest, BOUNDS[torch.float64])


def front_door_is_backprop(device: str) -> str:
    """Check that `loss.backward()` on an `ActivationRelaxation` computes autograd's gradients."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(1, 4, 3),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(36, 20),
        nn.ReLU(),
        nn.Linear(20, 10),
    )
    module = nn.Sequential(*layers).to(device, torch.float64)
    x, y = torch.rand(16, 1, 8, 8, dtype=torch.float64).to(device), (torch.arange(16) % 10).to(device)

    def left(model: nn.Module) -> dict[str, Tensor]:
        module.zero_grad()
        F.cross_entropy(model(x), y).backward()
        return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}

    relaxing = ActivationRelaxation(module, input_shape=(1, 8, 8), integrator="equilibrium")
    return within(difference(left(relaxing), left(module)), BOUNDS[torch.float64])


def noise_has_its_variance(device: str) -> str:
    """Check that a population without input has Euler's stationary standard deviation, sigma sqrt(2 / (2 - eta))."""
    case, eta, sigma = make_case("digits-mlp").on(device), 0.1, 0.5
    x = case.x.repeat(64, 1)
    passed = case.network.feedforward(x)
    clamped = torch.zeros_like(passed.activities[case.network.output])
    problem = RelaxationProblem(case.network, passed, clamped, noise=sigma, start="zero")
    drawn = [
        solve(problem, "euler", 200, eta=eta, generator=torch.Generator(device).manual_seed(seed)).final
        for seed in (0, 0, 1)
    ]
    top = case.network.hidden[-1]
    if not torch.equal(drawn[0][top], drawn[1][top]) or torch.equal(drawn[0][top], drawn[2][top]):
        raise AssertionError("the seed does not determine the noise")
    found, expected = float(drawn[0][top].std()), sigma * (2 / (2 - eta)) ** 0.5
    return within(abs(found / expected - 1), 0.03, "the deviation's relative error")


def delays_agree_with_the_cpu(device: str) -> str:
    """Check that relaxations with delayed feedback end as on the CPU."""
    case, ends = make_case("digits-cnn"), []
    for each in (case.on(device), case):
        problem = RelaxationProblem.from_batch(each.network, each.x, each.y, delays=0.3)
        ends.append(dict(solve(problem, "euler", 40, dt=0.1).final))
    return within(difference(*ends), BOUNDS[torch.float64])


def feedback_learns_as_on_the_cpu(device: str) -> str:
    """Check that five batches change forward and feedback weights as on the CPU."""
    largest = 0.0
    for rule in ("learned-feedback", "kolen-pollack"):
        case, ends = make_case("digits-cnn", rule), []
        for each in (case.on(device), case):
            optimiser = torch.optim.SGD(each.network.parameters(), lr=0.1)
            for _ in range(5):
                gradients(rule_named(rule), each)
                optimiser.step()
            ends.append(dict(each.network.named_parameters()))
        if not any(name.endswith("feedback") for name in ends[0]):
            raise AssertionError("no feedback weight learns")
        largest = max(largest, difference(*ends))
    return within(largest, BOUNDS[torch.float64])


def weights_move_during_the_relaxation(device: str) -> str:
    """Check that continuous plasticity changes the weights as on the CPU."""
    case, ends = make_case("digits-mlp"), []
    for each in (case.on(device), case):
        relax_continuously(each.network, each.x, each.y, 20, rate=0.1, eta=0.1)
        ends.append(dict(each.network.named_parameters()))
    return within(difference(*ends), BOUNDS[torch.float64])


def rounding_is_small(device: str, *, precision: str) -> str:
    """Check that gradients with coarser rounding differ from single precision, but have the same direction."""
    least = 1.0
    for name in ("mlp", "digits-cnn"):
        for rule in ("backprop", "ar", "kolen-pollack"):
            case = make_case(name, rule, torch.float32).on(device)
            exact, rounded = gradients(rule_named(rule), case), _rounded(rule, case, device, precision)
            for slot, gradient in exact.items():
                cosine = F.cosine_similarity(gradient.flatten().double(), rounded[slot].flatten().double(), dim=0)
                least = min(least, float(cosine))
    if least == 1:
        raise AssertionError("nothing was rounded")
    return within(1 - least, 1e-3 if precision == "tf32" else 2e-2, "1 - the smallest cosine")


def _rounded(rule: str, case: Case, device: str, precision: str) -> dict[str, Tensor]:
    if precision == "bf16":
        return gradients(in_bfloat16(rule_named(rule)), case)
    try:
        set_up(Hardware(device, precision="tf32").resolved(), seed=0)
    except ActrelaxError as reason:
        raise UnsuitableError(str(reason)) from reason
    try:
        return gradients(rule_named(rule), case)
    finally:
        set_up(Hardware(device).resolved(), seed=0)
