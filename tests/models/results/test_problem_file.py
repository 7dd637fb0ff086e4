"""A relaxation is repeated from its file alone."""

import copy
import json
from dataclasses import fields

import h5py
import pytest
import torch
from networks import RECURRENT, graph_case, mlp_case, recurrent_case
from torch import nn

from actrelax.models.assumptions import Assumptions, Knobs
from actrelax.models.engines import Brian2Options, SciPyOptions, Settle, Steps, settle, solve
from actrelax.models.engines.solve import OPTIONS
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Activation, Network, Projection
from actrelax.models.network.activations import leaky_relu
from actrelax.models.problem import ForwardProblem, RelaxationProblem, UnitDynamics
from actrelax.models.results import DivergenceError, Record, load_problem, open_trajectory

EACH = torch.linspace(0.5, 2, 6, dtype=torch.float64)
PROBLEMS = {
    "plain": {},
    "random psi, own start": {
        "assumptions": "random-feedback",
        "start": {f"hidden{i}": torch.full((3, n), 0.1 * i, dtype=torch.float64) for i, n in ((1, 7), (2, 6), (3, 5))},
        "clip": 0.7,
    },
    "sign, sparse": {"assumptions": "sign-feedback", "feedback_transform": "sparse-0.5"},
    "unfrozen, quantised": {"assumptions": "unfrozen", "feedback_transform": "quantised-9", "start": "zero"},
    "scaled": {"feedback_transform": "scaled-0.7"},
    "noise": {"tau": {"hidden1": 2.0, "hidden2": EACH, "hidden3": 1.5, "input": 3.0}, "noise": 0.1, "input_noise": 0.2},
    "noise of some": {"noise": {"hidden2": EACH / 10, "hidden1": 0.3}},
    "one projection": {
        "assumptions": Assumptions(
            projections={"hidden1->hidden2": {"feedback": "sign"}, "hidden2->hidden3": Knobs(activity_gain="none")}
        )
    },
    "delays": {"delays": {"hidden2->hidden3": 0.4}, "tau": 2},
    "dynamics": {"dynamics": {"hidden2": UnitDynamics.adapting(tau=1.0, tau_adaptation=3.0, strength=0.5)}},
}
RUNS = {
    "euler": {"integrator": "euler", "steps": Steps(12, dt=0.2)},
    "RK45": {"integrator": "RK45", "steps": Steps(dt=0.2, duration=2.4), "options": SciPyOptions(rtol=1e-6)},
    "brian2": {"integrator": "brian2:euler", "steps": Steps(12, dt=0.2), "options": Brian2Options()},
    "until": {"integrator": "euler", "steps": Steps.until(1e-3, of="change", dt=0.2, most=500)},
}


def problem_of(case, **options):
    if "assumptions" in options:
        case.network.add_feedback(options["assumptions"], torch.Generator().manual_seed(1))
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **options)


def again(path, record):
    problem, given = load_problem(path)
    generator = torch.Generator()
    if "random_state" in given:
        generator.set_state(given["random_state"])
    return solve(
        problem,
        given["integrator"],
        Steps(**given["steps"]),
        record=Record(record, every=given["every"]),
        engine=given["engine"],
        generator=generator,
        options=OPTIONS[given["engine"]](**given["options"]),
    )


def assert_same(first, second):
    assert first.times == second.times
    assert all(torch.equal(x, second.recorded[name]) for name, x in first.recorded.items())
    assert first.status == second.status
    assert repr(first.problem) == repr(second.problem)


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
@pytest.mark.parametrize("options", PROBLEMS.values(), ids=PROBLEMS)
def test_problems(tmp_path, options, suffix):
    if suffix == "zarr":
        pytest.importorskip("zarr")
    path, generator = tmp_path / f"run.{suffix}", torch.Generator().manual_seed(3)
    torch.randn(5, generator=generator)  # noise goes on from here
    first = solve(problem_of(mlp_case(), **options), **RUNS["euler"], record=Record(path=path), generator=generator)
    assert_same(first, again(path, True))


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_runs(tmp_path, run):
    """Convolutions, both poolings, groups, copies; the file holds some units, and a repetition may record all."""
    record = Record({"conv1": [3, 1]}, every=2, path=tmp_path / "run.nc")
    first = solve(problem_of(graph_case(), assumptions="learned-feedback"), **run, record=record)
    assert_same(first, again(tmp_path / "run.nc", {"conv1": [3, 1]}))
    assert load_problem(tmp_path / "run.nc")[0].network.state_dict().keys() == first.problem.network.state_dict().keys()


