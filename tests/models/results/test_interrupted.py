"""Recordings with a full disk or a killed process keep whole points only, or the earlier file."""

import os
import random
import resource
import signal
import time
from contextlib import contextmanager

import pytest
import torch
from networks import mlp_case

from actrelax.models.engines import solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import Record, open_trajectory

STEPS = 150
SUFFIXES = ["nc", pytest.param("zarr", marks=pytest.mark.filterwarnings("ignore:Object at .*partial"))]


@contextmanager
def largest_file(size):
    """Limit the size of files, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def relaxed(path=None):
    case = mlp_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
    return solve(problem, "euler", STEPS, eta=0.1, record=Record(path=path))


def assert_whole_points(path, expected):
    """Check that a file is missing, or holds the first points unchanged."""
    if not path.exists():
        return 0
    dataset = open_trajectory(path)
    points = dataset.sizes["time"]
    for name, x in expected.recorded.items():
        assert torch.equal(torch.from_numpy(dataset[name].values), x[:points].flatten(2)), name
    assert dataset["time"].values.tolist() == list(expected.times[:points])
    dataset.close()
    return points


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_file_may_grow(suffix, tmp_path):
    if suffix == "zarr":
        pytest.importorskip("zarr")
    expected, written = relaxed(), 0
    for number, size in enumerate([0, 1, 100, 1000, 2000, 4000, 8000, 20_000, 100_000, 10**9]):
        path = tmp_path / f"{number}.{suffix}"
        try:
            with largest_file(size):
                relaxed(path)
            written += 1
            assert assert_whole_points(path, expected) == STEPS + 1
        except ActrelaxError as error:
            assert str(error).startswith(f"can't write {path}: ")  # noqa: PT017
            assert_whole_points(path, expected)
    assert 0 < written < 10
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_process_that_is_killed(suffix, tmp_path):
    """A child writes one file repeatedly; after a kill, the file is the earlier or the new one."""
    if suffix == "zarr":
        pytest.importorskip("zarr")
    expected, moments, path = relaxed(), random.Random(0), tmp_path / f"x.{suffix}"
    relaxed(path)
    seen = set()
    for _ in range(6):
        child = os.fork()
        if child == 0:
            while True:
                relaxed(path)
        time.sleep(moments.uniform(0.02, 0.4))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen.add(assert_whole_points(path, expected))
    assert suffix == "zarr" or seen == {STEPS + 1}
