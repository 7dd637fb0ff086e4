"""Checks of training steps on a device: none waits, keeps memory, or depends on being compiled."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actrelax.models.assumptions import PRESETS
from actrelax.models.learning import ActivationRelaxation
from actrelax.models.learning.trace import Traced
from actrelax.simulations.costs.images import random_images
from actrelax.simulations.costs.timing import Stepper
from actrelax.simulations.training.assemble import assemble, on_device
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Model, Optimisation
from actrelax.simulations.training.loop import Callback, train
from actrelax.simulations.training.relaxation import Relaxation
from actrelax.simulations.training.state import Training
from gpu_parts.cases import (
    BOUNDS,
    UNCHECKED,
    difference,
    gradients,
    make_case,
    rule_named,
    within,
)
from gpu_parts.items import UnsuitableError


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
