"""Recordings as xarray Datasets and NetCDF files."""

import dataclasses
import errno
import json
import os

import h5netcdf
import numpy as np
import pytest
import torch
import xarray as xr
from networks import exploding_case, graph_case, mlp_case, recurrent_case
from scipy import integrate
from torch import nn

from actrelax.models.assumptions import Assumptions, Knobs
from actrelax.models.engines import INTEGRATORS, SciPyOptions, Steps, settle, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import activity_gradients
from actrelax.models.network import Network, Projection
from actrelax.models.problem import RelaxationProblem, UnitDynamics
from actrelax.models.results import DivergenceError, Record, open_trajectory, relative_error

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
    assert dataset["time"].attrs["units"] == "units of tau"
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
    until, dense = Steps.until(1e-4, of="change", dt=0.2, most=500), SciPyOptions(dense=True)
    settled = solve(problem, "RK45", until, options=dense)
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


def test_attributes_have_the_products_of_gmres():
    """Only where GMRES solves: around cycles, at equilibrium."""
    case = recurrent_case()
    problem = RelaxationProblem.from_batch(case.network, settle(case.network, case.x), case.y)
    trajectory = solve(problem, "equilibrium")
    assert trajectory.to_xarray().attrs["products"] == trajectory.products > 1
    assert "products" not in solve(problem, "euler", steps=2, eta=0.1).to_xarray().attrs


def test_attributes_list_the_options_of_the_engine(tmp_path):
    problem, path = problem_of(mlp_case()), tmp_path / "options.nc"
    options = {"rtol": 1e-5, "atol": np.float32(0.25), "max_evaluations": 5000, "dense": True}
    given = solve(problem, "RK45", dt=0.2, steps=3, record=Record(path=path), options=SciPyOptions(**options))
    assert given.options == options
    with open_trajectory(path) as dataset:
        expected = {"rtol": 1e-5, "atol": 0.25, "max_evaluations": 5000, "dense": "True"}
        assert {name: dataset.attrs[name] for name in options} == expected


@pytest.mark.parametrize(
    "chosen", [[6, 5, 4, 3, 2, 1, 0], [0, 5], (3,), range(2, 5), np.array([1, 4], np.uint8), torch.tensor([5, 2])]
)
def test_chosen_units_are_labelled_by_their_indices(chosen, tmp_path):
    """A unit is found under its index in the flattened shape, in memory and in a file."""
    case, indices = mlp_case(), [int(i) for i in chosen]
    options = {"integrator": "euler", "dt": 0.2, "steps": 3}
    full = solve(problem_of(case), **options, record="hidden1")
    memory = solve(problem_of(case), **options, record={"hidden1": chosen})
    file = solve(problem_of(case), **options, record=Record({"hidden1": chosen}, path=tmp_path / "some.nc"))
    assert full.to_xarray()["hidden1_unit"].values.tolist() == list(range(7))
    with open_trajectory(tmp_path / "some.nc") as opened:
        for dataset in (memory.to_xarray(), opened):
            assert dataset["hidden1"].dims == ("time", "sample", "hidden1_unit")
            assert dataset["hidden1_unit"].values.tolist() == indices
            for unit in indices:
                one = dataset["hidden1"].sel(hidden1_unit=unit, time=0.6)
                assert np.array_equal(one, full.final["hidden1"][:, unit])
    gradients = activity_gradients(case.network, case.x, case.y)
    g, x = gradients["hidden1"].numpy()[:, indices], full["hidden1"].numpy()[:, :, indices]
    expected = [np.abs(at - g).max() / np.abs(g).max() for at in x]
    for trajectory in (memory, file):
        np.testing.assert_allclose(trajectory.error(gradients)["hidden1"], expected, rtol=1e-13)


UNLABELLED = {
    "time": ({"time": 1.0}, r"^'time' is also the name of a dimension: choose another name\.$"),
    "a_0": ({"a": [1.0, 2.0], "a_0": 3.0}, r"^'a_0' is also the name of a dimension: choose"),
    "unit": ({"hidden1": np.ones((3, 7)), "hidden1_unit": 1.0}, r"^'hidden1_unit' is also the name of a dimension"),
    "sample": ({"hidden1": np.ones((3, 7)), "sample": 1.0}, r"^'sample' is also the name of a dimension"),
    "g/x": ({"g/x": 1.0}, r"^NetCDF does not allow the name 'g/x': begin with a letter, a digit or _, and use no sl"),
    "empty": ({"": 1.0}, r"^NetCDF does not allow the name '': begin"),
    "dot": ({".": 1.0}, r"^NetCDF does not allow the name '\.': begin"),
    "space": ({"x ": 1.0}, r"^NetCDF does not allow the name 'x ': begin"),
    "nothing": ({"x": np.ones((2, 0))}, r"^'x' is empty, its shape is \(2, 0\): leave it out of the recording\.$"),
}


