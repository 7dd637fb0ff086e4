"""`ActivationRelaxation` under `torch.compile`: one graph per pass."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from actrelax import ActivationRelaxation, BackwardOptions, Steps
from actrelax.models.results import relative_error


@pytest.mark.parametrize("preset", ["ar", "learned-feedback"])
@pytest.mark.parametrize("steps", [Steps(12, eta=0.2), Steps.until(1e-6)])
def test_compiled_without_a_graph_break(preset, steps):
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 16), nn.Tanh(), nn.Linear(16, 10)
    )
    x, y = torch.randn(6, 1, 8, 8), torch.arange(6)
    options = BackwardOptions(generator=torch.Generator().manual_seed(1))
    model = ActivationRelaxation(layers, input_shape=(1, 8, 8), assumptions=preset, steps=steps, options=options)

    def gradients(function):
        model.zero_grad()
        F.cross_entropy(function(x), y).backward()
        return [p.grad.clone() for p in model.parameters()]

    expected = gradients(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        for found, exact in zip(gradients(compiled), expected, strict=True):
            assert relative_error(found, exact) < 1e-12
    # fake tensors from tracing must not stay in a cache
    assert all(torch.equal(*pair) for pair in zip(gradients(model), expected, strict=True))


def test_the_scale_of_the_loss_is_no_constant():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3))
    x, y = torch.randn(6, 8), torch.arange(6) % 3
    model = ActivationRelaxation(layers, input_shape=(8,), steps=Steps(12, eta=0.2))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    found = []
    for scale in (1.0, 16.0, 1 / 3, torch.tensor(5.0)):
        model.loss_scale = scale
        model.zero_grad()
        (scale * F.cross_entropy(compiled(x), y)).backward()
        found.append(layers[0].weight.grad / scale)
    assert all(relative_error(each, found[0]) < 1e-12 for each in found)


@pytest.mark.parametrize(
    "options", [{"assumptions": "unfrozen"}, {"steps": Steps.until(1e-3, of="gradient")}, {"clip": 0.1}]
)
def test_what_reads_values_runs_as_it_is(options):
    """Fake tensors have no values, so with fullgraph=True reading them is an error."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3))
    x, y = torch.randn(6, 8), torch.arange(6) % 3
    model = ActivationRelaxation(layers, input_shape=(8,), **options)
    F.cross_entropy(model(x), y).backward()
    expected = layers[0].weight.grad.clone()
    model.zero_grad()
    F.cross_entropy(torch.compile(model, backend="aot_eager")(x), y).backward()
    assert torch.equal(layers[0].weight.grad, expected)
    torch.compiler.reset()
    with pytest.raises(Exception, match="the number of steps depends on activities"):
        torch.compile(model, backend="aot_eager", fullgraph=True)(x)
