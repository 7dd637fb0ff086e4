"""Checks of a device: agreement with the CPU, no waiting, exact resuming.

A check returns its finding as text, or raises an exception. It needs no test runner, which a bare machine lacks.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from actrelax.models.learning import relax_backward
from actrelax.simulations.training.assemble import set_up
from actrelax.simulations.training.hardware import Hardware
from gpu_parts.cases import UNCHECKED, make_case
from gpu_parts.items import Item, Options, Rows
from gpu_parts.result_checks import (
    delays_agree_with_the_cpu,
    equilibrium_is_backprop,
    feedback_learns_as_on_the_cpu,
    front_door_is_backprop,
    noise_has_its_variance,
    relaxations_agree_with_the_cpu,
    results_stay_on_the_device,
    rounding_is_small,
    rules_agree_with_the_cpu,
    weights_move_during_the_relaxation,
)
from gpu_parts.step_checks import (
    compiled_front_door_agrees,
    compiled_rules_agree,
    resumed_bit_for_bit,
    steps_do_not_wait,
    steps_keep_no_memory,
)


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
