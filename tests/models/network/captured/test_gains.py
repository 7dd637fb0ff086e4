"""Which derivatives of a piece are dropped. Oracle: the derivatives written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from actrelax import ActrelaxError, Assumptions, Knobs, Network
from actrelax.models.network.captured.gains import POINTWISE, PieceGains, times_derivative

NONE = Assumptions(*[Knobs(activity_gain="none", weight_gain="none")] * 2)


class Piece(nn.Module):
    """Two dense layers with a function between them."""

    def __init__(self, function, width=6):
        super().__init__()
        self.below, self.above, self.function = nn.Linear(4, width), nn.Linear(width, 3), function

    def forward(self, x):
        return self.above(self.function(self.below(x)))


def jacobian(function, assumptions, gain):
    """Return x and phi'(x) of the piece between the layers, flattened, under a gain."""
    torch.manual_seed(0)
    module, x = Piece(function), torch.randn(3, 4)
    network = Network.from_module(module, x)
    passed = network.feedforward(x).under(assumptions)
    number = passed.path.names.index("below")
    a = module.below(x).detach()
    rows = [
        passed.transposed(number, unit.reshape(a.shape), keep=True, learn=False, gain=gain)[0].flatten()
        for unit in torch.eye(a.numel())
    ]
    return a, torch.stack(rows)


FUNCTIONS = {
    "functions": F.silu,
    "methods": torch.Tensor.tanh,
    "modules": nn.ReLU6(),
    "in place": nn.LeakyReLU(0.2, inplace=True),
    "options": lambda a: F.softplus(a, beta=2.0),
    "named": lambda a: torch.sigmoid(input=a),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_known_by_name_lose_their_derivative(name):
    a, kept = jacobian(FUNCTIONS[name], NONE, "feedforward")
    assert not torch.allclose(kept, torch.eye(a.numel()))
    _, dropped = jacobian(FUNCTIONS[name], NONE, "none")
    assert torch.equal(dropped, torch.eye(a.numel()))


def test_the_other_factor_of_a_product_stays():
    """x sigmoid(x) loses the sigmoid's derivative alone, silu its own."""
    a, found = jacobian(lambda a: a * torch.sigmoid(a), NONE, "none")
    assert torch.allclose(found, torch.diag((torch.sigmoid(a) + a).flatten()), atol=1e-14)


def test_everything_else_stays():
    """Norm, softmax, mask, pool and unknown functions."""
    dropout = nn.Dropout(0.5)

    def piece(a):
        a = F.layer_norm(a, a.shape[-1:]).softmax(-1) * 3
        return F.max_pool1d(dropout(a), 2, 1, 0).repeat_interleave(2, -1)[:, :6].exp().square()

    _, kept = jacobian(piece, NONE, "feedforward")
    _, dropped = jacobian(piece, NONE, "none")
    assert torch.equal(kept, dropped)
    assert kept.any()


def test_functions_inside_unknown_ones_stay():
    """selu is made of elu, and tanhshrink of tanh: neither is known."""
    for function in (F.selu, F.tanhshrink, F.logsigmoid):
        assert torch.equal(jacobian(function, NONE, "feedforward")[1], jacobian(function, NONE, "none")[1])


def test_the_hooks_wait_until_they_are_asked():
    torch.manual_seed(0)
    module, x = Piece(torch.tanh), torch.randn(3, 4)
    passed = Network.from_module(module, x).feedforward(x)
    number, signal = passed.path.names.index("below"), torch.randn(3, 6)
    before = passed.transposed(number, signal, keep=True)[0]
    dropped = passed.transposed(number, signal, keep=True, gain="none")[0]
    assert torch.equal(dropped, signal)
    assert torch.equal(passed.transposed(number, signal, keep=True)[0], before)
    h = module.below(x).tanh().detach()
    assert torch.allclose(before, (1 - h**2) * signal)


def test_a_write_into_a_part_is_refused():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.below, self.above = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x):
            y = 1 * self.below(x)
            y[:, :3].relu_()
            return self.above(y)

    x = torch.randn(3, 4)
    passed = Network.from_module(Partly(), x).feedforward(x)
    with pytest.raises(ActrelaxError, match=r"^a pointwise function writes into a part of a tensor, where its deriv"):
        passed.transposed(1, torch.randn(3, 6), keep=True, gain="none")


def test_all_known_functions_are_found():
    assert {F.relu, F.relu_, F.relu6, torch.Tensor.relu_, F.hardtanh, F.gelu, F.elu_, torch.sigmoid_} <= POINTWISE
    assert F.softmax not in POINTWISE


@pytest.mark.parametrize("function", [torch.tanh, F.gelu, lambda a: F.hardtanh(a, -0.5, 0.5)])
def test_times_derivative(function):
    a, signal = torch.randn(5, 3), torch.randn(5, 3)
    expected = torch.autograd.functional.jvp(function, a, signal)[1]
    assert torch.allclose(times_derivative(function, a, signal), expected, atol=1e-15)


def test_gains_go_by_the_projection_through_which_a_signal_leaves():
    """A residual block: the drive of a convolution, and a copy."""

    class Wire:
        def __init__(self, name, kind, source, operation):
            self.name, self.kind, self.source, self.operation = name, kind, source, operation

    wires = [Wire("a", "dense", None, 0), Wire("b", "conv", 3, 1), Wire("c", "conv", 4, None)]
    assumptions = Assumptions(
        dense=Knobs(weight_gain="current"),
        conv=Knobs(activity_gain="none", presynaptic="current"),
        projections={"c": {"activity_gain": "feedforward"}},
    )
    gains = PieceGains.of(wires, assumptions)
    assert gains.sent == ("feedforward", "none", "feedforward")
    assert gains.learned == ("current", "feedforward", None)
    assert gains.own == "current"
    assert gains.presynaptic == ("feedforward", "current", "current")
    assert gains.sending == ["feedforward", "none"]
    assert gains.learning == ["current", "feedforward"]
    assert gains.all == ["current", "feedforward", "none"]
    assert PieceGains.of([], assumptions).all == ["feedforward"]