@pytest.mark.parametrize(("returned", "sentence"), UNLABELLED.values(), ids=UNLABELLED)
def test_values_that_can_not_be_labelled(returned, sentence, tmp_path):
    """They can be recorded in memory; for a file they are refused at the start, and an earlier file is left alone."""
    problem, path = problem_of(mlp_case()), tmp_path / "before.nc"
    solve(problem, steps=2).save(path)
    before = path.read_bytes()
    memory = solve(problem, steps=2, record=lambda _: returned)
    assert list(memory.recorded) == list(returned)
    calls = []
    for attempt in (
        memory.to_xarray,
        lambda: memory.save(path),
        lambda: solve(problem, steps=2, record=Record(lambda _: calls.append(1) or returned, path=path)),
    ):
        with pytest.raises(ActrelaxError, match=sentence):
            attempt()
    assert len(calls) == 1
    assert path.read_bytes() == before


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
    """Recorded types are kept in memory; Datasets and files have the nearest type of NetCDF."""

    def function(state):
        return {"x": (10 * state["hidden1"]).to(dtype)}

    path = tmp_path / "type.nc"
    memory = solve(problem_of(mlp_case()), steps=3, record=Record(function, path=path))
    assert memory["x"].dtype == dtype
    assert memory["x"].any()
    with open_trajectory(path) as opened:
        for dataset in (memory.to_xarray(), opened):
            assert dataset["x"].dtype == labelled
            assert np.array_equal(dataset["x"], memory["x"].to(torch.complex128 if dtype.is_complex else torch.float64))


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
def test_a_file_holds_what_the_trajectory_has(options, tmp_path):
    """Written by solve or by save; an earlier file is replaced, and no other file is left."""
    saved, solved = tmp_path / "new folder" / "saved.nc", tmp_path / "new folder" / "solved.nc"
    solve(problem_of(mlp_case()), "euler", steps=20, record=Record(path=solved))
    trajectory = solve(problem_of(graph_case()), **options, record=Record(path=str(solved)))
    trajectory.save(saved)
    with open_trajectory(str(saved)) as dataset, open_trajectory(solved) as other:
        xr.testing.assert_identical(dataset, other)
        xr.testing.assert_equal(dataset, trajectory.to_xarray())
        assert dataset.attrs == trajectory.to_xarray().attrs
        assert tuple(dataset["conv1"].attrs["shape"]) == (4, 3, 3)
        assert list(dataset.data_vars) == list(trajectory.recorded)
    assert sorted(file.name for file in saved.parent.iterdir()) == ["saved.nc", "solved.nc"]


def test_without_xarray_it_is_ordinary_netcdf(tmp_path):
    path = tmp_path / "ordinary.nc"
    solve(problem_of(mlp_case()), "euler", eta=0.2, steps=12, record=Record(path=path))
    with h5netcdf.File(path, "r") as file:
        assert file.dimensions["time"].isunlimited()
        assert file.attrs["Conventions"].startswith("CF-")
        assert file.variables["hidden1"].shape == (13, 3, 7)


def test_some_populations_and_functions(tmp_path):
    """Values of a function have dimensions named after them, except activities, which are recognised by their shape."""

    def function(state):
        x = state["hidden1"]
        return {"norm": x.norm(), "means": x.mean(1), "hidden1": x, "hidden2": x @ x.T}

    problem = problem_of(mlp_case(), dynamics={"hidden1": UnitDynamics.second_order(1.0, 0.7)})
    options = {"integrator": "euler", "dt": 0.2, "steps": 4}
    memory = solve(problem, **options, record=function)
    solve(problem, **options, record=Record(function, path=tmp_path / "function.nc"))
    full = solve(problem, **options, record="hidden1")["hidden1"]
    assert relative_error(memory["norm"], full.flatten(1).norm(dim=1)) < 1e-14
    assert {name: memory.to_xarray()[name].dims for name in memory.recorded} == {
        "norm": ("time",),
        "means": ("time", "means_0"),
        "hidden1": ("time", "sample", "hidden1_unit"),
        "hidden2": ("time", "hidden2_0", "hidden2_1"),
    }
    with open_trajectory(tmp_path / "function.nc") as dataset:
        assert np.array_equal(dataset["hidden2"], memory["hidden2"])


