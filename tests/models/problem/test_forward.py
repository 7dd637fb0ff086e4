"""The forward phase. Oracles: its equation written out with PyTorch's modules, autograd, the feedforward pass."""

import pytest
import torch
from networks import RECURRENT, drives_of, graph_case, hierarchy_case, mlp_case, recurrent_case, responses_of
from torch import nn

from actrelax.models.engines import solve, unsupported
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network
from actrelax.models.problem import ForwardProblem, RelaxationProblem, UnitDynamics
from actrelax.models.results import Record, load_problem


@pytest.fixture(params=list(RECURRENT))
def case(request):
    return RECURRENT[request.param]()


def moving(case):
    return [*case.network.hidden, case.network.output]


def random_rates(case, generator):
    sizes = {name: case.network.populations[name].shape for name in moving(case)}
    return {name: torch.randn(len(case.x), *shape, generator=generator) for name, shape in sizes.items()}


def close(found, expected, bound=1e-13):
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert float((found[name] - x).detach().abs().max()) <= bound * float(x.detach().abs().max()), name


def test_euler_takes_synchronous_steps(case, generator):
    start = random_rates(case, generator)
    rates, taus = dict(start), {name: 1.0 + i / 3 for i, name in enumerate(moving(case))}
    for _ in range(12):
        towards = responses_of(case, {"input": case.x, **rates})
        rates = {name: r + 0.2 / taus[name] * (towards[name] - r) for name, r in rates.items()}
    found = solve(ForwardProblem(case.network, case.x, tau=taus, start=start), "euler", 12, dt=0.2)
    close(found.final, rates)


def test_a_sweep_goes_upwards(case):
    """Populations read the new rates of those below; on a cycle the old ones of those above."""
    rates = {name: torch.zeros(len(case.x), *case.network.populations[name].shape) for name in moving(case)}
    for _ in range(5):
        for name in moving(case):
            towards = responses_of(case, {"input": case.x, **rates})[name]
            rates[name] = 0.7 * rates[name] + 0.3 * towards
    swept = solve(ForwardProblem(case.network, case.x), "sequential", 5, eta=0.3)
    close(swept.final, rates)
    synchronous = solve(ForwardProblem(case.network, case.x), "euler", 5, eta=0.3)
    assert float((swept.final["output"] - synchronous.final["output"]).abs().max()) > 1e-3


@pytest.mark.parametrize("make", [mlp_case, lambda: mlp_case("relu"), graph_case], ids=["mlp", "relu", "graph"])
def test_without_cycles_one_sweep_is_the_feedforward_pass(make):
    case = make()
    problem = ForwardProblem(case.network, case.x)
    swept = solve(problem, "sequential", 1, eta=1.0)
    passed, expected = problem.feedforward_pass(swept.state), case.network.feedforward(case.x)
    for name in moving(case):
        assert torch.equal(swept.final[name], expected.activities[name])
        assert torch.equal(passed.drives[name], expected.drives[name])
        assert torch.equal(passed.activities[name], expected.activities[name])
    found, wanted = (
        RelaxationProblem(case.network, each, torch.ones_like(swept.final["output"])) for each in (passed, expected)
    )
    for name in case.network.hidden:
        assert torch.equal(found.feedback(name, found.initial_state()), wanted.feedback(name, wanted.initial_state()))


@pytest.mark.catches("gains from rates that have not settled")
def test_a_pass_holds_what_a_relaxation_reads(case, generator):
    """Gains are f'(a(r)), also by kernels that read the activity: r and f(a(r)) differ before the phase has settled."""
    rates = random_rates(case, generator)
    passed = ForwardProblem(case.network, case.x, start=rates).feedforward_pass(rates)
    drives = drives_of(case, {"input": case.x, **rates})
    responses = responses_of(case, {"input": case.x, **rates})
    close(passed.drives, drives)
    assert torch.equal(passed.activities["input"], case.x)
    for name in case.network.hidden:
        assert torch.equal(passed.activities[name], rates[name])
        assert float((rates[name] - responses[name]).detach().abs().max()) > 0.1
    close({"output": passed.activities["output"]}, {"output": responses["output"]})
    problem = RelaxationProblem(case.network, passed, torch.ones_like(responses["output"]))
    again = passed.with_tensors(passed.tensors())
    for name, a in drives.items():
        a = a.detach().requires_grad_()
        signal = torch.randn(a.shape, generator=generator)
        (expected,) = torch.autograd.grad(case.network.populations[name].activation.function(a), a, signal)
        close({name: problem.apply_gain(name, "feedforward", signal)}, {name: expected})
        assert torch.equal(again.response(name), passed.response(name))
    for source, target, stages in case.edges:  # feedback along the routes of r
        r = {"input": case.x, **rates}[source].requires_grad_()
        drive = nn.Sequential(*stages)(r)
        y = torch.randn(drive.shape, generator=generator)
        projection = next(p for p in case.network.outgoing[source] if p.target == target)
        found = projection.feedback_signal(y, passed.routes[projection.name], projection.weight)
        close({source: found}, {source: torch.autograd.grad(drive, r, y)[0]})


