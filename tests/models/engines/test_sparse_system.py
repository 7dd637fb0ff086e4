"""The variables of a problem as one vector. Oracle: the problem's own tensors."""

import numpy as np
import torch
from networks import graph_case, hierarchy_case

from actrelax.models.engines import SparseForward, SparseProblem
from actrelax.models.problem import ForwardProblem, RelaxationProblem, UnitDynamics


def both():
    case, other = graph_case(), hierarchy_case()
    second = {"b": UnitDynamics.second_order(tau=1.0, damping=0.7)}
    start = {v: torch.randn(3, *p.shape) for v, p in list(other.network.populations.items())[1:]}
    forward = ForwardProblem(other.network, other.x, dynamics=second, start=start)
    return SparseProblem(RelaxationProblem.from_batch(case.network, case.x, case.y)), SparseForward(forward)


def test_split_inverts_join():
    for system in both():
        state = system.problem.initial_state()
        parts = system.split(system.initial_state)
        assert list(parts) == list(state)
        assert np.array_equal(system.join(parts), system.initial_state)
        for name, x in system.as_tensors(parts).items():
            assert torch.equal(x, state[name])


def test_drives_are_those_of_the_network(generator):
    relaxation, forward = both()
    for system, passed in (
        (relaxation, relaxation.problem.feedforward),
        (forward, forward.problem.feedforward_pass(forward.problem.initial_state())),
    ):
        x = {name: torch.randn(a.shape, generator=generator) for name, a in passed.activities.items()}
        for name in [*system.network.hidden, system.network.output]:
            drive = system.drive_of(name, passed.routes)
            found = drive.bias + sum(m @ x[source].flatten().numpy() for source, m in drive.matrices.items())
            expected = system.network.drive(name, x, passed.routes).detach().flatten().numpy()
            assert np.allclose(found, expected, rtol=0, atol=1e-13)
