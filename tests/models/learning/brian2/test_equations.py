"""Equations of the losses. Oracle: their gradients in PyTorch."""

import numpy as np
import pytest
import torch

from actrelax.models.learning.brian2.equations import TOP_GRADIENTS
from actrelax.models.problem import LOSSES


@pytest.mark.parametrize("loss", LOSSES)
def test_the_outputs_signal_is_the_gradient_of_the_loss(loss, generator):
    """Holds also for targets that don't sum to one."""
    r, target = torch.randn(5, generator=generator), torch.rand(5, generator=generator)
    values = {
        "r": r.numpy(),
        "target": target.numpy(),
        "total": float(target.sum()),
        "normaliser": np.exp(r.numpy()[None, :] - r.numpy()[:, None]).sum(1),
    }
    signal = eval(TOP_GRADIENTS[loss], {}, values)
    np.testing.assert_allclose(signal, LOSSES[loss].gradient(r[None], target[None])[0], rtol=1e-13)