def test_delays_hold_back_the_rates_of_projections_between_populations():
    case = hierarchy_case()
    delays = {"a->b": 0.6, "c->b": 0.2, "head->output": 0.4}
    found = solve(ForwardProblem(case.network, case.x, delays=delays), "euler", 12, dt=0.2)
    history = [{name: torch.zeros(len(case.x), *case.network.populations[name].shape) for name in moving(case)}]
    for n in range(12):
        towards = {}
        for target in moving(case):
            drive = 0
            for source, end, stages in case.edges:
                if end == target:
                    late = round(delays.get(f"{source}->{target}", 0.0) / 0.2)
                    rates = {"input": case.x, **history[max(0, n - late)]}
                    drive = drive + nn.Sequential(*stages)(rates[source])
            towards[target] = case.network.populations[target].activation.function(drive)
        history.append({name: r + 0.2 * (towards[name] - r) for name, r in history[-1].items()})
    close(found.final, history[-1])
    prompt = solve(ForwardProblem(case.network, case.x), "euler", 12, dt=0.2)
    assert float((prompt.final["output"] - found.final["output"]).abs().max()) > 1e-3


def test_neither_time_constants_nor_dynamics_move_the_fixed_point():
    case = recurrent_case()
    plain = solve(ForwardProblem(case.network, case.x), "euler", 400, eta=0.5).final
    taus = {"a": torch.linspace(0.5, 3.0, 7), "output": 0.7}
    slow = solve(ForwardProblem(case.network, case.x, tau=taus), "rk4", 1200, dt=0.2).final
    second = {"a": UnitDynamics.second_order(tau=1.0, damping=0.9)}
    swinging = solve(ForwardProblem(case.network, case.x, dynamics=second), "rk4", 1200, dt=0.2).final
    close(slow, plain, 1e-12)
    close(swinging, plain, 1e-12)
    close(responses_of(case, {"input": case.x, **plain}), plain, 1e-12)


def test_noise_moves_every_unit_by_sigma(generator):
    """Without drives Euler's stationary variance is sigma^2 / (1 - eta / 2), in the output as well."""
    case = recurrent_case()
    with torch.no_grad():
        for parameter in case.network.parameters():
            parameter.zero_()
    problem = ForwardProblem(case.network, torch.zeros(4000, 8), noise={"a": 0.3, "output": 0.1})
    final = solve(problem, "euler", 40, eta=0.4, generator=generator).final
    for name, sigma in problem.noise.items():
        assert float(final[name].var()) == pytest.approx(sigma**2 / 0.8, rel=0.05)
    noisy = ForwardProblem(case.network, torch.ones(4000, 8), input_noise=0.2)
    reached = solve(noisy, "euler", 40, eta=0.4, generator=generator).state["input"]
    assert float(reached.var()) == pytest.approx(0.04 / 0.8, rel=0.05)
    assert float(reached.mean()) == pytest.approx(1.0, abs=0.01)
    assert torch.equal(noisy.feedforward_pass({**final, "input": reached}).activities["input"], reached)


def test_recordings_and_files_take_a_forward_phase(tmp_path):
    case = recurrent_case()
    path = tmp_path / "rates.nc"
    trajectory = solve(ForwardProblem(case.network, case.x), "euler", 5, eta=0.2, record=Record(path=path))
    assert trajectory["a"].shape == (6, 3, 7)
    assert trajectory.to_xarray().attrs["problem"] == "ForwardProblem(8-7-4, batch 3, tau 1, start 'zero')"
    loaded, _ = load_problem(path)
    assert isinstance(loaded, ForwardProblem)
    assert repr(loaded) == repr(trajectory.problem)


def test_what_is_refused():
    case = recurrent_case()
    problem = ForwardProblem(case.network, case.x)
    assert unsupported(problem, "exact", "torch") == "the forward phase is nonlinear and has no closed form: step it."
    assert unsupported(problem, "equilibrium", "torch").startswith("the forward phase is nonlinear: call settle(")
    assert unsupported(problem, "euler", "brian2") is None
    pooled = RECURRENT["conv"]()
    refusal = unsupported(ForwardProblem(pooled.network, pooled.x), "RK45", "scipy")
    assert refusal == 'max pooling routes by the rates of the moment in the forward phase: pass engine="torch".'
    with pytest.raises(ActrelaxError, match=r"unknown start 'feedforward'"):
        ForwardProblem(case.network, case.x, start="feedforward")
    with pytest.raises(ActrelaxError, match=r"^start must give population 'output' a state of shape \(3, 4\)"):
        ForwardProblem(case.network, case.x, start={"a": torch.zeros(3, 7)})
    with pytest.raises(ActrelaxError, match=r"^the network takes \(batch, 8\), got \(3, 7\)\.$"):
        ForwardProblem(case.network, case.x[:, 1:])
    captured = Network.from_module(nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2)), torch.zeros(2, 4))
    with pytest.raises(ActrelaxError, match=r"^a captured network's module computes its rates"):
        ForwardProblem(captured, torch.zeros(2, 4))
