"""Reference implementation of activation relaxation, in NumPy and one sample at a time.

It is the oracle for all assumptions. Every projection is three dense matrices, from autograd of its PyTorch modules:
routing before (B), weights (M), routing after (A), at the feedforward pass of one sample. It uses nothing of the
package but the names of the assumptions' fields.
"""

from dataclasses import asdict, dataclass, field, is_dataclass
from types import SimpleNamespace

import numpy as np
import torch
from scipy.linalg import expm
from torch import nn
from torch.autograd.functional import jacobian

FUNCTIONS = {
    "identity": lambda a: a,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky-relu": nn.functional.leaky_relu,
    "sigmoid": torch.sigmoid,
    "softplus": nn.functional.softplus,
    "gelu": nn.functional.gelu,
}


def f(name, a):
    return FUNCTIONS[name](torch.as_tensor(a)).numpy()


def derivative(name, a):
    a = torch.as_tensor(a).clone().requires_grad_()
    return torch.autograd.grad(FUNCTIONS[name](a).sum(), a)[0].numpy()


def matrix(function, x):
    """Return the Jacobian of a function of one sample, flattened: (outputs, inputs)."""
    jac = jacobian(lambda v: function(v[None])[0], x)
    return jac.reshape(-1, x.numel()).numpy()


@dataclass
class Edge:
    """Projection of one sample as matrices: drive = A (M B x + b)."""

    source: str
    target: str
    kind: str
    before: np.ndarray
    after: np.ndarray
    forward: np.ndarray
    bias: np.ndarray
    module: nn.Module | None
    mapped_from: torch.Size  # shape of the weights' input
    mapped_to: torch.Size
    psi: np.ndarray = field(default_factory=lambda: np.zeros(0))
    name: str = ""

    def drive(self, x):
        return self.after @ (self.forward @ (self.before @ x) + self.bias)

    def feedback(self, y):
        return self.before.T @ (self.psi.T @ (self.after.T @ y))


