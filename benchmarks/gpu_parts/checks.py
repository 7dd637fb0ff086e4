"""Checks of a device: agreement with the CPU, no waiting, exact resuming.

A check returns its finding as text, or raises an exception. It needs no test runner, which a bare machine lacks.
"""

from __future__ import annotations

import copy
import gc
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actrelax.models.assumptions import PRESETS
from actrelax.models.closed_form import why_not
from actrelax.models.engines import INTEGRATORS, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import (
    ActivationRelaxation,
    BackwardOptions,
    Rule,
    Updates,
    activity_gradients,
    backprop_backward,
    relax_backward,
    relax_continuously,
)
from actrelax.models.learning.trace import Traced
from actrelax.models.network import Network, build
from actrelax.models.problem import RelaxationProblem
from actrelax.simulations.costs.images import random_images
from actrelax.simulations.costs.timing import Stepper
from actrelax.simulations.training.assemble import assemble, on_device, set_up
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Model, Optimisation
from actrelax.simulations.training.hardware import Hardware
from actrelax.simulations.training.loop import Callback, Training, train
from actrelax.simulations.training.mixed_precision import in_bfloat16
from actrelax.simulations.training.relaxation import Relaxation
from gpu_parts.items import Item, Options, Rows, UnsuitableError

NETWORKS = ("digits-mlp", "digits-cnn")
RULES = ("backprop", *(name for name, preset in PRESETS.items() if not preset.is_continuous))
UNCHECKED = BackwardOptions(check_finite=False)
BOUNDS = {torch.float32: 1e-4, torch.float64: 1e-10}
"""Largest difference from the CPU, relative to the largest entry of a tensor."""


def items(options: Options) -> list[Item]:
    """Return all checks, the quick and fundamental ones first."""
    checks: list[Callable[[str], str]] = [
        results_stay_on_the_device,
        partial(rules_agree_with_the_cpu, dtype=torch.float64),
        partial(rules_agree_with_the_cpu, dtype=torch.float32),
        relaxations_agree_with_the_cpu,
        equilibrium_is_backprop,
        front_door_is_backprop,
        noise_has_its_variance,
        delays_agree_with_the_cpu,
        feedback_learns_as_on_the_cpu,
        weights_move_during_the_relaxation,
        resumed_bit_for_bit,
        steps_do_not_wait,
        steps_keep_no_memory,
        labels_out_of_range_are_refused,
        partial(rounding_is_small, precision="tf32"),
        partial(rounding_is_small, precision="bf16"),
        compiled_rules_agree,
        compiled_front_door_agrees,
    ]
    set_up(Hardware(options.device).resolved(), seed=0)
    return [Item(_title(check), partial(_rows, check, options.device)) for check in checks]


def _title(check: Callable[[str], str]) -> str:
    if isinstance(check, partial):
        return (
            f"{_title(check.func)}, {', '.join(str(value).removeprefix('torch.') for value in check.keywords.values())}"
        )
    return check.__name__.replace("_", " ")


def _rows(check: Callable[[str], str], device: str) -> Rows:
    return [{"found": check(device)}]


@dataclass(frozen=True)
class Case:
    """Network with the feedback weights of a rule, and a batch of 16."""

    network: Network
    x: Tensor
    y: Tensor

    def on(self, device: str) -> Case:
        """Return a copy of the case on a device."""
        return Case(copy.deepcopy(self.network).to(device), self.x.to(device), self.y.to(device))


