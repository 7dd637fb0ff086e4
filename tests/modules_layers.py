"""Modules of tests/modules.py: normalisation, residual, dense and U-shaped nets, and every kind of weighted layer."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune


def batch_norm_mlp():
    return nn.Sequential(
        nn.Linear(6, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 5, bias=False), nn.BatchNorm1d(5), nn.ReLU(),
        nn.Linear(5, 3),
    )  # fmt: skip


def layer_norm_mlp():
    return nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 7), nn.GELU(), nn.LayerNorm(7), nn.Linear(7, 5), nn.SiLU(),
                         nn.Linear(5, 3))  # fmt: skip


class Residual(nn.Module):
    """Two blocks with BatchNorm and in-place additions; the second with strides and a weighted skip."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.conv1, self.norm1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 5, 3, stride=2, padding=1), nn.BatchNorm2d(5)
        self.skip = nn.Sequential(nn.Conv2d(4, 5, 1, stride=2), nn.BatchNorm2d(5))
        self.head = nn.Linear(5, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.stem(x))
        y = self.norm1(self.conv1(x))
        y += x
        x = self.relu(y)
        y = self.norm2(self.conv2(x))
        y += self.skip(x)
        return self.head(self.relu(y).mean((2, 3)))


class PreActivation(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.norm1, self.conv1 = nn.GroupNorm(2, 4), nn.Conv2d(4, 6, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(3, 6), nn.Conv2d(6, 4, 3, padding=1)
        self.norm3, self.head = nn.GroupNorm(1, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return self.head(F.adaptive_avg_pool2d(F.silu(self.norm3(x)), 1).flatten(1))


class DenselyConnected(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(5, 4, 3, padding=1)
        self.squeeze, self.head = nn.Conv2d(9, 4, 1), nn.Linear(8, 3)

    def forward(self, x):
        x = torch.cat([x, torch.tanh(self.conv1(x))], 1)
        x = torch.cat([x, torch.tanh(self.conv2(x))], 1)
        x = F.relu(self.squeeze(F.avg_pool2d(x, 2)))
        return self.head(torch.cat([F.max_pool2d(x, 3), x.mean((2, 3), keepdim=True)], 1).flatten(1))


class UShape(nn.Module):
    """An image per image: two levels, joined by a skip."""

    def __init__(self):
        super().__init__()
        self.down, self.norm = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.middle = nn.Conv2d(3, 5, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(5, 3, 2, stride=2), nn.Conv2d(6, 1, 3, padding=1)

    def forward(self, x):
        left = F.leaky_relu(self.norm(self.down(x)), 0.1)
        right = self.up(torch.tanh(self.middle(F.max_pool2d(left, 2))))
        return self.out(torch.cat([left, F.relu(right)], 1))


def pooled():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 5), nn.Softplus(), nn.Linear(5, 3)
    )


def conv1d():
    return nn.Sequential(
        nn.Conv1d(5, 6, 3, padding=1, padding_mode="circular"), nn.GLU(dim=1), nn.Conv1d(3, 4, 2, dilation=2), nn.ELU(),
        nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


def conv3d():
    return nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.GELU(), nn.MaxPool3d(2), nn.Conv3d(3, 2, 2), nn.Flatten(),
                         nn.Tanh(), nn.Linear(2, 3))  # fmt: skip


class Transposed(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.ConvTranspose1d(5, 4, 3, stride=2, padding=1, output_padding=1)
        self.two = nn.ConvTranspose2d(2, 4, 3, dilation=(1, 2), groups=2)
        self.three = nn.ConvTranspose3d(1, 2, 2, bias=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.tanh(self.one(x)).view(len(x), 2, 4, 6)
        x = torch.tanh(self.two(x)).unsqueeze(1)
        return self.head(torch.tanh(self.three(x)).mean((3, 4)).amax(2).repeat(1, 2))


class SqueezeExcitation(nn.Module):
    """A block of an EfficientNet."""

    def __init__(self):
        super().__init__()
        self.expand, self.norm = nn.Conv2d(2, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4)
        self.squeeze, self.excite = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)
        self.project, self.head = nn.Conv2d(4, 3, 1), nn.Linear(3, 3)

    def forward(self, x):
        x = F.hardswish(self.depthwise(F.silu(self.norm(self.expand(x)))))
        x = x * torch.sigmoid(self.excite(F.softplus(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.head(self.project(x).mean((2, 3)))


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(7, 6, padding_idx=0), nn.Embedding(5, 6)
        self.norm, self.hidden, self.head = nn.LayerNorm(6), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, tokens):
        x = self.norm(self.words(tokens) + self.places(torch.arange(tokens.shape[1])))
        return self.head(F.gelu(self.hidden(x)).mean(1))


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.gate, self.up = nn.Linear(6, 7), nn.Linear(7, 5), nn.Linear(7, 5, bias=False)
        self.down, self.head = nn.Linear(5, 7), nn.Linear(7, 3)

    def forward(self, x):
        x = F.gelu(self.stem(x), approximate="tanh")
        return self.head(x + self.down(F.silu(self.gate(x)) * self.up(x)))


class TiedText(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.hidden, self.readout = nn.Embedding(7, 6), nn.Linear(6, 6), nn.Linear(6, 7)
        self.readout.weight = self.words.weight

    def forward(self, tokens):
        return self.readout(torch.tanh(self.hidden(self.words(tokens).sum(1))))


class TiedAutoencoder(nn.Module):
    """The decoder reads the encoder's weight transposed; `bias` is a plain parameter."""

    def __init__(self):
        super().__init__()
        self.encoder, self.bias = nn.Linear(6, 4), nn.Parameter(torch.zeros(6))

    def forward(self, x):
        code = torch.sigmoid(self.encoder(x))
        return torch.sigmoid(code @ self.encoder.weight + self.bias)


def weight_normed():
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 5)), nn.Tanh(),
                         parametrizations.weight_norm(nn.Linear(5, 4)), nn.Hardtanh(), nn.Linear(4, 3))  # fmt: skip


def spectral_normed():
    return nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(6, 5)), nn.LeakyReLU(0.2),
        parametrizations.spectral_norm(nn.Linear(5, 4)), nn.Tanh(), nn.Linear(4, 3),
    )  # fmt: skip


def pruned():
    module = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))
    prune.l1_unstructured(module[0], "weight", amount=0.4)
    prune.ln_structured(module[2], "weight", amount=0.3, n=2, dim=0)
    return module


class LowRank(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Parameter(torch.randn(6, 2)), nn.Parameter(torch.randn(2, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        weight = self.left @ self.right
        for _ in range(2):
            x = torch.tanh(F.linear(x, weight))
        return self.head(x)


class Spectral(nn.Module):
    """Products with complex weights, by einsum and by columns, after a Fourier transform."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        self.mix, self.filter = (nn.Parameter(torch.randn(4, 4, dtype=torch.complex128)) for _ in range(2))

    def forward(self, x):
        modes = torch.fft.rfft(torch.tanh(self.stem(x))).to(self.mix.dtype)
        modes = torch.einsum("bi,ij->bj", modes @ self.mix, self.filter)
        return self.head(torch.tanh(torch.fft.irfft(modes, n=6)).to(x.dtype))


class SharedFactor(nn.Module):
    """A factor that scales a weight and, apart from it, a population."""

    def __init__(self):
        super().__init__()
        self.log, self.weight = nn.Parameter(torch.zeros(5)), nn.Parameter(torch.randn(5, 5))
        self.stem, self.head = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        factor = self.log.exp()
        x = torch.tanh(self.stem(x))
        return self.head(factor * torch.tanh(F.linear(x, factor * self.weight)))