@pytest.mark.parametrize("integrator", ["euler", "scipy:RK45"])
@pytest.mark.parametrize("every", [1, 2])
def test_a_relaxation_that_diverges_leaves_the_good_part(integrator, every, tmp_path, generator):
    path = tmp_path / "diverged.nc"
    problem = problem_of(exploding_case(generator), assumptions="random-feedback", start="zero")
    options = None if integrator == "euler" else SciPyOptions(rtol=1e-3)
    with pytest.raises(DivergenceError) as caught:
        solve(problem, integrator, steps=50, dt=0.5, record=Record(every=every, path=path), options=options)
    times = (0.0, 0.5, 1.0)[::every] if integrator == "euler" else (0.0,)
    assert caught.value.trajectory.times == times
    with open_trajectory(path) as dataset:
        assert tuple(dataset["time"].values) == times
        assert dataset.attrs["status"] == "diverged"
        assert all(np.isfinite(x).all() for x in dataset.data_vars.values())


def test_names_that_files_lack_are_refused_before_the_relaxation(tmp_path, monkeypatch):
    layers = [Projection("input", "L2/3", nn.Linear(4, 3)), Projection("L2/3", "output", nn.Linear(3, 2))]
    network = Network((4,), {"L2/3": "tanh", "output": "identity"}, layers)
    problem = RelaxationProblem.from_batch(network, torch.ones(1, 4), torch.tensor([0]))
    monkeypatch.setattr(integrate, "solve_ivp", lambda *_, **__: pytest.fail("integrated"))
    scheme = dataclasses.replace(INTEGRATORS["euler"], step=lambda *_: pytest.fail("stepped"))
    for integrator in (scheme, "DOP853"):
        with pytest.raises(ActrelaxError, match=r"^NetCDF does not allow the name 'L2/3': begin with a letter"):
            solve(problem, integrator, dt=0.1, record=Record(path=tmp_path / "x.nc"))


@pytest.mark.parametrize("earlier", [True, False])
def test_an_error_on_the_way_writes_nothing(earlier, tmp_path):
    path, returned = tmp_path / "stopped.nc", iter([{"a": 1.0}, {"a": 2.0}, {"b": 3.0}])
    if earlier:
        path.write_text("earlier")
    with pytest.raises(
        ActrelaxError, match=r"^the recorded names were 'a' at first, got 'b' at time 0\.4: return the same names"
    ):
        solve(problem_of(mlp_case()), "euler", dt=0.2, record=Record(lambda _: next(returned), path=path))
    assert [file.read_text() for file in tmp_path.iterdir()] == ["earlier"] * earlier


def test_a_disk_that_is_full_leaves_the_earlier_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "x.nc"
    path.write_text("earlier")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ActrelaxError, match=rf"^can't write {path}: No space left on device\.$") as caught:
        solve(problem_of(mlp_case()), "euler", steps=2, record=Record(path=path))
    assert [file.read_text() for file in tmp_path.iterdir()] == ["earlier"]
    expected = solve(problem_of(mlp_case()), "euler", steps=2, record=True)
    assert torch.equal(caught.value.trajectory["hidden1"], expected["hidden1"])


def test_a_divergence_that_can_not_be_written_stays_a_divergence(tmp_path, monkeypatch, generator):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "x.nc"
    problem = problem_of(exploding_case(generator), assumptions="random-feedback", start="zero")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DivergenceError, match=r'^population "hidden\d" became non-finite at step') as caught:
        solve(problem, "euler", steps=50, dt=0.5, record=Record(path=path))
    assert caught.value.trajectory.times == (0.0, 0.5, 1.0)
    assert caught.value.__notes__ == [f"can't write {path}: No space left on device."]


@pytest.mark.parametrize("content", [b"", b"no NetCDF at all", None, "cut", "folder"])
def test_files_that_can_not_be_read(content, tmp_path):
    path = tmp_path / "damaged.nc"
    if content == "cut":
        solve(problem_of(mlp_case()), "euler", steps=3).save(path)
        path.write_bytes(path.read_bytes()[:1500])
    elif content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ActrelaxError) as refused:
        open_trajectory(path)
    assert str(refused.value) == (f"can't read {path} as a trajectory: it is missing, damaged or another kind of file.")


def test_paths_that_can_not_be_written(tmp_path):
    """They are refused at the start of a relaxation, not at its end."""
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.nc").mkdir()
    problem, calls = problem_of(mlp_case()), []
    for path in (tmp_path / "file" / "x.nc", tmp_path / "folder.nc"):
        with pytest.raises(ActrelaxError, match=rf"^can't write {path}: \S.*\.$"):
            solve(problem, steps=2).save(path)
        with pytest.raises(ActrelaxError, match=rf"^can't write {path}: \S.*\.$"):
            solve(problem, steps=2, record=Record(lambda state: calls.append(1) or state, path=path))
    assert len(calls) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder.nc"]
    with pytest.raises(
        ActrelaxError, match=r"^save writes NetCDF, got .*x\.zarr: end the path with \.nc, or pass it to solve"
    ):
        solve(problem, steps=2).save(tmp_path / "x.zarr")
