"""Networks, batches and rules that checks on a device share, and how results are compared."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from actrelax.models.assumptions import PRESETS
from actrelax.models.learning import (
    BackwardOptions,
    Rule,
    Updates,
    backprop_backward,
    relax_backward,
)
from actrelax.models.network import Network, build

NETWORKS = ("digits-mlp", "digits-cnn")
RULES = ("backprop", *(name for name, preset in PRESETS.items() if not preset.is_continuous))
UNCHECKED = BackwardOptions(check_finite=False)
BOUNDS = {torch.float32: 1e-4, torch.float64: 1e-10}
"""Largest difference from the CPU, relative to the largest entry of a tensor."""


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
