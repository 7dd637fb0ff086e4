"""Networks and batches for the tests.

Every assumption has an effect in them: several hidden populations of unequal width, saturating and asymmetric
activations, biases, weights that are neither square nor symmetric, a batch of more than one sample.
"""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from actrelax.models.network import Network, Projection

Edge = tuple[str, str, list[nn.Module]]


@dataclass
class Case:
    """Network, the PyTorch modules of its projections, and a batch."""

    network: Network
    edges: list[Edge]
    x: Tensor
    y: Tensor

    @property
    def loss(self) -> str:
        """Cross-entropy, or the squared error for a single output."""
        return "cross-entropy" if self.network.populations[self.network.output].shape != (1,) else "sum-of-squares"


def make_case(input_shape, populations, edges, *, seed=0, batch=3, gain=1.2) -> Case:
    """Return a case with normal weights of standard deviation sqrt(gain / fan-in) and biases of order 0.3."""
    generator = torch.Generator().manual_seed(seed)
    for _, _, stages in edges:
        for stage in stages:
            if getattr(stage, "weight", None) is not None:
                with torch.no_grad():
                    stage.weight.normal_(0, (gain / stage.weight[0].numel()) ** 0.5, generator=generator)
                    if stage.bias is not None:
                        stage.bias.normal_(0, 0.3, generator=generator)
    projections = [
        Projection(source, target, *stages, name=None if stages else f"{source}=>{target}")
        for source, target, stages in edges
    ]
    network = Network(input_shape, populations, projections)
    x = torch.randn(batch, *input_shape, generator=generator)
    y = torch.randint(network.populations[network.output].shape[0], (batch,), generator=generator)
    return Case(network, edges, x, y)


def mlp_case(activation="tanh", *, seed=0, widths=(8, 7, 6, 5, 4), gain=1.2) -> Case:
    names = ["input", *(f"hidden{i}" for i in range(1, len(widths) - 1)), "output"]
    edges = [(names[i], names[i + 1], [nn.Linear(widths[i], widths[i + 1])]) for i in range(len(widths) - 1)]
    populations = dict.fromkeys(names[1:-1], activation) | {"output": "identity"}
    return make_case((widths[0],), populations, edges, seed=seed, gain=gain)


@torch.no_grad()
def deep_case(depth, gain, *, width=6, seed=0, activation="tanh") -> Case:
    """Return a chain of `depth` weight layers; under "random-feedback" each feedback map has about that gain."""
    generator = torch.Generator().manual_seed(seed)
    case = mlp_case(activation, seed=seed, widths=[width] * (depth + 1), gain=1.0)
    case.network.add_feedback("random-feedback", generator)
    drives = case.network.feedforward(case.x).drives
    for p in case.network.projections.values():
        if p.feedback is not None:
            turn, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
            derivative = case.network.populations[p.target].activation.derivative(drives[p.target])
            p.feedback.copy_(turn * gain / derivative.square().mean().sqrt())
    return case


def exploding_case(generator) -> Case:
    """Return a case that overflows under "random-feedback" within a few steps of 0.5, one population after another."""
    case = mlp_case()
    case.network.add_feedback("random-feedback", generator)
    for p in case.network.projections.values():
        if p.feedback is not None:
            p.feedback.mul_(1e110)
    return case


def graph_case(*, seed=0, output="sigmoid") -> Case:
    """Return a graph with padded and grouped convolutions, both poolings, and skips of several lengths."""
    edges = [
        ("input", "conv1", [nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(2)]),
        ("conv1", "conv2", [nn.Conv2d(4, 4, 3, padding=1, groups=2)]),
        ("conv2", "conv3", [nn.MaxPool2d(2, stride=1), nn.Conv2d(4, 4, 2, padding=1, bias=False)]),
        ("conv1", "conv3", []),
        ("conv3", "hidden1", [nn.AvgPool2d(2, stride=1), nn.Flatten(), nn.Linear(16, 7)]),
        ("conv1", "hidden1", [nn.Conv2d(4, 7, 2), nn.AvgPool2d(2), nn.Flatten()]),
        ("hidden1", "hidden2", [nn.Linear(7, 6)]),
        ("hidden2", "hidden3", [nn.Linear(6, 6)]),
        ("hidden2", "hidden3", []),
        ("hidden3", "output", [nn.Linear(6, 5)]),
    ]
    populations = {
        "conv1": "tanh",
        "conv2": "softplus",
        "conv3": "tanh",
        "hidden1": "sigmoid",
        "hidden2": "tanh",
        "hidden3": "gelu",
        "output": output,
    }
    return make_case((2, 6, 6), populations, edges, seed=seed, gain=2.0)


