"""The present drive of a pointwise function. Oracle: the module's own layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from actrelax import ActrelaxError, Network
from actrelax.models.network.captured.current import CurrentDrive


class Added(nn.Module):
    """Two weighted maps, a copy and a parameter are added, and pooled before the pointwise function."""

    def __init__(self):
        super().__init__()
        self.stem, self.shift = nn.Conv2d(1, 4, 3, padding=1), nn.Parameter(torch.randn(4, 1, 1))
        self.left, self.right = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1, bias=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        return self.head(F.silu(F.max_pool2d(self.left(x) + self.right(x) + self.shift + x, 2)).flatten(1))


def passed_of(module, shape=(1, 4, 4)):
    torch.manual_seed(0)
    x = torch.randn(3, *shape)
    network = Network.from_module(module, x)
    return network, network.feedforward(x), x


def test_the_drive_is_the_sum_of_what_enters():
    """At the feedforward activities, and at others, along the feedforward pass's winners."""
    module = Added()
    _, passed, x = passed_of(module)
    stem = module.stem(x).tanh().detach()
    number = passed.path.names.index("left")
    drive = CurrentDrive(passed, number)

    def total(u):
        return (module.left(u) + module.right(u) + module.shift + u).detach()

    pooled, winners = F.max_pool2d(total(stem), 2, return_indices=True)
    assert torch.allclose(drive.at(lambda name: {"stem": stem}[name]), pooled, atol=1e-14)
    other = torch.randn_like(stem)
    expected = total(other).flatten(2).gather(2, winners.flatten(2)).view_as(pooled)
    assert not torch.allclose(expected, F.max_pool2d(total(other), 2))  # others would win now
    assert torch.allclose(drive.at(lambda name: {"stem": other}[name]), expected, atol=1e-14)


def test_a_linear_piece_has_none():
    _, passed, _ = passed_of(Added())
    assert CurrentDrive(passed, 0).at({}.__getitem__) is None


class Between(nn.Module):
    """Two dense layers with a function between them."""

    def __init__(self, function):
        super().__init__()
        self.stem, self.below, self.above = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.function = function

    def forward(self, x):
        return self.above(self.function(self.below(torch.tanh(self.stem(x)))))


class AfterARelay(nn.Module):
    """A drive that reads a norm."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.below = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 6)
        self.above = nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x)
        return self.above(torch.tanh(self.below(self.norm(x))) + x)


class Pooled(nn.Module):
    """A function whose result another module of the test pools."""

    def __init__(self, pool):
        super().__init__()
        self.stem, self.conv, self.pool = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3, padding=1), pool
        self.head = nn.Linear(pool(torch.ones(1, 6, 4, 4)).flatten(1).shape[1], 3)

    def forward(self, x):
        x = torch.tanh(self.conv(torch.sigmoid(self.stem(x))))
        return self.head(self.pool(x).flatten(1))


POOLS = {
    "average": nn.AvgPool2d(2),
    "adaptive": nn.AdaptiveAvgPool2d(3),
    "global": nn.AdaptiveAvgPool2d(1),
    "maximum": nn.MaxPool2d(2, stride=1),
    "upsampled": nn.Upsample(scale_factor=2),
    "padded": nn.ZeroPad2d(1),
}


@pytest.mark.parametrize("name", POOLS)
def test_signals_pass_a_piece_in_two_parts(name):
    """Above and below its function; with the gain between them they are PyTorch's feedback."""
    _, passed, _ = passed_of(Pooled(POOLS[name]), (1, 6, 6))
    number = passed.path.names.index("conv")
    current = passed.current(number)
    drive = current.at(passed.activities.__getitem__)
    signal = torch.randn_like(passed.activities["conv"])
    (expected,) = passed.transposed(number, signal, keep=True, learn=False)
    amplified = current.above(signal) * current.activation.derivative(drive)
    assert torch.allclose(current.below(amplified)["conv"], expected, atol=1e-14)
    assert (current.shape, current.activation.name, current.is_whole) == ((3, 6, 4, 4), "tanh", False)


def test_a_view_of_the_result_is_the_whole_population():
    _, passed, _ = passed_of(Pooled(nn.Identity()), (1, 6, 6))
    current = passed.current(passed.path.names.index("conv"))
    assert passed.activities["conv"].shape == (3, 96)
    assert (current.shape, current.is_whole) == ((3, 6, 4, 4), True)


