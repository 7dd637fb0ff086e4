"""Recordings with labels, in memory and in NetCDF files that grow while a relaxation runs."""

import errno
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5netcdf
import h5py
import numpy as np
import pytest
import torch
import xarray as xr
from networks import exploding_case, graph_case, mlp_case

from actrelax.models.assumptions import Assumptions, Knobs
from actrelax.models.engines import solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import activity_gradients
from actrelax.models.network import Network, Projection
from actrelax.models.problem import RelaxationProblem, UnitDynamics
from actrelax.models.results import DivergenceError, relative_error
from actrelax.models.results.xarray_io import open_trajectory

RUNS = {
    "euler": {"integrator": "euler", "eta": 0.2, "steps": 12},
    "scipy": {"integrator": "scipy:RK45", "dt": 0.2, "steps": 12},
    "equilibrium": {"integrator": "equilibrium"},
}


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
def test_labels(options):
    """Activities are (time, sample, NAME_unit), a population's units in the order of its flattened shape."""
    trajectory = solve(problem_of(graph_case()), **options, record=True)
    dataset = trajectory.to_xarray()
    assert list(dataset.data_vars) == list(trajectory.recorded)
    assert dataset["conv1"].dims == ("time", "sample", "conv1_unit")
    assert tuple(dataset["conv1"].attrs["shape"]) == (4, 3, 3)
    assert np.array_equal(dataset["time"], trajectory.times)
    assert dataset["time"].attrs["units"] == "the unit of tau"
    for name, x in trajectory.recorded.items():
        assert np.array_equal(dataset[name].values, x.flatten(2).numpy())
    one = dataset["conv1"].isel(time=-1, sample=1).values.reshape(dataset["conv1"].attrs["shape"])
    assert np.array_equal(one, trajectory.final["conv1"][1].numpy())


def test_without_a_recording_the_final_state_is_the_only_point_in_time():
    problem = problem_of(mlp_case())
    trajectory = solve(problem, "euler", eta=0.2, steps=12)
    dataset = trajectory.to_xarray()
    assert dataset["time"].values == pytest.approx([2.4])
    assert all(np.array_equal(dataset[name][0], x) for name, x in trajectory.final.items())
    settled = solve(problem, "scipy:RK45", dt=0.2, duration=100.0, stop_change=1e-4, dense=True)
    (time,) = settled.to_xarray()["time"].values
    assert time == settled.time
    assert np.array_equal(settled.at(time)["hidden1"], settled.final["hidden1"])


def test_attributes_say_what_it_was():
    problem = problem_of(mlp_case(), tau=2.0, assumptions="unfrozen")
    attributes = solve(problem, "rk4", dt=0.4, steps=3).to_xarray().attrs
    expected = {
        "problem": repr(problem),
        "assumptions": "unfrozen",
        "integrator": "rk4",
        "engine": "torch",
        "dt": 0.4,
        "steps": 3,
        "status": "completed",
        "feedback_applications": 3 * 4 * 3,
    }
    assert {name: attributes[name] for name in expected} == expected
    versions = json.loads(attributes["versions"])
    assert versions["torch"] == torch.__version__
    assert {"rtol", "codegen"}.isdisjoint(attributes)
    assert set(versions) == {"python", "actrelax", "numpy", "scipy", "torch", "brian2"}
    own = Assumptions(dense=Knobs(activity_gain="none", presynaptic="current"))
    said = solve(problem_of(mlp_case(), assumptions=own), steps=1).to_xarray().attrs["assumptions"]
    assert json.loads(said)["dense"]["presynaptic"] == "current"


def test_attributes_list_the_options_of_the_engine(tmp_path):
    problem, path = problem_of(mlp_case()), tmp_path / "options.nc"
    options = {"rtol": 1e-5, "atol": np.float32(0.25), "max_evaluations": 5000, "dense": True}
    given = solve(problem, "scipy:RK45", dt=0.2, steps=3, record=True, path=path, **options)
    assert given.options == options
    with open_trajectory(path) as dataset:
        expected = {"rtol": 1e-5, "atol": 0.25, "max_evaluations": 5000, "dense": "True"}
        assert {name: dataset.attrs[name] for name in options} == expected


