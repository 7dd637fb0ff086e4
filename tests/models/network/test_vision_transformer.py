"""The vision transformer computes what PyTorch's own layers do with the same weights."""

import torch
from torch import nn

from actrelax.models.network.vision_transformer import TransformerBlock, VisionTransformer


def test_a_block_is_pytorchs_encoder_layer(generator):
    block = TransformerBlock(8, torch.tanh)
    other = nn.TransformerEncoderLayer(8, 4, 16, 0.0, torch.tanh, batch_first=True, norm_first=True)
    pairs = {
        other.self_attn.in_proj_weight: block.qkv.weight,
        other.self_attn.in_proj_bias: block.qkv.bias,
        other.self_attn.out_proj.weight: block.out.weight,
        other.self_attn.out_proj.bias: block.out.bias,
        other.linear1.weight: block.up.weight,
        other.linear1.bias: block.up.bias,
        other.linear2.weight: block.down.weight,
        other.linear2.bias: block.down.bias,
    }
    with torch.no_grad():
        for theirs, ours in pairs.items():
            theirs.copy_(ours.normal_(generator=generator))
    x = torch.randn(3, 5, 8, generator=generator)
    torch.testing.assert_close(block(x), other(x), rtol=1e-12, atol=1e-12)


def test_patches_become_tokens_behind_the_class_token(generator):
    network = VisionTransformer((2, 4, 6), 3, patch=2, width=8, depth=1, activation=torch.tanh)
    with torch.no_grad():
        network.class_token.normal_(generator=generator)
        network.places.normal_(generator=generator)
    x = torch.randn(5, 2, 4, 6, generator=generator)
    seen = []
    network.blocks[0].register_forward_pre_hook(lambda block, args: seen.append(args[0]))
    assert network(x).shape == (5, 3)
    (tokens,) = seen
    assert tokens.shape == (5, 7, 8)
    assert torch.equal(tokens[:, 0], (network.class_token + network.places[:, :1])[:, 0].expand(5, -1))
    # the fifth patch is the second row's second
    patch = torch.einsum("bcij,ocij->bo", x[:, :, 2:4, 2:4], network.patches.weight) + network.patches.bias
    torch.testing.assert_close(tokens[:, 5], patch + network.places[0, 5], rtol=0, atol=1e-13)