def test_noise_of_torchs_own_generator(tmp_path):
    torch.manual_seed(11)
    first = solve(problem_of(mlp_case(), noise=0.1), "brian2:euler", 12, record=Record(path=tmp_path / "run.nc"))
    assert load_problem(tmp_path / "run.nc")[1]["seed"] == 11
    assert_same(first, again(tmp_path / "run.nc", True))


def test_every_field_is_kept(tmp_path):
    """A new field of problems must also be written to files."""
    problem = problem_of(mlp_case(), **PROBLEMS["noise"])
    solve(problem, steps=3, dt=0.1, record=Record(path=tmp_path / "run.nc"))
    loaded, _ = load_problem(tmp_path / "run.nc")
    for name in (f.name for f in fields(problem)):
        a, b = getattr(problem, name), getattr(loaded, name)
        if name not in ("network", "feedforward"):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else str(a) == str(b), name
    with h5py.File(tmp_path / "run.nc") as file:
        names = {"stimulus", "target", "clamped", "hidden1->hidden2.weight", "hidden1->hidden2.bias"}
        assert names <= set(file["problem"])
        assert json.loads(file["problem"].attrs["noise"]) == 0.1
    with open_trajectory(tmp_path / "run.nc") as dataset:
        assert list(dataset.data_vars) == ["hidden1", "hidden2", "hidden3", "output"]


def test_precision_names_and_slopes(tmp_path):
    """Half precision, a leaky ReLU of any slope, names that NetCDF does not allow."""
    hop = Projection("input", "L2/3", nn.Linear(4, 3)), Projection("L2/3", "output", nn.Linear(3, 2))
    network = Network((4,), {"L2/3": leaky_relu(0.3), "output": "identity"}, hop).to(torch.bfloat16)
    problem = RelaxationProblem.from_batch(copy.deepcopy(network), torch.rand(2, 4).bfloat16(), torch.tensor([0, 1]))
    solve(problem, steps=9, record=Record("output", path=tmp_path / "run.nc"))
    loaded, _ = load_problem(tmp_path / "run.nc")
    final = [solve(each, steps=9).final["L2/3"] for each in (problem, loaded)]
    assert torch.equal(*final)
    assert final[0].abs().min() > 0


def own(x):
    return torch.tanh(x)


def refusal(path):
    with pytest.raises(ActrelaxError) as refused:
        load_problem(path)
    return str(refused.value)


def test_what_a_file_can_not_hold(tmp_path):
    path = tmp_path / "run.nc"
    case = mlp_case(activation=Activation("mine", own, lambda a: 1 - torch.tanh(a) ** 2))
    solve(problem_of(case, feedback_transform=own), steps=3, record=Record(path=path))
    assert refusal(path) == (
        f"{path} can't be relaxed again: a file can't hold activation 'mine' of population 'hidden1' or activation "
        "'mine' of population 'hidden2' or activation 'mine' of population 'hidden3' or a feedback transform that is "
        "a Python function."
    )
    problem = problem_of(mlp_case())
    with torch.no_grad():
        problem.network.projections["hidden1->hidden2"].weight.mul_(2)
    solve(problem, steps=3, record=Record(path=path))
    assert refusal(path).endswith("can't hold a feedforward pass with weights other than the network's.")
    with h5py.File(path, "a") as file:
        del file["problem"]
    assert refusal(path).endswith(
        "holds no problem to relax again: it is missing, damaged, or from an earlier version."
    )
    solve(problem_of(mlp_case()), steps=3, record=Record(path=path))
    with h5py.File(path, "a") as file:
        file["problem"].attrs["tau"] = "[1"
        del file["problem"]["stimulus"]
    assert refusal(path).startswith(f"{path} holds no problem to relax again: ")
    assert refusal(tmp_path / "nix.nc").startswith(f"{tmp_path / 'nix.nc'} holds no problem to relax again: ")