def test_a_file_says_what_it_is_from_its_beginning(tmp_path):
    """All that is known by then; how it ended replaces the status."""
    path, seen = tmp_path / "growing.nc", []

    def record(state):
        if path.exists():
            with open_trajectory(path) as dataset:
                seen.append(dataset.attrs)
        return state

    trajectory = solve(problem_of(mlp_case()), "scipy:RK45", dt=0.2, steps=2, rtol=1e-5, record=record, path=path)
    full = trajectory.to_xarray().attrs
    later = ("steps", "feedback_applications")
    for early in seen:
        assert early == {name: value for name, value in full.items() if name not in later} | {"status": "running"}
    assert len(seen) == 2
    with open_trajectory(path) as dataset:
        assert dataset.attrs["status"] == "completed"


@pytest.mark.parametrize(
    "chosen", [[6, 5, 4, 3, 2, 1, 0], [0, 5], (3,), range(2, 5), np.array([1, 4], np.uint8), torch.tensor([5, 2])]
)
def test_chosen_units_are_labelled_by_their_indices(chosen, tmp_path):
    """A unit is found under its index in the flattened shape, in memory, in a file that grew and in one saved."""
    case, indices = mlp_case(), [int(i) for i in chosen]
    options = {"integrator": "euler", "dt": 0.2, "steps": 3}
    full = solve(problem_of(case), **options, record="hidden1")
    memory = solve(problem_of(case), **options, record={"hidden1": chosen})
    file = solve(problem_of(case), **options, record={"hidden1": chosen}, path=tmp_path / "some.nc")
    memory.save(tmp_path / "saved.nc")
    assert full.to_xarray()["hidden1_unit"].values.tolist() == list(range(7))
    with open_trajectory(tmp_path / "some.nc") as grown, open_trajectory(tmp_path / "saved.nc") as saved:
        for dataset in (memory.to_xarray(), file.to_xarray(), grown, saved):
            assert dataset["hidden1"].dims == ("time", "sample", "hidden1_unit")
            assert dataset["hidden1_unit"].values.tolist() == indices
            for unit in indices:
                one = dataset["hidden1"].sel(hidden1_unit=unit, time=0.6)
                assert np.array_equal(one, full.final["hidden1"][:, unit])
        xr.testing.assert_identical(grown, saved)
    gradients = activity_gradients(case.network, case.x, case.y)
    g, x = gradients["hidden1"].numpy()[:, indices], full["hidden1"].numpy()[:, :, indices]
    expected = [np.abs(at - g).max() / np.abs(g).max() for at in x]
    for trajectory in (memory, file):
        np.testing.assert_allclose(trajectory.error(gradients)["hidden1"], expected, rtol=1e-13)


def test_chosen_units_of_a_population_with_a_shape():
    case = graph_case()
    some = solve(problem_of(case), "euler", steps=2, record={"conv1": [35, 1]})
    gradients = activity_gradients(case.network, case.x, case.y)
    assert tuple(some.to_xarray()["conv1"].attrs["shape"]) == (4, 3, 3)
    last = some.final["conv1"][:, [3, 0], [2, 0], [2, 1]]
    assert torch.equal(some["conv1"][-1], last)
    g = gradients["conv1"][:, [3, 0], [2, 0], [2, 1]]
    assert float(some.error(gradients)["conv1"][-1]) == relative_error(last, g)


def test_errors_need_activities():
    case = mlp_case()
    gradients = activity_gradients(case.network, case.x, case.y)
    means = solve(problem_of(case), steps=2, record=lambda state: {"hidden1": state["hidden1"].mean(1)})
    with pytest.raises(
        ActrelaxError, match=r"^what was recorded as 'hidden1' is not that population's activity: leave"
    ):
        means.error(gradients)


