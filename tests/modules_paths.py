"""Modules of tests/modules.py: recurrence, and what Python, scripts and users' own functions decide at each call."""

import warnings

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.lstm, self.head = nn.Linear(6, 5), nn.LSTM(5, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.lstm(torch.tanh(self.stem(x)))[0][:, -1])


class Cell(nn.Module):
    """A gated unit by hand: the same two modules at every step of a sequence."""

    def __init__(self):
        super().__init__()
        self.reads, self.recurs, self.head = nn.Linear(6, 8), nn.Linear(4, 8, bias=False), nn.Linear(4, 3)

    def forward(self, x):
        state = x.new_zeros(len(x), 4)
        for step in x.unbind(1):
            gate, candidate = (self.reads(step) + self.recurs(state)).chunk(2, -1)
            state = torch.lerp(state, torch.tanh(candidate), torch.sigmoid(gate))
        return self.head(state)


class FastWeights(nn.Module):
    """Writes what a batch has in common into a buffer, and reads it as if it were a weight."""

    def __init__(self):
        super().__init__()
        self.stem, self.hidden, self.head = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.register_buffer("memory", torch.zeros(5, 5))

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        self.memory.detach_().zero_().add_(x.t() @ x)
        return self.head(torch.tanh(self.hidden(x)) @ self.memory)


def dropout():
    return nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Dropout(0.4), nn.Linear(9, 8), nn.Tanh(), nn.AlphaDropout(0.3),
                         nn.Linear(8, 3))  # fmt: skip


class Experts(nn.Module):
    """Each sample goes to the two of three experts that its router prefers; an expert without samples isn't called."""

    def __init__(self):
        super().__init__()
        self.stem, self.router = nn.Linear(6, 5), nn.Linear(5, 3)
        self.experts, self.head = nn.ModuleList(nn.Linear(5, 5) for _ in range(3)), nn.Linear(5, 3)

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        shares, chosen = torch.softmax(self.router(x), -1).topk(2)
        y = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            sample, rank = torch.where(chosen == i)
            if len(sample):
                y.index_add_(0, sample, F.silu(expert(x[sample])) * shares[sample, rank, None])
        return self.head(x + y)


class RandomDepth(nn.Module):
    """Blocks that Python skips at random, by torch's generator."""

    def __init__(self):
        super().__init__()
        self.blocks, self.head = nn.ModuleList(nn.Linear(6, 6) for _ in range(4)), nn.Linear(6, 3)

    def forward(self, x):
        for block in self.blocks:
            if not self.training or torch.rand(()).item() < 0.6:
                x = x + torch.tanh(block(x))
        return self.head(x)


class Halting(nn.Module):
    def __init__(self):
        super().__init__()
        self.step, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        calls = 0
        while calls < 5 and x.abs().max() > 0.8:
            x = 0.7 * torch.tanh(self.step(x)) + 0.1 * x
            calls += 1
        return self.head(x)


class StraightThrough(torch.autograd.Function):
    """Round to quarters; backward halves the gradient, which no tracer of the forward pass could know."""

    @staticmethod
    def forward(ctx, x):
        return (4 * x).round() / 4

    @staticmethod
    def backward(ctx, grad):
        return grad / 2


class OwnFunction(nn.Module):
    """The function's result is read by a weight, and copied."""

    def __init__(self):
        super().__init__()
        self.stem, self.hidden, self.head = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = StraightThrough.apply(torch.tanh(self.stem(x)))
        return self.head(x + F.relu(self.hidden(x)))


def gate(x: torch.Tensor, y: torch.Tensor):
    if x.dim() > 1:
        x = x * torch.sigmoid(y)
    return torch.tanh(x) + 0.1 * y


class Scripted(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.hidden, self.head = (nn.Linear(*s) for s in ((6, 5), (6, 5), (5, 5), (5, 3)))
        with warnings.catch_warnings(action="ignore"):  # PyTorch deprecates scripts; modules have them all the same
            self.gate = torch.jit.script(gate)

    def forward(self, x):
        x = self.gate(self.one(x), self.two(x))
        return self.head(x + torch.tanh(self.hidden(x)))


class FirstCall(nn.Module):
    """Makes its positions at the first call, and counts calls."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(6, 5), nn.Linear(5, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.positions = None

    def forward(self, x):
        if self.positions is None or self.positions.dtype != x.dtype:
            self.positions = torch.linspace(-1, 1, x.shape[1], dtype=x.dtype, device=x.device)
        self.calls += 1
        return self.head(torch.tanh(self.hidden(x + self.positions)))


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.head, self.norm = nn.Linear(6, 5), nn.Linear(5, 3), nn.BatchNorm1d(5)

    def forward(self, x):
        x = F.linear(weight=self.hidden.weight, bias=self.hidden.bias, input=x)
        x = F.batch_norm(
            input=x, weight=self.norm.weight, bias=self.norm.bias, training=self.training, momentum=0.2,
            running_mean=self.norm.running_mean, running_var=self.norm.running_var,
        )  # fmt: skip
        return F.linear(F.relu(input=x), self.head.weight, bias=self.head.bias)


def hooked():
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    module[1].register_forward_hook(lambda module, args, result: 1.5 * result)
    module[2].register_forward_pre_hook(lambda module, args: (args[0] - 0.1,))
    return module


class OneTemperature(nn.Module):
    """One scalar parameter in three pieces, between populations that are copied on."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))
        self.layers, self.head = nn.ModuleList(nn.Linear(6, 6) for _ in range(3)), nn.Linear(6, 3)

    def forward(self, x):
        for layer in self.layers:
            x = x + self.temperature * torch.tanh(layer(x) / self.temperature.exp())
        return self.head(self.temperature * x)


class Dictionary(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        hidden = torch.tanh(self.hidden(x))
        return {"hidden": hidden, "logits": self.head(hidden)}


class Transforms(nn.Module):
    """Weights inside a vmap, and inside a gradient whose own gradient is needed."""

    def __init__(self):
        super().__init__()
        self.stem, self.hidden, self.energy, self.head = (nn.Linear(*s) for s in ((6, 5), (5, 5), (5, 4), (5, 3)))

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        x = torch.func.vmap(lambda sample: torch.tanh(self.hidden(sample)))(x)
        return self.head(x - torch.func.grad(lambda x: torch.tanh(self.energy(x)).sum())(x))


class InnerGradient(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.head, self.scale = nn.Linear(6, 6), nn.Linear(6, 3), nn.Parameter(torch.zeros(6))

    def forward(self, x):
        y = x.detach().requires_grad_()
        (force,) = torch.autograd.grad((y**3 * self.scale).sum(), y, create_graph=True)
        return self.head(force + torch.tanh(self.hidden(x)))


class Energy(nn.Module):
    """Follows the gradient of an energy, part of which passes a weight that the tape cuts out of the graph."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        y = x.detach().requires_grad_()
        (force,) = torch.autograd.grad((y**2 / 2 + torch.tanh(self.hidden(y))).sum(), y, create_graph=True)
        return self.head(force)


class Retains(nn.Module):
    """Keeps the gradient of a hidden tensor."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        hidden = torch.tanh(self.hidden(x))
        hidden.retain_grad()
        return self.head(hidden)


class Scalar(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(6, 3)

    def forward(self, x):
        return self.hidden(x).square().mean()


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.hidden, self.head = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(
            checkpoint(lambda x: torch.tanh(self.hidden(x)), torch.tanh(self.stem(x)), use_reentrant=False)
        )


class Weightless(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x):
        return torch.tanh(x * self.scale)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.one(x), self.two(x)