def test_what_diverged_is_kept_too(tmp_path):
    case = mlp_case()
    case.network.add_feedback("random-feedback", torch.Generator().manual_seed(1))
    for p in case.network.projections.values():
        if p.feedback is not None:
            p.feedback.mul_(1e110)
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, assumptions="random-feedback")
    with pytest.raises(DivergenceError):
        solve(problem, steps=100, eta=0.5, record=Record(path=tmp_path / "run.nc"))
    with pytest.raises(DivergenceError):
        again(tmp_path / "run.nc", True)


FORWARD = {
    "plain": {},
    "own start": {
        "start": {"a": torch.full((3, 7), 0.2, dtype=torch.float64), "output": torch.ones(3, 4, dtype=torch.float64)}
    },
    "noise": {"tau": {"a": 2.0, "output": 0.7, "input": 3.0}, "noise": {"a": 0.1, "output": 0.2}, "input_noise": 0.2},
    "delays": {"delays": {"a->a": 0.4}, "tau": 2},
    "dynamics": {"dynamics": {"a": UnitDynamics.second_order(tau=1.0, damping=0.9)}},
}


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
@pytest.mark.parametrize("options", FORWARD.values(), ids=FORWARD)
def test_forward_phases(tmp_path, options, suffix):
    if suffix == "zarr":
        pytest.importorskip("zarr")
    case, path, generator = recurrent_case(), tmp_path / f"run.{suffix}", torch.Generator().manual_seed(3)
    problem = ForwardProblem(case.network, case.x, **options)
    first = solve(problem, **RUNS["euler"], record=Record(path=path), generator=generator)
    assert_same(first, again(path, True))
    assert first["a"][-1].abs().min() > 0
    loaded, _ = load_problem(path)
    for name in (f.name for f in fields(problem) if f.name != "network"):
        one, other = getattr(problem, name), getattr(loaded, name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else str(one) == str(other), name


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
@pytest.mark.parametrize("make", RECURRENT.values(), ids=RECURRENT)
def test_relaxations_with_cycles(tmp_path, make, suffix):
    """The file holds the rates, settled or not, and the pass around them: drives, gains and routes."""
    if suffix == "zarr":
        pytest.importorskip("zarr")
    case, path = make(), tmp_path / f"run.{suffix}"
    how = Settle(Steps(6, eta=0.5))  # f(a(r)) still differs from r
    problem = RelaxationProblem.from_batch(case.network, settle(case.network, case.x, how), case.y)
    first = solve(problem, "euler", 9, eta=0.3, record=Record(path=path))
    assert_same(first, again(path, True))
    loaded = load_problem(path)[0].feedforward
    for name, response in problem.feedforward.responses.items():
        assert (response - problem.feedforward.activities[name]).abs().max() > 1e-6
        assert torch.equal(loaded.responses[name], response)
    with open_trajectory(path) as found:
        name = case.network.hidden[0]
        assert torch.equal(torch.from_numpy(found[name].values), first[name].flatten(2))


def test_any_rates_of_a_forward_phase(tmp_path):
    """All populations, without cycles too, may have rates other than f(a)."""
    case, path = mlp_case(), tmp_path / "run.nc"
    forward = ForwardProblem(case.network, case.x)
    passed = forward.feedforward_pass(solve(forward, "euler", 4, eta=0.3).state)
    first = solve(RelaxationProblem.from_batch(case.network, passed, case.y), steps=5, record=Record(path=path))
    assert_same(first, again(path, True))


def test_a_network_with_cycles_and_other_weights(tmp_path):
    case, path = recurrent_case(), tmp_path / "run.nc"
    problem = RelaxationProblem.from_batch(case.network, settle(case.network, case.x), case.y)
    with torch.no_grad():
        case.network.projections["a->output"].weight.mul_(2)
    solve(problem, steps=3, record=Record(path=path))
    assert refusal(path).endswith("can't hold a feedforward pass with weights other than the network's.")
