"""DistributedDataParallel, in two real processes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")
def test_two_processes_learn_as_one():
    """Holds for uneven batches, and for a batch that leaves a process without samples."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(SCRIPT)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 0, ended.stderr
    differences = dict(line.split() for line in ended.stdout.splitlines())
    assert differences.keys() == {f"{name}-{size}" for name in ("chain", "captured") for size in (8, 13, 1)}
    assert all(float(each) < 1e-12 for each in differences.values()), differences
