"""Both phases of a network with cycles: errors of the rates, what the relaxation holds, and the figure."""

import torch
from networks import hierarchy_case
from outcomes import is_drawn

from actrelax.analysis.two_phases import RecordedForwardPhase, draw_phases
from actrelax.models.engines import Settle, Steps, settle, solve
from actrelax.models.problem import ForwardProblem, RelaxationProblem
from actrelax.models.results import relative_error


def test_a_forward_phase(tmp_path):
    case = hierarchy_case()
    rates = settle(case.network, case.x, Settle(Steps.until(1e-13, eta=0.5)))
    trajectory = solve(ForwardProblem(case.network, case.x), "rk4", 30, eta=0.3, record=True)
    phase = RecordedForwardPhase.of(trajectory, rates)
    assert list(phase.final) == [*case.network.hidden, "output"]
    for name, errors in phase.errors.items():
        assert len(errors) == 31
        assert errors[0] == 1  # of rates of 0
        assert errors[-1] == phase.final[name] == relative_error(trajectory.final[name], rates.activities[name])
        assert phase.final[name] < 0.05
    held = phase.passed
    assert all(torch.equal(held.activities[name], trajectory.final[name]) for name in case.network.hidden)
    assert not torch.equal(held.activities["output"], trajectory.final["output"])  # f(a(r)) has no lag
    problem = RelaxationProblem.from_batch(case.network, held, case.y)
    backward = solve(problem, "rk4", 20, eta=0.3, record=True)
    errors = {name: error.tolist() for name, error in backward.error(dict(backward.final)).items()}
    draw_phases(tmp_path / "both.png", phase, backward, {name: errors[name] for name in case.network.hidden})
    assert is_drawn(tmp_path / "both.png")