def recurrent_case(*, seed=0, gain=0.8, activation="tanh") -> Case:
    """Return a dense population that projects to itself."""
    edges = [
        ("input", "a", [nn.Linear(8, 7)]),
        ("a", "a", [nn.Linear(7, 7, bias=False)]),
        ("a", "output", [nn.Linear(7, 4)]),
    ]
    return make_case((8,), {"a": activation, "output": "identity"}, edges, seed=seed, gain=gain)


def hierarchy_case(*, seed=0, gain=0.5, activation="tanh", stem="gelu") -> Case:
    """Return three populations with lateral, top-down and skip connections below two that are in no cycle."""
    edges = [
        ("input", "stem", [nn.Linear(8, 9)]),
        ("stem", "a", [nn.Linear(9, 7)]),
        ("a", "b", [nn.Linear(7, 6)]),
        ("b", "c", [nn.Linear(6, 5)]),
        ("a", "c", [nn.Linear(7, 5, bias=False)]),
        ("a", "a", [nn.Linear(7, 7, bias=False)]),
        ("b", "b", [nn.Linear(6, 6)]),
        ("c", "b", [nn.Linear(5, 6)]),
        ("b", "a", [nn.Linear(6, 7)]),
        ("c", "head", [nn.Linear(5, 6)]),
        ("stem", "head", [nn.Linear(9, 6)]),
        ("head", "output", [nn.Linear(6, 4)]),
    ]
    populations = {"head": "softplus", "c": "sigmoid", "b": activation, "a": activation, "stem": stem}
    return make_case((8,), populations | {"output": "identity"}, edges, seed=seed, gain=gain)


def conv_recurrent_case(*, seed=0, gain=0.4, pool=nn.MaxPool2d) -> Case:
    """Return maps at two sizes with lateral and upsampled top-down connections, read by a copy."""
    edges = [
        ("input", "a", [nn.Conv2d(2, 4, 3, padding=1)]),
        ("a", "a", [nn.Conv2d(4, 4, 3, padding=1, groups=2)]),
        ("a", "b", [pool(2), nn.Conv2d(4, 5, 3, padding=1)]),
        ("b", "a", [nn.Conv2d(5, 4, 3, padding=1, bias=False), nn.Upsample(scale_factor=2)]),
        ("b", "read", []),
        ("read", "output", [nn.Flatten(), nn.Linear(45, 4)]),
    ]
    populations = {"a": "tanh", "b": "softplus", "read": "identity", "output": "identity"}
    return make_case((2, 6, 6), populations, edges, seed=seed, gain=gain)


def drives_of(case, rates) -> dict[str, Tensor]:
    """Return population -> drive at given rates, by PyTorch's modules; differentiable."""
    drives: dict[str, Tensor] = {}
    for source, target, stages in case.edges:
        drive = nn.Sequential(*stages)(rates[source])
        drives[target] = drives[target] + drive if target in drives else drive
    return drives


def responses_of(case, rates) -> dict[str, Tensor]:
    """Return population -> f(a(r)), by PyTorch's modules."""
    populations = case.network.populations
    return {name: populations[name].activation.function(a) for name, a in drives_of(case, rates).items()}


RECURRENT = {"dense": recurrent_case, "hierarchy": hierarchy_case, "conv": conv_recurrent_case}
"""Networks with cycles: name -> function that returns a case."""


@st.composite
def dense_graphs(draw, gains=None) -> Case:
    """Draw acyclic graphs of dense projections: a chain with skips between any two populations."""
    widths = draw(st.lists(st.integers(2, 6), min_size=3, max_size=6))
    names = ["input", *(f"hidden{i}" for i in range(1, len(widths) - 1)), "output"]
    skips = [(i, j) for i in range(len(widths)) for j in range(i + 2, len(widths)) if draw(st.booleans())]
    chain = [(i, i + 1) for i in range(len(widths) - 1)]
    edges = [
        (names[i], names[j], [nn.Linear(widths[i], widths[j], bias=draw(st.booleans()))]) for i, j in chain + skips
    ]
    activations = st.sampled_from(["tanh", "sigmoid", "softplus", "gelu", "relu", "leaky-relu", "identity"])
    populations = {name: draw(activations) for name in names[1:]}
    seed, batch = draw(st.integers(0, 1000)), draw(st.integers(1, 4))
    gain = 1.2 if gains is None else draw(gains)
    return make_case((widths[0],), populations, edges, seed=seed, batch=batch, gain=gain)


