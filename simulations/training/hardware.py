"""Devices, threads and precisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.options import require


@dataclass(frozen=True)
class Machine:
    """Options of device and threads."""

    device: str = "cpu"
    """cpu, cuda, cuda:N, mps, or auto for the best that is there."""
    threads: int | None = None
    """Number of CPU threads, which affects rounding and hence the result of a seed. Default: all cores."""
    channels_last: bool = False
    """Store images and weights of convolutions with channels last in memory."""


Precision = Literal["fp32", "fp64", "tf32", "bf16"]


@dataclass(frozen=True)
class Hardware(Machine):
    """Options of device, threads and precision."""

    precision: Precision = "fp32"
    """Precision of weights and activities; tf32: a GPU may round factors of products; bf16: only weights are fp32."""

    def resolved(self) -> Hardware:
        """Return the options with `auto` and missing values replaced for this machine.

        Raises
        ------
        ActrelaxError
            If the device is unknown, missing, or can't compute in this precision.
        """
        require(threads=(self.threads, 1, 1024))
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        try:
            kind, index = torch.device(device).type, torch.device(device).index or 0
        except RuntimeError as error:
            raise ActrelaxError(f"unknown device {device!r}; known: cpu, cuda, cuda:N, mps, auto.") from error
        there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
        if kind not in there:
            raise ActrelaxError(f"unknown device {device!r}; known: cpu, cuda, cuda:N, mps, auto.")
        if index >= there[kind]:
            raise ActrelaxError(f"device {device!r} is not available: this machine has {_listed(there)}.")
        if kind == "mps" and self.precision == "fp64":
            raise ActrelaxError("device 'mps' can't compute in fp64: use fp32, or --device cpu.")
        if self.precision == "tf32" and (kind != "cuda" or torch.cuda.get_device_capability(index) < (8, 0)):
            raise ActrelaxError(f"device {device!r} has no TF32: use fp32, or an NVIDIA GPU from Ampere on.")
        return replace(self, device=device, threads=self.threads or torch.get_num_threads())

    @property
    def dtype(self) -> torch.dtype:
        """dtype of the weights."""
        return torch.float64 if self.precision == "fp64" else torch.float32


@dataclass(frozen=True)
class FullPrecision:
    """Options of device, threads and precision for comparisons with the closed form."""

    device: str = "cpu"
    """cpu, cuda, cuda:N, mps, or auto for the best that is there."""
    threads: int | None = None
    """Number of CPU threads. Default: all cores."""
    precision: Literal["fp32", "fp64"] = "fp64"
    """Precision of weights and activities."""

    def resolved(self) -> Hardware:
        """Return the resolved `Hardware`."""
        return Hardware(self.device, self.threads, precision=self.precision).resolved()


def _listed(there: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in there.items() if count)
