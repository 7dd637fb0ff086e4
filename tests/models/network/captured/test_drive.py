"""A drive is in autograd's graph, what its operation reads is not."""

import pytest
import torch

from actrelax import ActrelaxError
from actrelax.models.network.captured.drive import Drive


def test_a_drive_is_cut_off_and_can_be_written_to():
    handle = torch.empty(0, requires_grad=True)
    x, w = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    drive = Drive.apply(handle, lambda: (x.detach() @ w.detach().t()).view(3, 5))
    assert torch.equal(drive, (x @ w.t()).detach())
    assert drive.requires_grad
    assert torch.equal(drive.mul_(2).relu(), 2 * (x @ w.t()).detach().relu())
    with pytest.raises(ActrelaxError, match=r"^a captured drive has no backward pass: call backward on the output"):
        drive.sum().backward()
    assert x.grad is None
    assert w.grad is None
