"""Zarr stores that grow block by block while a relaxation runs."""

import errno
import os
import signal
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from networks import exploding_case, graph_case, mlp_case

from actrelax.models.engines import SciPyOptions, Steps, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import activity_gradients
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import DivergenceError, Record, open_trajectory

zarr = pytest.importorskip("zarr")
zarr_store = pytest.importorskip("actrelax.models.results.zarr_store")


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


@pytest.fixture
def short_blocks(monkeypatch):
    monkeypatch.setattr(zarr_store, "BLOCK_POINTS", 4)


@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize(
    "options",
    [
        {"integrator": "euler", "steps": Steps(12, eta=0.2)},
        {"integrator": "euler", "steps": Steps(11, eta=0.2), "every": 3},
        {"integrator": "scipy:RK45", "steps": Steps(7, dt=0.2)},
        {"integrator": "equilibrium"},
    ],
    ids=str,
)
def test_a_store_holds_what_memory_would(options, tmp_path):
    """Equal bit for bit, with full blocks, with a shorter last block, and with a single point."""
    case, path, every = graph_case(), tmp_path / "folder" / "run.zarr", options.get("every", 1)
    calls = {name: value for name, value in options.items() if name != "every"}
    memory = solve(problem_of(case), **calls, record=Record(every=every))
    stored = solve(problem_of(case), **calls, record=Record(every=every, path=str(path)))
    assert stored.times == memory.times
    assert list(stored.recorded) == list(memory.recorded)
    assert all(torch.equal(stored[name], x) for name, x in memory.recorded.items())
    opened = open_trajectory(path)
    xr.testing.assert_identical(opened, memory.to_xarray())
    assert list(opened.data_vars) == list(memory.recorded)
    gradients = activity_gradients(case.network, case.x, case.y)
    errors = memory.error(gradients)
    assert all(torch.equal(error, errors[name]) for name, error in stored.error(gradients).items())
    with xr.open_zarr(path, consolidated=False) as dataset:  # by any other tool
        assert dataset.sizes["time"] == len(memory.times)


@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.bool, torch.int64, torch.complex128])
def test_types(dtype, tmp_path):
    def function(state):
        return {"größe x": (10 * state["hidden1"]).to(dtype), "norm": state["hidden1"].norm()}

    memory = solve(problem_of(mlp_case()), steps=5, record=function)
    stored = solve(problem_of(mlp_case()), steps=5, record=Record(function, path=tmp_path / "types.zarr"))
    assert stored["größe x"].dtype == dtype
    assert torch.equal(stored["größe x"], memory["größe x"])
    assert torch.equal(stored["norm"], memory["norm"])
    xr.testing.assert_identical(open_trajectory(tmp_path / "types.zarr"), memory.to_xarray())


@pytest.mark.usefixtures("short_blocks")
def test_a_store_can_be_read_while_it_grows(tmp_path):
    """Whole blocks are readable, and an earlier store is replaced once the initial state has been recorded."""
    path, seen, lengths = tmp_path / "growing.zarr", [], []
    solve(problem_of(graph_case()), "euler", steps=20, record=Record(path=path))

    def record(state):
        if seen:
            dataset = open_trajectory(path)
            assert dataset.attrs["status"] == "running"
            assert np.isfinite(dataset["hidden1"]).all()
            lengths.append(dataset.sizes["time"])
        seen.append(1)
        return state

    solve(problem_of(mlp_case()), "euler", steps=10, record=Record(record, path=path))
    assert lengths == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]
    assert open_trajectory(path).attrs["status"] == "completed"


@pytest.mark.parametrize("block", [1, 2, 4])
@pytest.mark.parametrize("integrator", ["euler", "scipy:RK45"])
def test_a_relaxation_that_diverges_leaves_the_good_part(integrator, block, tmp_path, monkeypatch, generator):
    """The non-finite state is removed, whether or not it begins a block."""
    monkeypatch.setattr(zarr_store, "BLOCK_POINTS", block)
    problem = problem_of(exploding_case(generator), assumptions="random-feedback", start="zero")
    reached = []
    for path in (None, tmp_path / "diverged.zarr"):
        with pytest.raises(DivergenceError) as caught:
            solve(problem, integrator, steps=50, dt=0.5, record=Record(path=path))
        reached.append(caught.value.trajectory)
    memory, stored = reached
    dataset = open_trajectory(tmp_path / "diverged.zarr")
    assert dataset.attrs["status"] == "diverged"
    assert tuple(dataset["time"].values) == stored.times == memory.times
    for name, x in memory.recorded.items():
        assert torch.isfinite(x).all()
        assert torch.equal(stored[name], x)


