"""Residual networks compute what the paper's equations say."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from actrelax.models.network.residual import Block, Blocks, PaddedCopy, ResNet


def blocks(norm="batch", skips=True, is_padded=True):
    return Blocks(norm, skips, is_padded, 0.5, torch.tanh)


@pytest.mark.parametrize("norm", ["batch", "group", "scaled"])
@pytest.mark.parametrize("skips", [True, False])
def test_a_block_is_two_convolutions_and_the_way_past_them(norm, skips, generator):
    block = Block(blocks(norm, skips), 3, 4, 2)
    x = torch.randn(5, 3, 6, 6, generator=generator)
    plain = nn.Sequential(block.conv1, block.norm1, nn.Tanh(), block.conv2, block.norm2)
    expected = plain(x) * (0.5 if norm == "scaled" and skips else 1)
    if skips:
        past = torch.zeros_like(expected)
        past[:, :3] = x[:, :, [0, 2, 4]][..., [0, 2, 4]]
        expected = expected + past
    assert torch.equal(block(x), expected.tanh())
    kinds = {"batch": nn.BatchNorm2d, "group": nn.GroupNorm, "scaled": nn.Identity}
    assert type(block.norm1) is kinds[norm]
    assert (block.conv1.bias is None) == (norm != "scaled")
    assert (block.scale is not None) == (norm == "scaled" and skips)


def test_a_skip_between_stages_may_have_weights(generator):
    block = Block(blocks(is_padded=False), 3, 4, 2)
    x = torch.randn(5, 3, 6, 6, generator=generator)
    conv, norm = block.shortcut
    past = F.batch_norm(F.conv2d(x, conv.weight, stride=2), None, None, norm.weight, norm.bias, training=True)
    branch = nn.Sequential(block.conv1, block.norm1, nn.Tanh(), block.conv2, block.norm2)(x)
    torch.testing.assert_close(block(x), (branch + past).tanh(), rtol=0, atol=1e-14)
    assert type(Block(blocks(is_padded=False), 4, 4, 1).shortcut) is nn.Identity


def test_a_padded_copy_keeps_every_second_pixel():
    x = torch.arange(32.0).view(1, 2, 4, 4)
    y = PaddedCopy(3, 2)(x)
    assert y.shape == (1, 5, 2, 2)
    assert y[0, 1].tolist() == [[16, 18], [24, 26]]
    assert not y[0, 2:].any()


def test_stages_halve_the_image():
    network = ResNet(2, 3, [1, 2], [4, 6], blocks())
    seen = []
    for stage in network.stages:
        stage.register_forward_hook(lambda stage, args, result: seen.append(tuple(result.shape)))
    assert network(torch.randn(2, 2, 8, 8)).shape == (2, 3)
    assert seen == [(2, 4, 8, 8), (2, 6, 4, 4)]
    assert [len(stage) for stage in network.stages] == [1, 2]


def test_groups_divide_the_channels():
    assert [blocks("group").norm_of(channels).num_groups for channels in (16, 12, 6, 5)] == [8, 4, 2, 1]
