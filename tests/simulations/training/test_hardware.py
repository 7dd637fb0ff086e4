"""Available and unavailable devices and precisions."""

import pytest
import torch

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.hardware import FullPrecision, Hardware


def test_hardware_is_what_is_there(monkeypatch):
    resolved = Hardware().resolved()
    assert (resolved.device, resolved.threads) == ("cpu", torch.get_num_threads())
    assert Hardware(threads=3).resolved().threads == 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Hardware("auto").resolved().device == "cuda"
    assert Hardware("cuda:1").resolved().device == "cuda:1"
    with pytest.raises(ActrelaxError, match=r"^device 'cuda:2' is not available: this machine has cpu, 2 cuda\.$"):
        Hardware("cuda:2").resolved()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert Hardware("auto").resolved().device == "mps"
    with pytest.raises(ActrelaxError, match=r"^device 'mps' can't compute in fp64: use fp32, or --device cpu\.$"):
        Hardware("mps", precision="fp64").resolved()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert Hardware("auto").resolved().device == "cpu"
    with pytest.raises(ActrelaxError, match=r"^device 'cuda' is not available: this machine has cpu\.$"):
        Hardware("cuda").resolved()
    for name in ("gpu", "meta", ""):
        with pytest.raises(ActrelaxError, match=f"^unknown device '{name}'; known: cpu, cuda, cuda:N, mps, auto\\.$"):
            Hardware(name).resolved()


def test_tf32_is_of_newer_gpus(monkeypatch):
    with pytest.raises(ActrelaxError) as refused:
        Hardware(precision="tf32").resolved()
    assert str(refused.value) == "device 'cpu' has no TF32: use fp32, or an NVIDIA GPU from Ampere on."
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: [(7, 5), (9, 0)][index])
    with pytest.raises(ActrelaxError, match=r"^device 'cuda' has no TF32: "):
        Hardware("cuda", precision="tf32").resolved()
    assert Hardware("cuda:1", 3, precision="tf32").resolved() == Hardware("cuda:1", 3, precision="tf32")
    assert Hardware("cuda", 3, True, "bf16").resolved() == Hardware("cuda", 3, True, "bf16")


def test_types_of_weights():
    """Mixed precision has weights in single precision."""
    types = [Hardware(precision=name).dtype for name in ("fp64", "fp32", "tf32", "bf16")]
    assert types == [torch.float64, torch.float32, torch.float32, torch.float32]
    assert FullPrecision() == FullPrecision("cpu", precision="fp64")