UNLABELLED = {
    "time": ({"time": 1.0}, r"^'time' can't be labelled, a dimension is called so: choose another name\.$"),
    "a_0": ({"a": [1.0, 2.0], "a_0": 3.0}, r"^'a_0' can't be labelled, a dimension is called so: choose"),
    "unit": ({"hidden1": np.ones((3, 7)), "hidden1_unit": 1.0}, r"^'hidden1_unit' can't be labelled, a dimension is"),
    "sample": ({"hidden1": np.ones((3, 7)), "sample": 1.0}, r"^'sample' can't be labelled, a dimension is called so"),
    "g/x": ({"g/x": 1.0}, r"^NetCDF can't hold the name 'g/x': begin with a letter, a digit or _, without slashes,"),
    "empty": ({"": 1.0}, r"^NetCDF can't hold the name '': begin"),
    "dot": ({".": 1.0}, r"^NetCDF can't hold the name '\.': begin"),
    "space": ({"x ": 1.0}, r"^NetCDF can't hold the name 'x ': begin"),
    "nothing": ({"x": np.ones((2, 0))}, r"^'x' can't be labelled, it is empty, of shape \(2, 0\): leave it out\.$"),
}


@pytest.mark.parametrize(("returned", "sentence"), UNLABELLED.values(), ids=UNLABELLED)
def test_what_can_not_be_labelled(returned, sentence, tmp_path):
    """In memory it is kept all the same; a file that was there is left alone."""
    problem, path = problem_of(mlp_case()), tmp_path / "before.nc"
    solve(problem, steps=2).save(path)
    before = path.read_bytes()
    memory = solve(problem, steps=2, record=lambda _: returned)
    assert list(memory.recorded) == list(returned)
    for attempt in (
        memory.to_xarray,
        lambda: memory.save(path),
        lambda: solve(problem, steps=2, record=lambda _: returned, path=path),
    ):
        with pytest.raises(ActrelaxError, match=sentence):
            attempt()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("time", "h2"), r"^'time' can't be labelled, a dimension is called so: choose another name\.$"),
        (("sample", "h2"), r"^'sample' can't be labelled, a dimension is called so: choose another name\.$"),
        (("h1", "h1_unit"), r"^'h1_unit' can't be labelled, a dimension is called so: choose another name\.$"),
        (("a/b", "h2"), r"^NetCDF can't hold the name 'a/b': begin with a letter"),
    ],
)
def test_populations_that_can_not_be_labelled(names, sentence, tmp_path):
    first, second = names
    network = Network(
        (3,),
        {first: "tanh", second: "tanh", "output": "identity"},
        [
            Projection("input", first, torch.nn.Linear(3, 4), name="p1"),
            Projection(first, second, torch.nn.Linear(4, 4), name="p2"),
            Projection(second, "output", torch.nn.Linear(4, 2), name="p3"),
        ],
    )
    problem = RelaxationProblem.from_batch(network, torch.ones(2, 3), torch.tensor([0, 1]))
    trajectory = solve(problem, steps=2, record=True)
    assert list(trajectory.recorded) == [first, second, "output"]
    with pytest.raises(ActrelaxError, match=sentence):
        trajectory.to_xarray()
    with pytest.raises(ActrelaxError, match=sentence):
        solve(problem, steps=2, record=True, path=tmp_path / "x.nc")
    assert not list(tmp_path.iterdir())


def test_names_that_are_unusual_but_can_be_held(tmp_path):
    names = ["x", "_", "‖x‖", "größe", "a b", "2nd", "a.b"]
    path = tmp_path / "names.nc"
    file = solve(problem_of(mlp_case()), steps=2, record=lambda _: {name: [1.0, 2.0] for name in names}, path=path)
    with open_trajectory(path) as dataset:
        assert list(dataset.data_vars) == names
        assert dataset.equals(file.to_xarray())


