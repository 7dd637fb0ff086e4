"""Modules of tests/modules.py: attention, and what takes the place of it."""

import torch
import torch.nn.functional as F
from torch import nn


class Multihead(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.attend = nn.LayerNorm(6), nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        y = self.norm(x)
        x = x + self.attend(y, y, y, need_weights=False)[0]
        return self.head(x.mean(1))


def transformer():
    layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.1, activation="gelu", batch_first=True, norm_first=True)
    return nn.Sequential(nn.Linear(6, 6), layer, nn.Flatten(), nn.Linear(30, 3))


class ScaledDotProduct(nn.Module):
    """Causal attention with one weight for queries, keys and values."""

    def __init__(self):
        super().__init__()
        self.stem, self.qkv, self.out, self.head = nn.Linear(6, 8), nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head((x + self.out(y.transpose(1, 2).flatten(2)))[:, -1])


class Einsum(nn.Module):
    """Attention written out; products of two tensors that both depend on the stimulus stay inside a piece."""

    def __init__(self):
        super().__init__()
        self.query, self.key = nn.Parameter(torch.randn(6, 2, 3)), nn.Parameter(torch.randn(6, 2, 3))
        self.value, self.out = nn.Parameter(torch.randn(6, 6)), nn.Parameter(torch.randn(2, 3, 5))
        self.heads, self.bias = nn.Parameter(torch.randn(5, 5, 3)), nn.Parameter(torch.randn(3))

    def forward(self, x):
        q, k = (torch.einsum("btc,chd->bhtd", x, w) for w in (self.query, self.key))
        v = (x @ self.value).unflatten(-1, (2, 3)).transpose(1, 2)
        weights = torch.softmax(q @ k.mT / 3**0.5, -1)
        x = torch.einsum("bhtd,hdc->btc", torch.einsum("bhts,bhsd->bhtd", weights, v), self.out)
        x = torch.bmm(torch.tanh(x).transpose(0, 1), self.heads)  # a weight for each place in the sequence
        return torch.addmm(self.bias, torch.tanh(x.sum(0)), torch.eye(3).mul(self.bias)) + x.mean(0)


class ClassToken(nn.Module):
    """A vision transformer of one block."""

    def __init__(self):
        super().__init__()
        self.patches, self.token = nn.Conv2d(2, 6, 3, stride=3), nn.Parameter(torch.zeros(1, 1, 6))
        self.places = nn.Parameter(torch.zeros(1, 5, 6))
        self.norm1, self.qkv, self.out = nn.LayerNorm(6), nn.Linear(6, 18), nn.Linear(6, 6)
        self.norm2, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 8), nn.Linear(8, 6)
        self.scale, self.head = nn.Parameter(torch.ones(6)), nn.Linear(6, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.scale * self.out(F.scaled_dot_product_attention(q, k, v))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x[:, 0])


class LearnedQuery(nn.Module):
    """Two queries that are parameters; a weight reads them."""

    def __init__(self):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(2, 6))
        self.query, self.key, self.value = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(6, 4)
        self.mix, self.head = nn.Linear(4, 6), nn.Linear(12, 3)

    def forward(self, x):
        latents = torch.tanh(self.latents)
        q = self.query(latents).expand(len(x), -1, -1)
        y = F.scaled_dot_product_attention(q, self.key(x), self.value(x))
        return self.head((latents + self.mix(torch.tanh(y))).flatten(1))


class LinearAttention(nn.Module):
    """Keys, queries and a gate are functions of the stimulus itself, so no drive lies between it and q k^T v."""

    def __init__(self):
        super().__init__()
        self.value, self.norm, self.head = nn.Linear(6, 6), nn.LayerNorm(6, elementwise_affine=False), nn.Linear(6, 3)

    def forward(self, x):
        q, k = F.elu(x) + 1, F.elu(x.flip(-1)) + 1
        y = q @ (k.mT @ self.value(x)) / (q @ k.sum(1, keepdim=True).mT)
        z = self.norm(y)
        return self.head((z * torch.sigmoid(q) @ z.mT @ y).mean(1))


class Shifted(nn.Module):
    """RWKV's mixing: each of three weights reads its own mixture of a sequence and its shifted copy."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Linear(6, 5), nn.LayerNorm(5)
        self.mix = nn.ParameterList(nn.Parameter(torch.rand(5)) for _ in range(3))
        self.gate, self.key, self.value = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(5, 4)
        self.out, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(x)
        shifted = F.pad(y, (0, 0, 1, -1))
        gate, key, value = (m(y * w + shifted * (1 - w)) for m, w in zip(
            (self.gate, self.key, self.value), self.mix, strict=True))  # fmt: skip
        decayed = torch.cumsum(torch.exp(key.clamp(max=2)) * value, 1)
        x = x + self.out(torch.sigmoid(gate) * decayed)
        return self.head((x + F.pad(x, (0, 0, 1, -1)) * shifted).mean(1))