@st.composite
def recurrent_graphs(draw) -> Case:
    """Draw dense graphs with at least one cycle: a chain, and connections from any hidden population to any."""
    widths = draw(st.lists(st.integers(2, 6), min_size=3, max_size=6))
    names = ["input", *(f"hidden{i}" for i in range(1, len(widths) - 1)), "output"]
    hidden = st.integers(1, len(widths) - 2)
    back = draw(st.tuples(hidden, hidden).map(lambda ij: (max(ij), min(ij))))
    extra = draw(st.sets(st.tuples(hidden, hidden), max_size=6)) | {back}
    pairs = {(i, i + 1) for i in range(len(widths) - 1)} | extra
    edges = [
        (names[i], names[j], [nn.Linear(widths[i], widths[j], bias=draw(st.booleans()))]) for i, j in sorted(pairs)
    ]
    populations = {name: draw(st.sampled_from(["tanh", "sigmoid", "softplus", "gelu"])) for name in names[1:]}
    seed, batch = draw(st.integers(0, 1000)), draw(st.integers(1, 3))
    return make_case((widths[0],), populations, edges, seed=seed, batch=batch, gain=0.2)


@st.composite
def convolutional_chains(draw) -> Case:
    """Draw chains of three convolutions, with random geometry and pooling, and two dense projections."""
    channels, size = draw(st.integers(1, 3)), draw(st.integers(9, 12))
    input_shape = (channels, size, size)
    edges: list[Edge] = []
    source = "input"
    for target in ("conv1", "conv2", "conv3"):
        kernel = draw(st.integers(1, 3))
        stride, padding = draw(st.integers(1, 2)), draw(st.integers(0, 2))
        dilation = draw(st.integers(1, 2))
        groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
        span = dilation * (kernel - 1) + 1
        stages: list[nn.Module] = []
        pool = draw(st.sampled_from(["none", "before", "after"]))
        if pool == "before" and size >= 4:
            stages.append(draw(_pools()))
            size = size // 2
        if size + 2 * padding < span:
            padding = span
        out = groups * draw(st.integers(1, 3))
        bias = draw(st.booleans())
        stages.append(nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, bias))
        channels, size = out, (size + 2 * padding - span) // stride + 1
        if pool == "after" and size >= 4:
            stages.append(draw(_pools()))
            size = size // 2
        edges.append((source, target, stages))
        source = target
    edges.append(("conv3", "hidden1", [nn.Flatten(), nn.Linear(channels * size * size, 5)]))
    edges.append(("hidden1", "output", [nn.Linear(5, 4)]))
    activations = st.sampled_from(["tanh", "sigmoid", "softplus", "relu"])
    populations = {target: draw(activations) for _, target, _ in edges[:-1]} | {"output": "identity"}
    return make_case(input_shape, populations, edges, seed=draw(st.integers(0, 1000)), batch=draw(st.integers(1, 3)))


def _pools():
    return st.sampled_from([nn.MaxPool2d(2), nn.AvgPool2d(2)])


@st.composite
def pools(draw):
    kernel, stride = draw(st.integers(2, 3)), draw(st.integers(1, 3))
    padding, ceil_mode = draw(st.integers(0, kernel // 2)), draw(st.booleans())
    if draw(st.booleans()):
        return nn.MaxPool2d(kernel, stride, padding, draw(st.integers(1, 2)), ceil_mode=ceil_mode)
    return nn.AvgPool2d(kernel, stride, padding, ceil_mode, draw(st.booleans()), draw(st.sampled_from([None, 3])))


@st.composite
def pipelines(draw):
    """Draw stages: pooling, a convolution, pooling, and possibly a flatten; the input is (2, 9, 10)."""
    stages = [draw(pools())] if draw(st.booleans()) else []
    groups = draw(st.sampled_from([1, 2]))
    stages.append(
        nn.Conv2d(
            2,
            2 * draw(st.integers(1, 2)),
            (draw(st.integers(1, 2)), 2),
            stride=draw(st.integers(1, 2)),
            padding=(1, draw(st.integers(0, 2))),
            dilation=draw(st.integers(1, 2)),
            groups=groups,
            bias=draw(st.booleans()),
        )
    )
    stages += [nn.MaxPool2d(2, 1)] if draw(st.booleans()) else []
    stages += [nn.Flatten()] if draw(st.booleans()) else []
    return stages


def runs(stages, x):
    try:
        nn.Sequential(*stages)(x)
    except RuntimeError:  # an image too small for the next stage
        return False
    return True
