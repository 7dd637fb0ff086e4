"""The machine that costs were measured on, and how it was used."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from actrelax.analysis.runs import versions
from actrelax.simulations.training.options import Hardware


def machine(hardware: Hardware, compile_as: str) -> dict[str, Any]:
    """Return what costs depend on beside network and method; ready for JSON.

    Parameters
    ----------
    hardware : Hardware
        Resolved.
    compile_as : str
        As of `actrelax train`.
    """
    device = torch.device(hardware.device)
    return {
        "device": hardware.device,
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": os.cpu_count(),
        "threads": hardware.threads,
        "precision": hardware.precision,
        "channels_last": hardware.channels_last,
        "compile": compile_as,
        "system": platform.platform(),
        "versions": versions(),
    }


def processor() -> str:
    """Return the processor's name, as Linux tells it, or else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