def make_case(name: str, rule: str = "ar", dtype: torch.dtype = torch.float64) -> Case:
    """Draw a network and a batch, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    network = build(name, generator=generator).to(dtype)
    if rule != "backprop":
        network.add_feedback(rule, generator)
    shape = network.populations[network.input].shape
    x = torch.rand(16, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return Case(network, x, torch.arange(16) % 10)


def rule_named(name: str, integrator: str = "sequential", **fields: object) -> Rule:
    """Return a rule that reads no tensor values: backprop, or 20 steps of a preset of AR."""
    if name == "backprop":
        return backprop_backward
    options = replace(UNCHECKED, updates=Updates(decay=0.1 if PRESETS[name].needs_decay else None))
    return partial(
        relax_backward, steps=20, eta=0.1, assumptions=name, integrator=integrator, options=options, **fields
    )


def gradients(rule: Rule, case: Case) -> dict[str, Tensor]:
    """Return the gradients of a rule, by parameter."""
    case.network.zero_grad()
    rule(case.network, case.x, case.y)
    return {name: p.grad for name, p in case.network.named_parameters() if p.grad is not None}


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the largest difference of tensors, relative to each tensor's largest entry."""
    if found.keys() != expected.keys():
        raise AssertionError(f"got {sorted(found)}, expected {sorted(expected)}")
    pairs = ((found[name].detach().cpu().double(), expected[name].detach().cpu().double()) for name in found)
    return max(float((one - other).abs().max() / other.abs().max().clamp(min=1e-30)) for one, other in pairs)


def within(found: float, bound: float, what: str = "the largest difference") -> str:
    """Return the finding as text, or raise an error if it exceeds the bound or is nan."""
    if not found <= bound:
        raise AssertionError(f"{what} is {found:.1e}, more than {bound:.0e}")
    return f"{what}: {found:.1e}"


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


def resumed_bit_for_bit(device: str) -> str:
    """Check that a training saved after an epoch, and resumed, ends with exactly the same weights."""
    saved = BytesIO()

    class Save(Callback):
        def on_epoch(self, training: Training) -> None:
            if training.epoch == 1:
                torch.save(training.state_dict(), saved)

    whole = _training(Experiment(epochs=2, model=Model("digits-cnn")), device)
    train(whole, [Save()])
    resumed = _training(Experiment(epochs=2, model=Model("digits-cnn")), device)
    saved.seek(0)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    train(resumed)
    pairs = zip(whole.network.state_dict().values(), resumed.network.state_dict().values(), strict=True)
    if not all(torch.equal(one, other) for one, other in pairs):
        raise AssertionError("the weights differ")
    return f"{sum(p.numel() for p in whole.network.parameters())} weights"


def _training(experiment: Experiment, device: str, compile_: str = "auto") -> Training:
    execution = Execution(device, compile=compile_).resolved(experiment)  # type: ignore[arg-type]
    data = random_images((1, 8, 8), 10, 8 * experiment.batch_size)
    return assemble(experiment, execution, data=on_device(data, execution.hardware(experiment.precision))).training


def _experiments() -> Iterator[Experiment]:
    """Yield experiments with all rules and evaluations, another optimiser and another precision."""
    base = Experiment(batch_size=16, model=Model("digits-cnn"))
    yield replace(base, rule="backprop")
    for name, preset in PRESETS.items():
        relaxation = Relaxation(assumptions=name, steps=20)
        decay = 0.1 if preset.needs_decay else None
        yield replace(base, relaxation=relaxation, optimisation=Optimisation(decay=decay))
    yield replace(base, relaxation=Relaxation(integrator="equilibrium"))
    yield replace(base, relaxation=Relaxation(steps=20), evaluation="stepped")
    yield replace(base, optimisation=Optimisation("adam", lr=0.001, schedule="cosine"))
    yield replace(base, precision="bf16")


def steps_do_not_wait(device: str) -> str:
    """Check that training steps, from stored images to updated weights, never wait for the device."""
    experiments = list(_experiments())
    for experiment in experiments:
        for compile_ in ("auto", "no") if experiment.relaxation == Relaxation() else ("auto",):
            stepper = Stepper(_training(experiment, device, compile_))
            stepper.step()  # coefficients are copied to the device once
            with _waits_forbidden(device):
                stepper.step()
                stepper.step()
    return f"{len(experiments)} experiments{'' if device.startswith('cuda') else ' (waiting is detected on CUDA only)'}"


