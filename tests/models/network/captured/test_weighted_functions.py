"""Which calls are weighted operations: linear in one tensor, with a weight made of parameters."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from actrelax.models.network.captured.operations import Convolution, Linear, Recorded
from actrelax.models.network.captured.weighted_functions import OPERATIONS


class Known:
    """A tape that knows its weights."""

    def __init__(self, *weights):
        self.weights = weights

    def is_weight(self, tensor):
        return any(tensor is w for w in self.weights)

    def is_data(self, tensor):
        return not self.is_weight(tensor)

    def cast(self, tensor):
        return tensor


W, B, X = torch.ones(4, 5), torch.ones(4), torch.ones(3, 5)
IMAGE, KERNEL = torch.ones(2, 3, 6, 6), torch.ones(4, 3, 3, 3)
TAPE = Known(W, B, KERNEL)
RECOGNISED = {
    "linear": (F.linear, (X, W, B), {}, Linear),
    "by keyword": (F.linear, (), {"bias": B, "weight": W, "input": X}, Linear),
    "product": (torch.matmul, (X, W.t()), {}, None),  # W.t() is another tensor, unknown here
    "left": (torch.matmul, (W, torch.ones(5, 2)), {}, Recorded),
    "operator": (torch.Tensor.__matmul__, (torch.ones(2, 4), W), {}, Linear),
    "mm by keyword": (torch.mm, (torch.ones(2, 4),), {"mat2": W}, Linear),
    "two of data": (torch.bmm, (torch.ones(2, 3, 4), torch.ones(2, 4, 3)), {}, None),
    "two weights": (torch.matmul, (W, B), {}, None),
    "addmm": (torch.addmm, (torch.ones(5), torch.ones(2, 4), W), {}, None),  # its bias is no parameter
    "hypernetwork": (F.linear, (X, torch.ones(4, 5)), {}, None),
    "conv": (F.conv2d, (IMAGE, KERNEL), {"padding": "same"}, Convolution),
    "even kernel": (F.conv2d, (IMAGE, KERNEL), {"padding": "same", "dilation": 2}, Convolution),
    "one image": (F.conv2d, (IMAGE[0], KERNEL), {}, Recorded),
    "embedding": (F.embedding, (torch.tensor([0, 1]), W), {}, Recorded),
    "einsum": (torch.einsum, ("bi,oi->bo", X, W), {}, Recorded),
    "einsum of data": (torch.einsum, ("bi,bi->b", X, X), {}, None),
}


@pytest.mark.parametrize("case", RECOGNISED)
def test_recognised(case):
    function, arguments, named, kind = RECOGNISED[case]
    operation = OPERATIONS[function](TAPE, *arguments, **named)
    assert type(operation) is (type(None) if kind is None else kind)
    if operation is not None:
        assert torch.allclose(operation.call(), function(*arguments, **named))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("padding", ["valid", "same", 1, (2, 1)])
@pytest.mark.parametrize("dilation", [1, (2, 1)])
def test_convolutions_of_every_padding(padding, dilation, generator):
    layer = nn.Conv2d(3, 4, (3, 2), padding=padding, dilation=dilation)
    tape = Known(layer.weight, layer.bias)
    x = torch.randn(2, 3, 6, 7, generator=generator)
    arguments = (x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    assert torch.equal(OPERATIONS[F.conv2d](tape, *arguments).call(), layer(x))
