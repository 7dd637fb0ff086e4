"""Code for GPUs, tested without one: no value is read on the host, and no tensor is created on the CPU.

Reading a value makes the host wait for the device. PyTorch's fake tensors have no values, and neither have tensors
on the device "meta", where an operation with one from the CPU is refused as well.
"""

import ast
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.profiler import ProfilerActivity, profile

from actrelax import models
from actrelax.models.assumptions import PRESETS
from actrelax.models.engines import INTEGRATORS
from actrelax.models.learning import (
    BackwardOptions,
    Updates,
    backprop_backward,
    relax_backward,
    relax_continuously,
)
from actrelax.models.network import build
from actrelax.models.problem import dense_targets

NETWORKS = ("digits-mlp", "digits-cnn")
UNCHECKED = BackwardOptions(check_finite=False)


def network_for(name, preset, generator):
    network = build(name, generator=generator)
    network.add_feedback(preset, generator)
    return network, network.populations[network.input].shape


def learn(network, x, y, preset="ar", integrator="sequential", evaluation="auto", **fields):
    """Take one training step with a preset, by SGD with momentum."""
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    if PRESETS[preset].is_continuous:
        relax_continuously(network, x, y, 5, rate=0.1, options=UNCHECKED)
    else:
        updates = Updates(decay=0.1 if PRESETS[preset].needs_decay else None)
        options = BackwardOptions(updates, evaluation=evaluation, check_finite=False)
        relax_backward(network, x, y, integrator=integrator, assumptions=preset, options=options, **fields)
    optimiser.step()


