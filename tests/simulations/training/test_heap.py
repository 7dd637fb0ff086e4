"""Memory that a process keeps. Oracle: the page faults that the system counts."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from actrelax.simulations.training.heap import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [b"x" * 2**23 for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
default = faults()
keep_freed_memory()
faults()
print(default, faults())
"""
PAGES = 4 * 2**23 // 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other settings")
@pytest.mark.parametrize("variables", [{}, {"MALLOC_TRIM_THRESHOLD_": "131072"}])
def test_freed_memory_is_used_again_without_page_faults(variables):
    others = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", PROGRAM]
    found = subprocess.run(command, env=others | variables, capture_output=True, text=True, check=True).stdout
    default, kept = map(int, found.split())
    assert default > PAGES / 2
    assert (kept < PAGES / 20) == (not variables)