@pytest.mark.parametrize(
    ("dtype", "labelled"),
    [
        (torch.bfloat16, np.float32),
        (torch.float16, np.float32),
        (torch.float32, np.float32),
        (torch.float64, np.float64),
        (torch.bool, np.bool_),
        (torch.int64, np.int64),
        (torch.uint8, np.uint8),
        (torch.complex128, np.complex128),
    ],
)
def test_types(dtype, labelled, tmp_path):
    """What comes back is of the recorded type; labelled it is of the next one that NetCDF has."""

    def function(state):
        return {"x": (10 * state["hidden1"]).to(dtype)}

    problem, path = problem_of(mlp_case()), tmp_path / "type.nc"
    memory = solve(problem, steps=3, record=function)
    file = solve(problem, steps=3, record=function, path=path)
    memory.save(tmp_path / "saved.nc")
    assert file["x"].dtype == memory["x"].dtype == dtype
    assert torch.equal(file["x"], memory["x"])
    assert memory["x"].any()
    with open_trajectory(path) as grown, open_trajectory(tmp_path / "saved.nc") as saved:
        for dataset in (memory.to_xarray(), file.to_xarray(), grown, saved):
            assert dataset["x"].dtype == labelled
            assert np.array_equal(dataset["x"], memory["x"].to(torch.complex128 if dtype.is_complex else torch.float64))
        xr.testing.assert_identical(grown, saved)