VARIANTS = {
    "stepped": {"evaluation": "stepped", "steps": 5},
    "euler": {"integrator": "euler", "steps": 5},
    "noise": {"integrator": "euler", "noise": 0.1, "steps": 5},
    "delays": {"integrator": "euler", "delays": 0.2, "dt": 0.1, "steps": 5},
    "clip": {"clip": 1.0, "steps": 5},
    "from zero": {"start": "zero"},
    "time constants": {"tau": {"hidden1": 2.0}, "dt": 0.1},
    **{name: {"integrator": name} for name in INTEGRATORS},
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_looks_at_a_value(name, preset, generator):
    network, shape = network_for(name, preset, generator)
    with FakeTensorMode(allow_non_fake_inputs=True):
        learn(network, torch.rand(4, *shape), torch.rand(4, 10), preset)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_relaxation_looks_at_a_value(name, variant, generator):
    network, shape = network_for(name, "ar", generator)
    with FakeTensorMode(allow_non_fake_inputs=True):
        learn(network, torch.rand(4, *shape), torch.rand(4, 10), **VARIANTS[variant])


def test_backprop_does_not_look_at_a_value(generator):
    network, shape = network_for("digits-cnn", "ar", generator)
    with FakeTensorMode(allow_non_fake_inputs=True):
        backprop_backward(network, torch.rand(4, *shape), torch.rand(4, 10))


def test_looking_at_a_value_would_be_noticed(generator):
    network, shape = network_for("digits-mlp", "ar", generator)
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(DataDependentOutputException):
        relax_backward(network, torch.rand(4, *shape), torch.rand(4, 10))  # checks for finite values


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_stay_on_their_device(name, preset, generator):
    network, shape = network_for(name, preset, generator)
    network.to("meta")
    learn(network, torch.rand(4, *shape, device="meta"), torch.arange(4, device="meta"), preset)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_relaxations_stay_on_their_device(name, variant, generator):
    network, shape = network_for(name, "ar", generator)
    network.to("meta")
    learn(network, torch.rand(4, *shape, device="meta"), torch.arange(4, device="meta"), **VARIANTS[variant])


@pytest.mark.parametrize("evaluation", ["auto", "stepped"])
def test_values_follow_where_there_were_none(evaluation, generator):
    """Coefficients for fake tensors are not cached for real ones."""
    network, shape = network_for("digits-mlp", "ar", generator)
    x, y = torch.rand(4, *shape, generator=generator), torch.arange(4)
    with FakeTensorMode(allow_non_fake_inputs=True):
        learn(network, torch.rand(4, *shape), torch.rand(4, 10), evaluation=evaluation, steps=7, eta=0.07)
    network.zero_grad()
    learn(network, x, y, evaluation=evaluation, steps=7, eta=0.07)
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_labels_on_a_gpu_are_checked_without_waiting(monkeypatch):
    asserted = []
    monkeypatch.setattr(torch, "_assert_async", lambda holds, message: asserted.append((holds.device.type, message)))
    with FakeTensorMode():
        output = torch.zeros(4, 10, device="cuda")
        dense_targets(torch.zeros(4, dtype=torch.int64, device="cuda"), (10,), output)
    assert asserted == [("cuda", "labels must lie between 0 and 9")]


def allocated(step):
    """Return the sizes of all allocations by PyTorch during a step."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    sizes = [event.nbytes() for event in memory_events(profiler)]
    return sorted(size for size in sizes if size > 0)


def memory_events(profiler):
    return [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("variant", ["sequential", "equilibrium", "stepped", "noise", "delays"])
def test_each_step_allocates_what_the_last_one_did(name, variant, generator):
    network, shape = network_for(name, "ar", generator)
    x, y = torch.rand(4, *shape, generator=generator), torch.arange(4)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)

    def step():
        optimiser.zero_grad()
        learn(network, x, y, **VARIANTS[variant])

    step()
    second, third = allocated(step), allocated(step)
    assert second == third
    assert sum(second) >= sum(p.numel() * p.element_size() for p in network.parameters())  # the gradients at least


FACTORIES = [
    *("arange", "as_tensor", "asarray", "empty", "eye", "from_numpy", "full", "linspace", "logspace", "ones", "rand"),
    *("randint", "randn", "randperm", "scalar_tensor", "tensor", "zeros"),
]
ON_THE_CPU = {
    # (file, function): reason for using the CPU
    ("network/network.py", "__init__"): "stands for a network without parameters",
    ("network/feedback.py", "drawn_feedback"): "drawn by a generator of the CPU, and moved",
    ("network/architectures.py", "_draw_weights"): "drawn by a generator of the CPU, and copied",
    ("network/architectures.py", "build"): "an example for a module on the CPU",
    ("network/bound_recurrence.py", "_norm"): "drawn by a generator of the CPU, and moved",
    ("network/named_modules.py", "draw"): "drawn by a generator of the CPU, and copied",
    ("network/vision_transformer.py", "__init__"): "parameters, which the module moves",
    ("network/captured/network.py", "blank"): "stands for a module without parameters",
    ("network/captured/tape.py", "__init__"): "makes autograd record drives; it has no values",
    ("network/layers.py", "as_sparse"): "for SciPy",
    ("network/pooling.py", "as_sparse"): "for SciPy",
    ("problem/feedback_transforms.py", "__call__"): "drawn by a generator of the CPU, and moved",
    ("results/trajectory.py", "error"): "a table of numbers",
    ("learning/autograd.py", ""): "stands for a gradient that nobody asked for",
    ("network/from_sequential.py", "check_same_function"): "drawn by a generator of the CPU, and moved",
    ("learning/recipe.py", "checked_recipe"): "stands for a network without parameters",
    ("learning/brian2/learner.py", "*"): "from Brian2's arrays",
    ("engines/sparse_problem.py", "*"): "from SciPy's arrays",
    ("engines/sparse_forward.py", "_drive"): "from SciPy's arrays",
    ("engines/sparse_system.py", "as_tensors"): "from SciPy's arrays, moved",
    ("closed_form/stack.py", "_matrix"): "from NumPy's coefficients, moved once",
    ("results/recording.py", "*"): "what was recorded",
    ("results/zarr_store.py", "*"): "what was recorded",
    ("results/problem_file.py", "_read"): "from a file",
    ("_values.py", "as_values"): "from NumPy's arrays, moved where they are used",
}


def factory_calls():
    """Yield (file, function, line) of each call that creates a tensor without a device."""
    root = Path(models.__file__).parent
    for path in sorted(root.rglob("*.py")):
        tree, file = ast.parse(path.read_text()), path.relative_to(root).as_posix()
        owner = {
            inner: node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FACTORIES
            if not named or ast.unparse(node.func.value) != "torch":
                continue
            if not any(keyword.arg == "device" for keyword in node.keywords):
                yield file, owner.get(node, ""), node.lineno


def test_tensors_are_made_on_a_device_that_is_named():
    """Without a device, tensors are created on the CPU, where a network on a GPU can't use them."""
    calls = list(factory_calls())
    unknown = [call for call in calls if not {call[:2], (call[0], "*")} & ON_THE_CPU.keys()]
    assert not unknown
    there = {call[:2] for call in calls} | {(call[0], "*") for call in calls}
    assert ON_THE_CPU.keys() <= there, "remove the entries that no call needs any more"