class Reference:
    """Network of one sample, and its relaxation."""

    def __init__(self, case, sample, assumptions, psi=None):
        """Create the network; `psi` maps (source, target) to feedback weights other than W."""
        self.edges: list[Edge] = []
        self.shapes = {"input": case.x[sample].shape}
        self.names = list(case.network.populations)
        self.activation = {name: p.activation.name for name, p in case.network.populations.items()}
        self.assumptions = assumptions
        self.xbar = {"input": case.x[sample].reshape(-1).numpy()}
        self.abar = {}
        signals = {"input": case.x[sample]}
        for name in self.names[1:]:
            drive = 0
            for source, target, stages in case.edges:
                if target == name:
                    edge, out = self._edge(source, target, stages, signals[source], psi or {})
                    self.edges.append(edge)
                    drive = drive + out
            signals[name] = FUNCTIONS[self.activation[name]](drive).detach()
            self.abar[name] = drive.detach().reshape(-1).numpy()
            self.xbar[name] = signals[name].reshape(-1).numpy()
            self.shapes[name] = drive.shape
        for edge in self.edges:
            edge.name = f"{edge.source}{'=>' if edge.kind == 'copy' else '->'}{edge.target}"
            if edge.kind == "copy":
                edge.kind = "conv" if len(self.shapes[edge.target]) == 3 else "dense"

    def _edge(self, source, target, stages, x, psi):
        where = [i for i, stage in enumerate(stages) if isinstance(stage, nn.Linear | nn.Conv2d)]
        cut = where[0] if where else len(stages)
        with torch.no_grad():
            before, x_before = self._routing(stages[:cut], x)
            if not where:
                eye = np.eye(x_before.numel())
                edge = Edge(
                    source,
                    target,
                    "copy",
                    before,
                    eye,
                    eye,
                    np.zeros(x_before.numel()),
                    None,
                    x_before.shape,
                    x_before.shape,
                    eye,
                )
                return edge, x_before
            module = stages[cut]
            weight = psi.get((source, target), module.weight.detach())
            forward = matrix(lambda v: self._mapped(module, v, module.weight.detach()), x_before)
            backward = matrix(lambda v: self._mapped(module, v, weight), x_before)
            y = module(x_before[None])[0]
            bias = y.reshape(-1).numpy() - forward @ x_before.reshape(-1).numpy()
            after, out = self._routing(stages[cut + 1 :], y)
        kind = "conv" if isinstance(module, nn.Conv2d) else "dense"
        return Edge(source, target, kind, before, after, forward, bias, module, x_before.shape, y.shape, backward), out

    def _routing(self, stages, x):
        total = np.eye(x.numel())
        for stage in stages:
            total = matrix(stage, x) @ total
            x = stage(x[None])[0]
        return total, x

    def _mapped(self, module, v, weight):
        if isinstance(module, nn.Linear):
            return nn.functional.linear(v, weight)
        options = module.stride, module.padding, module.dilation, module.groups
        return nn.functional.conv2d(v, weight, None, *options)

    def gain(self, when, name, x):
        if when == "none":
            return 1.0
        if when == "feedforward":
            return derivative(self.activation[name], self.abar[name])
        drive = sum(edge.drive(x[edge.source]) for edge in self.edges if edge.target == name)
        return derivative(self.activation[name], drive)

    def knobs(self, edge):
        """Return the knobs of a projection's name, and of its kind where the name says nothing."""
        named = self.assumptions.projections.get(edge.name, {})
        named = asdict(named) if is_dataclass(named) else named
        return SimpleNamespace(**asdict(getattr(self.assumptions, edge.kind)) | named)

    def pull(self, name, x):
        return self.pull_of(name, lambda edge: x)

    def pull_of(self, name, sent_at):
        """Return the feedback to a population; `sent_at` maps an edge to the state at the time of sending."""
        total = 0.0
        for edge in self.edges:
            if edge.source == name:
                x = sent_at(edge)
                when = self.knobs(edge).activity_gain
                total = total + edge.feedback(self.gain(when, edge.target, x) * x[edge.target])
        return total

    def relax(self, scheme, steps, eta, clamped, start="feedforward"):
        hidden = self.names[1:-1]
        x = {**self.xbar, self.names[-1]: clamped}
        if start == "zero":
            x |= {name: 0 * x[name] for name in hidden}
        for _ in range(steps):
            if scheme == "euler":
                x = x | {v: (1 - eta) * x[v] + eta * self.pull(v, x) for v in hidden}
            else:
                for v in reversed(hidden):
                    x = x | {v: (1 - eta) * x[v] + eta * self.pull(v, x)}
        return x

    def relax_delayed(self, steps, eta, clamped, delay):
        """Relax by Euler's method with delays, (source, target) -> steps; before t = 0 states are the initial ones.

        `eta` is a number, or population -> dt/tau, one for all or one per neuron.
        """
        hidden = self.names[1:-1]
        eta = eta if isinstance(eta, dict) else dict.fromkeys(hidden, eta)
        history = [{**self.xbar, self.names[-1]: clamped}]
        for n in range(steps):
            x = history[-1]
            pulls = {v: self.pull_of(v, lambda e, n=n: history[max(0, n - delay[e.source, e.target])]) for v in hidden}
            history.append(x | {v: (1 - eta[v]) * x[v] + eta[v] * pulls[v] for v in hidden})
        return history[-1]

    def updates(self, x):
        """Return the updates by this sample: (source, target) -> {"weight": ..., "bias": ...}."""
        result = {}
        for edge in self.edges:
            if edge.module is None:
                continue
            knobs = self.knobs(edge)
            pre = edge.before @ (self.xbar if knobs.presynaptic == "feedforward" else x)[edge.source]
            post = edge.after.T @ (self.gain(knobs.weight_gain, edge.target, x) * x[edge.target])
            pre, post = torch.tensor(pre).reshape(edge.mapped_from), torch.tensor(post).reshape(edge.mapped_to)
            weight = torch.zeros_like(edge.module.weight, requires_grad=True)
            product = (self._mapped(edge.module, pre[None], weight)[0] * post).sum()
            update = {"weight": torch.autograd.grad(product, weight)[0]}
            if edge.module.bias is not None:
                update["bias"] = post if post.dim() == 1 else post.sum((1, 2))
            result[edge.source, edge.target] = update
        return result


def numpy_chain(case):
    """Return weights, gains, initial activities and clamp of an MLP, computed by hand."""
    weights = [p.weight.detach().numpy() for p in case.network.projections.values()]
    biases = [p.bias.detach().numpy() for p in case.network.projections.values()]
    activations = [p.activation for p in case.network.populations.values()][1:]
    x, gains, activities = case.x.numpy(), [], []
    for W, b, f in zip(weights, biases, activations, strict=True):
        a = x @ W.T + b
        gains.append(f.derivative(torch.tensor(a)).numpy())
        x = f(torch.tensor(a)).numpy()
        activities.append(x)
    softmax = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    clamp = softmax - np.eye(x.shape[1])[case.y.numpy()]
    return weights, gains, activities, clamp


def exact_flow(case, t, tau):
    """Solve the linear ODE of all hidden units by the matrix exponential."""
    W, g, x0, clamp = numpy_chain(case)
    widths = [x.shape[1] for x in x0[:-1]] + [clamp.shape[1]]
    edges = np.cumsum([0, *widths])
    result = []
    for sample in range(len(clamp)):
        A = np.zeros((edges[-1], edges[-1]))
        for i in range(len(widths) - 1):
            here, above = slice(edges[i], edges[i + 1]), slice(edges[i + 1], edges[i + 2])
            A[here, here] = -np.eye(widths[i]) / tau[i]
            A[here, above] = (g[i + 1][sample][:, None] * W[i + 1]).T / tau[i]
        start = np.concatenate([*(x[sample] for x in x0[:-1]), clamp[sample]])
        result.append(expm(t * A) @ start)
    return torch.tensor(np.array(result))
