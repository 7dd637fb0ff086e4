"""Modules by name have the published sizes, and weights that a seed fixes."""

import math

import pytest
import torch
from torch import nn

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.activations import ACTIVATIONS
from actrelax.models.network.named_modules import MODULES, Design, build_module


def size(name, **options):
    return sum(p.numel() for p in build_module(name, generator=0, **options).parameters())


def test_published_numbers_of_parameters():
    # He et al. 2016, table 6: 0.27 M and 0.46 M; 11,173,962 for ResNet-18 on 32 x 32 images of 10 classes
    assert [round(size(f"resnet-{depth}") / 1e6, 2) for depth in (20, 32)] == [0.27, 0.46]
    assert size("resnet18") == 11_173_962
    assert size("resnet-20", design=Design(skips="no")) == size("resnet-20", design=Design(norm="group"))


@pytest.mark.parametrize("name", MODULES)
def test_scale_of_the_weights_and_images(name, generator):
    architecture = MODULES[name]
    module = build_module(name, generator=generator)
    weights = [part.weight.detach() for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    if "-resnet-" in f"-{name}":
        assert len(weights) == int(name.rpartition("-")[2])
    for weight in weights:
        gain = 2 if "resnet" in name and weight.dim() == 4 else 1
        expected = math.sqrt(gain / weight[0].numel())
        assert float(weight.std()) == pytest.approx(expected, rel=5 / math.sqrt(weight.numel()))
    assert not any(part.bias.any() for part in module.modules() if getattr(part, "bias", None) is not None)
    assert module(torch.randn(2, *architecture.input_shape, generator=generator)).shape == (2, 10)


def test_options(generator):
    module = build_module("digits-resnet-14", design=Design(4, "no", "group"), activation="tanh", weight_std=0.0)
    assert [stage[0].conv1.out_channels for stage in module.stages] == [4, 8, 16]
    assert all(block.shortcut is None for stage in module.stages for block in stage)
    assert type(module.norm) is nn.GroupNorm
    assert module.activation is ACTIVATIONS["tanh"]
    assert not any(part.weight.any() for part in module.modules() if isinstance(part, nn.Conv2d))
    scaled = build_module("digits-resnet-14", design=Design(norm="scaled"))
    assert float(scaled.stages[0][0].scale.detach()) == pytest.approx(6**-0.5)
    assert build_module("vit", design=Design(width=16), input_shape=(1, 8, 8), classes=3)(
        torch.zeros(2, 1, 8, 8)
    ).shape == (2, 3)


def test_a_seed_means_the_same_in_every_precision_and_leaves_torchs_generator():
    before = torch.get_rng_state()
    double = build_module("digits-vit", generator=3)
    assert torch.equal(before, torch.get_rng_state())
    torch.set_default_dtype(torch.float32)
    single = build_module("digits-vit", generator=3)
    pairs = zip(single.parameters(), double.parameters(), strict=True)
    assert all(torch.equal(p, q.float()) for p, q in pairs)
    torch.manual_seed(4)
    first = build_module("digits-vit").head.weight
    assert not torch.equal(first, build_module("digits-vit").head.weight)
    torch.manual_seed(4)
    assert torch.equal(first, build_module("digits-vit").head.weight)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: build_module("resnet-9"), r"^unknown network 'resnet-9'; known: digits-resnet-8, .*, vit\.$"),
        (lambda: build_module("vit", design=Design(norm="batch")), r"^vit has no norm to choose: leave it out\.$"),
        (lambda: build_module("vit", design=Design(skips="no")), r"^vit has no skips to choose: leave it out\.$"),
        (lambda: build_module("vit", design=Design(width=30)), r"^vit needs a width that is a multiple of 4, .* 30\.$"),
        (lambda: build_module("vit", input_shape=(3, 30, 32)), r"multiples of 4, got shape \(3, 30, 32\)\.$"),
        (lambda: build_module("resnet-8", input_shape=(64,)), r"^resnet-8 takes images .* got shape \(64,\)\.$"),
        (lambda: Design(width=0), r"^width must be 1 or more, got 0\.$"),
        (lambda: Design(norm="layer"), r"^unknown norm 'layer'; known: batch, group, scaled\.$"),
        (lambda: Design(skips="maybe"), r"^unknown skips 'maybe'; known: yes, no\.$"),
        (lambda: Design(norm="scaled", skips="no"), r"use another norm, or keep the skips\.$"),
    ],
)
def test_what_is_refused(call, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        call()