@pytest.mark.usefixtures("short_blocks")
def test_an_error_on_the_way_leaves_all_points_before(tmp_path):
    returned = iter([{"a": 1.0}] * 6 + [{"b": 1.0}])
    record = Record(lambda _: next(returned), path=tmp_path / "x.zarr")
    with pytest.raises(
        ActrelaxError, match=r"^the recorded names were 'a' at first, got 'b' at time 1\.2: return the same names"
    ):
        solve(problem_of(mlp_case()), "euler", dt=0.2, record=record)
    dataset = open_trajectory(tmp_path / "x.zarr")
    assert dataset["time"].values == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert dataset.attrs["status"] == "failed"


def test_a_method_that_reaches_its_limit_leaves_a_failed_store(tmp_path):
    path, options = tmp_path / "x.zarr", SciPyOptions(max_evaluations=100)
    with pytest.raises(ActrelaxError, match=r"^stopped at t = [\d.]+ after 100 evaluations"):
        solve(problem_of(mlp_case()), "scipy:RK45", Steps(1000, dt=0.01), record=Record(path=path), options=options)
    dataset = open_trajectory(path)
    assert dataset.attrs["status"] == "failed"
    assert dataset.sizes["time"] == 1  # SciPy's methods record once they have ended


def test_a_store_appears_with_all_its_arrays(tmp_path, monkeypatch):
    """While arrays are being created, a reader finds the earlier store or none."""
    path, seen, create = tmp_path / "run.zarr", [], zarr.Group.create

    def create_and_read(*arguments, **options):
        array = create(*arguments, **options)
        seen.append(open_trajectory(path).attrs["status"])
        return array

    solve(problem_of(mlp_case()), "euler", steps=3, record=Record(path=path))
    with monkeypatch.context() as patched:
        patched.setattr(zarr.Group, "create", create_and_read)
        solve(problem_of(mlp_case()), "euler", steps=5, record=Record(path=path))
    assert len(seen) >= 5
    assert set(seen) == {"completed"}
    assert open_trajectory(path).sizes["time"] == 6
    assert [file.name for file in tmp_path.iterdir()] == ["run.zarr"]


def test_a_store_behind_a_link(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "run.zarr").symlink_to(tmp_path / "scratch" / "there.zarr")
    for steps in (2, 3):
        solve(problem_of(mlp_case()), "euler", steps=steps, record=Record(path=tmp_path / "run.zarr"))
        assert open_trajectory(tmp_path / "scratch" / "there.zarr").sizes["time"] == steps + 1


