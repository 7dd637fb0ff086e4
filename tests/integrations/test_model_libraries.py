"""A model of timm and one of transformers, with random weights, learn a step as they do by autograd."""

import copy

import pytest
import torch
import torch.nn.functional as F

from actrelax import ActivationRelaxation
from actrelax.models.results import relative_error

pytestmark = pytest.mark.filterwarnings("ignore")


def assert_learns(module, x, y, output=lambda result: result):
    """A step of SGD by the front door ends where autograd's does; the loss is lower after it."""
    twin, losses = copy.deepcopy(module), []
    model = ActivationRelaxation(module, example=x, output=output)
    for each, call in ((module, model), (twin, lambda x: output(twin(x)))):
        optimiser = torch.optim.SGD(each.parameters(), lr=0.01)
        for _ in range(2):
            optimiser.zero_grad()
            loss = F.cross_entropy(call(x), y)
            loss.backward()
            losses.append(float(loss))
            optimiser.step()
    assert losses[:2] == pytest.approx(losses[2:], rel=1e-9)
    assert losses[1] < losses[0]
    largest = max(float(p.grad.abs().max()) for p in twin.parameters() if p.grad is not None)
    for (name, p), q in zip(module.named_parameters(), twin.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        assert q.grad is None or float((p.grad - q.grad).abs().max()) < 1e-9 * max(largest, float(q.grad.abs().max()))
    for (name, a), b in zip(module.named_buffers(), twin.buffers(), strict=True):
        assert not a.is_floating_point() or relative_error(a, b) < 1e-9, name


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
def test_timm(name):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=5, pretrained=False).double()
    size = module.default_cfg["input_size"] if hasattr(module, "default_cfg") else (3, 160, 160)
    assert_learns(module.train(), torch.randn(3, *size), torch.tensor([0, 3, 1]))


def test_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 12, "vocab_size": 30}
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "use_cache": False}
    module = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **off)).double().train()
    tokens = torch.randint(30, (3, 12))
    assert_learns(module, tokens, tokens[:, -1], lambda result: result.logits[:, -2])