class Evaluated(nn.Module):
    """Drives through norms, whose result a copy and a third drive join."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right, self.head = (nn.Conv2d(i, o, 1) for i, o in ((1, 4), (4, 4), (4, 4), (4, 3)))
        self.norm, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)
        for norm in (self.norm, self.other):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def total(self, x):
        return self.other(self.norm(self.left(x))) + self.right(x) + x

    def forward(self, x):
        return self.head(torch.tanh(self.total(torch.tanh(self.stem(x)))))


def test_norms_in_evaluation_are_linear_apart_from_a_constant():
    torch.manual_seed(0)
    module = Evaluated()
    _, passed, _ = passed_of(module)
    number = passed.path.names.index("left")
    with pytest.raises(ActrelaxError, match="population 'left' is not one pointwise function of a sum of drives"):
        passed.current(number)
    module.eval()
    _, passed, _ = passed_of(module)
    current, other = passed.current(passed.path.names.index("left")), torch.randn(3, 4, 4, 4)
    assert torch.allclose(current.at({"stem": other}.__getitem__), module.total(other).detach(), atol=1e-13)
    assert (current.activation.name, current.is_whole) == ("tanh", True)


class Skipped(nn.Module):
    """A drive past the function, zero at first, so that nothing shows at the feedforward activities."""

    def __init__(self):
        super().__init__()
        self.stem, self.below, self.past = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.above = nn.Linear(6, 3)
        nn.init.zeros_(self.past.weight)
        nn.init.zeros_(self.past.bias)

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        return self.above(torch.tanh(self.below(x)) + self.past(x))


def test_a_drive_past_the_function_is_refused():
    _, passed, _ = passed_of(Skipped(), (4,))
    with pytest.raises(ActrelaxError, match=r"^population 'below' is not one pointwise function of a sum of drives"):
        CurrentDrive(passed, passed.path.names.index("below"))


def doubled(a):
    a.register_hook(lambda signal: 2 * signal)
    return a


REFUSED = {
    "norm": lambda a: torch.tanh(F.layer_norm(a, (6,))),
    "softmax": lambda a: a.softmax(-1),
    "two functions": lambda a: torch.tanh(F.gelu(a)),
    "gate": lambda a: a * torch.sigmoid(a),
    "a constant": lambda a: torch.tanh(a + 0.5),
    "a small constant": lambda a: torch.tanh(a + 1e-4),
    "a constant that leaves no unit active": lambda a: torch.relu(a - 100),
    "a constant tensor": lambda a: torch.relu(a.add(torch.full((6,), -100.0))),
    "a padding that leaves its units silent": lambda a: F.relu(F.pad(a, (2, -2), value=-5.0)),
    "a padding by its module": lambda a: F.relu(nn.ConstantPad1d((2, -2), -5.0)(a)),
    "a padding by its kernel": lambda a: F.relu(torch.constant_pad_nd(a, (2, -2), -5.0)),
    "norm in evaluation past the function": lambda a: F.batch_norm(torch.tanh(a), torch.zeros(6), torch.ones(6)),
    "hook at the drive": lambda a: torch.tanh(doubled(a)),
    "hook at a result that is viewed": lambda a: doubled(torch.tanh(a)).view(-1, 2, 3).flatten(1),
    "unknown": torch.sin,
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_pieces_are_refused(name):
    _, passed, _ = passed_of(Between(REFUSED[name]), (4,))
    with pytest.raises(ActrelaxError, match=r"^population 'below' is not one pointwise function of a sum of drives"):
        CurrentDrive(passed, passed.path.names.index("below"))


def test_signs_and_sums_of_drives_are_linear():
    """The zero with which Python's sum starts is no constant."""
    torch.manual_seed(0)
    module = Between(lambda a: torch.tanh(sum([a, a]) - (-a)))
    _, passed, _ = passed_of(module, (4,))
    drive, other = passed.current(passed.path.names.index("below")), torch.randn(3, 6)
    assert torch.allclose(drive.at({"stem": other}.__getitem__), 3 * module.below(other).detach(), atol=1e-14)


def test_linear_pieces_may_be_padded_by_any_value():
    _, passed, _ = passed_of(Between(lambda a: F.pad(a, (2, -2), value=3.0)), (4,))
    assert passed.current(passed.path.names.index("below")).is_linear


def test_drives_that_read_a_relay_are_refused():
    _, passed, _ = passed_of(AfterARelay(), (4,))
    number = passed.path.names.index("below")
    with pytest.raises(ActrelaxError, match=r"^population 'below' is not one pointwise function of a sum of drives"):
        CurrentDrive(passed, number)
    assert CurrentDrive(passed, passed.path.names.index("stem")).at({}.__getitem__) is None