def test_a_write_that_fails_at_the_end_keeps_the_result(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    original, calls = xr.Dataset.to_zarr, []
    monkeypatch.setattr(xr.Dataset, "to_zarr", lambda *a, **o: original(*a, **o) if not calls else full())
    with pytest.raises(ActrelaxError, match=r"^can't write .*x\.zarr: No space left on device\.$") as caught:
        solve(
            problem_of(mlp_case()),
            "euler",
            steps=1,
            record=Record(
                lambda state: (calls.append(1) if (tmp_path / "x.zarr").exists() else None) or state,
                path=tmp_path / "x.zarr",
            ),
        )
    assert caught.value.trajectory.steps == 1


def test_files_of_a_killed_program_are_no_warning(tmp_path):
    path = tmp_path / "run.zarr"
    solve(problem_of(mlp_case()), "euler", steps=3, record=Record(path=path))
    (path / "zarr.0123.partial").write_text("{")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_trajectory(path).sizes["time"] == 4


KILLED = """
import os, signal, sys
import torch
torch.set_default_dtype(torch.float64)
import zarr
from networks import mlp_case
from actrelax.models.engines import solve
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import Record

case, resize, calls = mlp_case(), zarr.Array.resize, []

def resize_and_die(array, shape):
    resize(array, shape)
    calls.append(shape)
    if len(calls) == 7:  # five arrays grow per block
        os.kill(os.getpid(), signal.SIGKILL)

zarr.Array.resize = resize_and_die
problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
solve(problem, "euler", eta=0.2, steps=200, record=Record(path=sys.argv[1]))
"""


def test_a_program_that_is_killed_loses_one_block(tmp_path):
    """After a kill while the second block is written, some arrays have grown, but the first block is readable."""
    path, tests = tmp_path / "killed.zarr", str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    lengths = {array.shape[0] for name, array in zarr.open_group(path, mode="r").arrays() if "_unit" not in name}
    assert lengths == {64, 128}
    memory = solve(problem_of(mlp_case()), "euler", eta=0.2, steps=63, record=True)
    dataset = open_trajectory(path)
    assert dataset.attrs["status"] == "running"
    assert np.array_equal(dataset["time"], memory.times)
    assert all(np.array_equal(dataset[name], x) for name, x in memory.recorded.items())


@pytest.mark.usefixtures("short_blocks")
def test_a_disk_that_is_full_keeps_the_blocks_before(tmp_path, monkeypatch):
    original, writes = xr.Dataset.to_zarr, []

    def full(*arguments, **options):
        writes.append(1)
        if len(writes) == 4:  # two create the store and its problem
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments, **options)

    monkeypatch.setattr(xr.Dataset, "to_zarr", full)
    with pytest.raises(ActrelaxError, match=rf"^can't write {tmp_path}/x\.zarr: No space left on device\.$"):
        solve(problem_of(mlp_case()), "euler", steps=12, record=Record(path=tmp_path / "x.zarr"))
    assert open_trajectory(tmp_path / "x.zarr").sizes["time"] == 4
    assert open_trajectory(tmp_path / "x.zarr").attrs["status"] == "failed"
    assert len(writes) == 4


def test_paths_that_can_not_be_written(tmp_path):
    """A file, a folder with other files, and an impossible folder are refused and left unchanged."""
    (tmp_path / "file.zarr").write_text("in the way")
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "folder.zarr" / "notes.txt").write_text("mine")
    for path in (tmp_path / "file.zarr", tmp_path / "folder.zarr", tmp_path / "file.zarr" / "x.zarr"):
        with pytest.raises(ActrelaxError, match=rf"^can't write {path}: \S.*\.$"):
            solve(problem_of(mlp_case()), steps=2, record=Record(path=path))
    assert (tmp_path / "file.zarr").read_text() == "in the way"
    assert (tmp_path / "folder.zarr" / "notes.txt").read_text() == "mine"
    for path in (*tmp_path.iterdir(), tmp_path / "missing.zarr"):
        with pytest.raises(ActrelaxError, match=rf"^can't read {path} as a trajectory: it is missing, damaged or"):
            open_trajectory(path)


def test_memory_does_not_grow_with_a_store(tmp_path, monkeypatch):
    """Of forty more states of 400 kB, memory would keep all, but a block only five."""
    monkeypatch.setattr(zarr_store, "BLOCK_BYTES", 2**21)
    case = mlp_case(widths=(3, 40, 5, 2))
    case.x, case.y = case.x[:1].expand(1250, -1).clone(), case.y[:1].expand(1250).clone()
    problem = problem_of(case)

    def peak(steps, path=None):
        def record(activities):  # NumPy's memory is traced, torch's is not
            return {"hidden1": torch.from_numpy(activities["hidden1"].numpy().copy())}

        tracemalloc.start()
        solve(problem, "euler", eta=0.2, steps=steps, record=Record(record, path=path))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    one = 1250 * 40 * 8
    assert peak(60) - peak(20) > 39 * one
    path = tmp_path / "long.zarr"
    peak(20, path=path)  # loads modules once
    assert peak(60, path=path) - peak(20, path=path) < 10 * one


def test_without_zarr_the_message_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    sentence = r'^a path that ends in \.zarr needs the package zarr: pip install "actrelax\[zarr\]"\.$'
    with pytest.raises(ActrelaxError, match=sentence):
        solve(problem_of(mlp_case()), steps=2, record=Record(path=tmp_path / "x.zarr"))
    with pytest.raises(ActrelaxError, match=sentence):
        open_trajectory(tmp_path / "x.zarr")