@contextmanager
def _waits_forbidden(device: str) -> Iterator[None]:
    """Make PyTorch raise an error if it waits for the device, on CUDA only."""
    if not device.startswith("cuda"):
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def steps_keep_no_memory(device: str) -> str:
    """Check that training steps keep no memory."""
    if not device.startswith("cuda"):
        raise UnsuitableError("allocations are counted on CUDA only (a test of the package counts them on the CPU).")
    for experiment in _experiments():
        gc.collect()  # earlier trainings are in reference cycles
        stepper, held = Stepper(_training(experiment, device)), []
        for _ in range(5):
            stepper.step()
            held.append(torch.cuda.memory_allocated(device))
        if held[-1] > held[2]:
            raise AssertionError(f"{experiment.relaxation.assumptions}: bytes after each step: {held}")
    return "no more after step 5 than after step 3"


def labels_out_of_range_are_refused(device: str) -> str:
    """Check that a label out of range stops the process with a message; on a GPU it makes the process unusable."""
    code = f"import gpu; from gpu_parts.checks import learn_from_bad_labels; learn_from_bad_labels({device!r})"
    folder = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode == 0:
        raise AssertionError("the batch was accepted")
    if "labels must lie between 0 and 9" not in done.stderr + done.stdout:
        raise AssertionError(f"the message does not name labels: {done.stderr.strip().splitlines()[-1:]}")
    return "refused with a message"


def learn_from_bad_labels(device: str) -> None:
    """Learn from a batch with the label 10 for ten classes, and wait for the device."""
    case = make_case("digits-mlp").on(device)
    case.y[3] = 10
    print(float(relax_backward(case.network, case.x, case.y, options=UNCHECKED).loss))


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


def compiled_rules_agree(device: str) -> str:
    """Check that a rule compiled with mode="reduce-overhead", which uses CUDA graphs, computes the eager gradients."""
    _require_compiler(device)
    largest = 0.0
    for rule in ("backprop", "ar"):
        case = make_case("digits-mlp", rule, torch.float32).on(device)
        eager = gradients(rule_named(rule), case)
        compiled = Traced(rule_named(rule), lambda kernels, x, y: torch.compile(kernels, mode="reduce-overhead"))
        largest = max(largest, difference(_replayed(lambda: gradients(compiled, case), device), eager))  # noqa: B023
    return within(largest, BOUNDS[torch.float32])


def compiled_front_door_agrees(device: str) -> str:
    """Check that a compiled `ActivationRelaxation` computes the eager gradients."""
    _require_compiler(device)
    case = make_case("digits-mlp", dtype=torch.float32).on(device)
    relaxing = ActivationRelaxation(case.network, integrator="equilibrium", options=UNCHECKED)
    compiled = torch.compile(relaxing, mode="reduce-overhead")

    def left(model: nn.Module) -> dict[str, Tensor]:
        case.network.zero_grad()
        F.cross_entropy(model(case.x), case.y).backward()
        return {name: p.grad.clone() for name, p in case.network.named_parameters() if p.grad is not None}

    eager = left(relaxing)
    return within(difference(_replayed(lambda: left(compiled), device), eager), BOUNDS[torch.float32])  # type: ignore[arg-type]


def _replayed(step: Callable[[], dict[str, Tensor]], device: str) -> dict[str, Tensor]:
    """Return the result of the fourth call, which must not wait; earlier calls warm up and record a CUDA graph."""
    skipped = torch._dynamo.utils.counters["inductor"]
    before = skipped["cudagraph_skips"]
    for _ in range(3):
        step()
    with _waits_forbidden(device):
        found = step()
    if device.startswith("cuda") and skipped["cudagraph_skips"] > before:
        raise AssertionError("CUDA graphs were skipped")
    return found


def _require_compiler(device: str) -> None:
    """Raise an `UnsuitableError` if there is no C compiler."""
    if shutil.which("gcc") is None and shutil.which("cc") is None and shutil.which("clang") is None:
        raise UnsuitableError("torch.compile needs a C compiler.")