def test_a_network_in_bfloat16(tmp_path):
    case = mlp_case()
    case.network.to(torch.bfloat16)
    case.x = case.x.to(torch.bfloat16)
    trajectory = solve(problem_of(case), "euler", steps=2, record=True, path=tmp_path / "half.nc")
    assert trajectory["hidden1"].dtype == torch.float32  # states, the weights are bfloat16
    assert trajectory.to_xarray()["hidden1"].dtype == np.float32
    assert torch.equal(trajectory["hidden1"][-1], trajectory.final["hidden1"])


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
def test_saved_and_opened_it_is_the_same(options, tmp_path):
    trajectory = solve(problem_of(graph_case()), **options, record=True)
    path = tmp_path / "new folder" / "relaxation.nc"
    trajectory.save(path)
    with open_trajectory(str(path)) as dataset:
        xr.testing.assert_equal(dataset, trajectory.to_xarray())
        for name, value in trajectory.to_xarray().attrs.items():
            assert dataset.attrs[name] == value
        assert tuple(dataset["conv1"].attrs["shape"]) == (4, 3, 3)
    assert [file.name for file in path.parent.iterdir()] == ["relaxation.nc"]
    trajectory.save(path)  # replaced


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("every", [1, 5])
def test_a_file_that_grows_is_the_recording_in_memory(options, every, tmp_path):
    """Bit for bit, and of the same form as one that is saved."""
    problem, path = problem_of(graph_case()), tmp_path / "folder" / "growing.nc"
    memory = solve(problem, **options, record=True, every=every)
    file = solve(problem, **options, record=True, every=every, path=str(path))
    assert file.times == memory.times
    assert len(file.times) == (12 // every + 1 if "steps" in options else 1 + (every == 1))
    assert list(file.recorded) == list(memory.recorded)
    assert len(file.recorded) == len(memory.recorded)
    for name, x in memory.recorded.items():
        assert torch.equal(file[name], x)
    assert file.to_xarray().identical(memory.to_xarray())
    memory.save(tmp_path / "saved.nc")
    with open_trajectory(path) as growing, open_trajectory(tmp_path / "saved.nc") as saved:
        xr.testing.assert_identical(growing, saved)


def test_some_populations_and_functions(tmp_path):
    """What a function returns has dimensions of its own; a population's shape is recognised."""

    def function(state):
        x = state["hidden1"]
        return {"norm": x.norm(), "means": x.mean(1), "hidden1": x, "hidden2": x @ x.T}

    problem = problem_of(mlp_case(), dynamics={"hidden1": UnitDynamics.second_order(1.0, 0.7)})
    options = {"integrator": "euler", "dt": 0.2, "steps": 4}
    memory = solve(problem, **options, record=function)
    file = solve(problem, **options, record=function, path=tmp_path / "function.nc")
    full = solve(problem, **options, record="hidden1")["hidden1"]
    assert relative_error(memory["norm"], full.flatten(1).norm(dim=1)) < 1e-14
    assert {name: memory.to_xarray()[name].dims for name in memory.recorded} == {
        "norm": ("time",),
        "means": ("time", "means_0"),
        "hidden1": ("time", "sample", "hidden1_unit"),
        "hidden2": ("time", "hidden2_0", "hidden2_1"),
    }
    assert file.to_xarray().identical(memory.to_xarray())
    with open_trajectory(tmp_path / "function.nc") as dataset:
        assert np.array_equal(dataset["hidden2"], memory["hidden2"])


@pytest.mark.parametrize("integrator", ["euler", "scipy:RK45"])
@pytest.mark.parametrize("every", [1, 2])
def test_a_relaxation_that_diverges_leaves_the_good_part(integrator, every, tmp_path, generator):
    case, path = exploding_case(generator), tmp_path / "diverged.nc"
    problem = problem_of(case, assumptions="random-feedback", start="zero")
    options = {"rtol": 1e-3} if integrator != "euler" else {}
    reached = []
    for target in (None, path):
        with pytest.raises(DivergenceError) as caught:
            solve(problem, integrator, steps=50, dt=0.5, record=True, every=every, path=target, **options)
        reached.append(caught.value.trajectory)
    memory, file = reached
    assert file.times == memory.times == ((0.0, 0.5, 1.0)[::every] if integrator == "euler" else (0.0,))
    assert all(torch.equal(file[name], x) for name, x in memory.recorded.items())
    assert all(torch.isfinite(x).all() for x in memory.recorded.values())
    with open_trajectory(path) as dataset:
        assert dataset.sizes["time"] == len(memory.times)
        assert dataset.attrs["status"] == "diverged"


def test_a_file_that_is_there_is_replaced(tmp_path):
    path = tmp_path / "again.nc"
    solve(problem_of(graph_case()), "euler", steps=20, record=True, path=path)
    trajectory = solve(problem_of(mlp_case()), "euler", steps=3, record="hidden2", path=path)
    with open_trajectory(path) as dataset:
        assert list(dataset.data_vars) == ["hidden2"]
        assert dataset.sizes["time"] == 4
    path.write_text("something else")
    solve(problem_of(mlp_case()), "euler", steps=3, record="hidden2", path=path)
    assert trajectory["hidden2"].shape == (4, 3, 6)


@pytest.mark.parametrize("content", [b"", b"no NetCDF at all", None, "cut", "HDF5"])
def test_files_that_can_not_be_read(content, tmp_path):
    path = tmp_path / "damaged.nc"
    if content == "cut":
        solve(problem_of(mlp_case()), "euler", steps=3).save(path)
        path.write_bytes(path.read_bytes()[:1500])
    elif content is not None and content != "HDF5":
        path.write_bytes(content)
    elif content == "HDF5":
        path = tmp_path  # a folder
    with pytest.raises(ActrelaxError) as refused:
        open_trajectory(path)
    assert str(refused.value) == (
        f"{path} can't be read as a trajectory: it is missing, still being written, damaged or something else."
    )


def test_the_program_that_writes_can_look_at_what_is_there(tmp_path):
    """A function of the states reads the file that they are appended to."""
    path, lengths = tmp_path / "growing.nc", []

    def record(state):
        if path.exists():
            with open_trajectory(path) as dataset:
                lengths.append(dataset.sizes["time"])
                assert np.isfinite(dataset["hidden1"]).all()
        return state

    trajectory = solve(problem_of(mlp_case()), "euler", steps=3, record=record, path=path)
    assert lengths == [1, 2, 3]
    assert trajectory["hidden1"].shape == (4, 3, 7)


def test_paths_that_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.nc").mkdir()
    problem = problem_of(mlp_case())
    for path in (tmp_path / "file" / "x.nc", tmp_path / "folder.nc"):
        with pytest.raises(ActrelaxError, match=rf"^can't write {path}: \S.*\.$"):
            solve(problem, steps=2).save(path)
        with pytest.raises(ActrelaxError, match=rf"^can't write {path}: \S.*\.$"):
            solve(problem, steps=2, record=True, path=path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder.nc"]
    with pytest.raises(ActrelaxError, match=r"^nothing is recorded that could be written to path: say what to record"):
        solve(problem, steps=2, path=tmp_path / "x.nc")


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(h5py.File, "flush", full)
    with pytest.raises(ActrelaxError, match=rf"^can't write {tmp_path}/x\.nc: No space left on device\.$"):
        solve(problem_of(mlp_case()), steps=2, record=True, path=tmp_path / "x.nc")


def test_a_recorder_that_fails_leaves_a_file_that_can_be_opened(tmp_path):
    path, seen = tmp_path / "stopped.nc", []

    def function(state):
        seen.append(1)
        if len(seen) == 5:
            raise KeyError("hidden9")
        return {"hidden1": state["hidden1"]}

    with pytest.raises(KeyError, match="hidden9") as caught:
        solve(problem_of(mlp_case()), "euler", steps=20, record=function, path=path)
    with open_trajectory(path) as dataset:  # although the exception is still at hand
        assert dataset.sizes["time"] == 4
    assert caught.value.args == ("hidden9",)


KILLED = """
import os, signal, sys
import torch
torch.set_default_dtype(torch.float64)
from networks import mlp_case
from actrelax.models.engines.solve import solve
from actrelax.models.problem.problem import RelaxationProblem

case, seen = mlp_case(), []

def record(state):
    if len(seen) == 30:
        os.kill(os.getpid(), signal.SIGKILL)
    seen.append(1)
    return state

problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
solve(problem, "euler", eta=0.2, steps=100, record=record, path=sys.argv[1])
"""


def test_what_a_killed_program_wrote_can_be_opened(tmp_path):
    """Killed between two points in time: everything up to there is in the file."""
    path, tests = tmp_path / "killed.nc", str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    memory = solve(problem_of(mlp_case()), "euler", eta=0.2, steps=29, record=True)
    with open_trajectory(path) as dataset:
        assert dataset.attrs["status"] == "running"
        assert np.array_equal(dataset["time"], memory.times)
        for name, x in memory.recorded.items():
            assert np.array_equal(dataset[name], x)


LIVE = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "print('there', flush=True); input()")


LOOKED = """
import sys
from actrelax.models.results.xarray_io import open_trajectory

with open_trajectory(sys.argv[1]) as dataset:
    dataset.load().to_netcdf(sys.argv[2], engine="h5netcdf")
"""


def test_a_file_that_another_process_writes(tmp_path):
    """It is locked, for reading and for being replaced; without locks what is there can be read between two points."""
    path, copy, tests = tmp_path / "live.nc", tmp_path / "copy.nc", str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    memory = solve(problem_of(mlp_case()), "euler", eta=0.2, steps=100, record=True)
    with subprocess.Popen([sys.executable, "-c", LIVE, str(path)], env=environment, **pipes) as writer:
        assert writer.stdout.readline() == "there\n"
        with pytest.raises(
            ActrelaxError, match=r"live\.nc can't be read as a trajectory: it is missing, still being wr"
        ):
            open_trajectory(path)
        with pytest.raises(ActrelaxError, match=r"^can't write .*live\.nc: another process has it open\.$"):
            solve(problem_of(mlp_case()), steps=2, record=True, path=path)
        unlocked = environment | {"HDF5_USE_FILE_LOCKING": "FALSE"}
        subprocess.run([sys.executable, "-c", LOOKED, str(path), str(copy)], env=unlocked, check=True)
        writer.communicate("go on\n", timeout=60)
        assert writer.returncode == 0
    with open_trajectory(copy) as live, open_trajectory(path) as whole:
        assert (live.attrs["status"], whole.attrs["status"]) == ("running", "completed")
        assert np.array_equal(live["time"], memory.times[:30])
        for name, x in memory.recorded.items():
            assert np.array_equal(live[name], x[:30])
            assert np.array_equal(whole[name], x)


def test_memory_does_not_grow_with_a_file(tmp_path):
    """A hundred steps more, a hundred states of 400 kB: in memory they stay, in a file they don't."""
    case = mlp_case(widths=(3, 40, 5, 2))
    case.x, case.y = case.x[:1].expand(1250, -1).clone(), case.y[:1].expand(1250).clone()
    problem = problem_of(case)

    def peak(**options):
        tracemalloc.start()
        state = np.zeros(0)

        def record(activities):
            nonlocal state
            state = activities["hidden1"].numpy().copy()  # NumPy's memory is traced, torch's is not
            return {"hidden1": torch.from_numpy(state)}

        solve(problem, "euler", eta=0.2, record=record, **options)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    one = 1250 * 40 * 8
    assert peak(steps=60) > 60 * one
    assert peak(steps=60, path=tmp_path / "long.nc") < 12 * one


def test_it_is_a_netcdf_file_of_the_usual_form(tmp_path):
    """Without xarray: an unlimited time, chunks of one state, the attributes of the conventions."""
    path = tmp_path / "growing.nc"
    solve(problem_of(mlp_case()), "euler", eta=0.2, steps=12, record=True, path=path)
    with h5netcdf.File(path, "r") as file:
        assert file.dimensions["time"].isunlimited()
        assert file.variables["hidden1"].chunks == (1, 3, 7)
        assert file.attrs["Conventions"].startswith("CF-")
        assert file.variables["hidden1"].shape == (13, 3, 7)


def test_errors_over_time():
    """max |x - gradient| / max |gradient| of each population and each point in time, by hand."""
    case = mlp_case()
    gradients = activity_gradients(case.network, case.x, case.y)
    trajectory = solve(problem_of(case), "euler", eta=0.2, steps=12, record=["hidden1", "hidden3"], every=4)
    errors = trajectory.error(gradients)
    assert list(errors) == ["hidden1", "hidden3"]
    for name, error in errors.items():
        g = gradients[name].numpy()
        expected = [np.abs(x.numpy() - g).max() / np.abs(g).max() for x in trajectory[name]]
        np.testing.assert_allclose(error, expected, rtol=1e-13)
        assert error.shape == (4,)
        assert error[-1] < error[0]
    unrecorded = solve(problem_of(case), "euler", eta=0.2, steps=12).error(gradients)
    assert list(unrecorded) == [name for name in gradients if name != "input"]
    assert torch.equal(unrecorded["hidden1"], errors["hidden1"][-1:])


def test_errors_out_of_a_file(tmp_path):
    case = mlp_case()
    gradients = activity_gradients(case.network, case.x, case.y)
    options = {"integrator": "euler", "eta": 0.2, "steps": 12, "record": True}
    file = solve(problem_of(case), path=tmp_path / "errors.nc", **options).error(gradients)
    memory = solve(problem_of(case), **options).error(gradients)
    assert list(file) == list(memory)
    assert all(torch.equal(file[name], error) for name, error in memory.items())


def test_what_was_not_recorded():
    problem = problem_of(mlp_case())
    some = solve(problem, steps=2, record=["hidden1", "output"])
    with pytest.raises(ActrelaxError, match=r"^'hidden2' was not recorded; recorded: hidden1, output\.$"):
        some["hidden2"]
    with pytest.raises(ActrelaxError, match=r"^'hidden2' was not recorded; recorded: nothing: ask solve to record\.$"):
        solve(problem, steps=2)["hidden2"]
    assert some["hidden1"] is some.recorded["hidden1"]
