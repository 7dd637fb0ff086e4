"""Fixed points and long-time behaviour of unfrozen relaxations, against autograd and known solutions."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from networks import deep_case, graph_case, mlp_case
from scipy.optimize import brentq
from torch import nn

from actrelax.analysis import long_time
from actrelax.analysis.fixed_points import box, distance, fixed_point, fixed_points, resting_places, scattered
from actrelax.analysis.long_time import ending
from actrelax.models.assumptions import PRESETS
from actrelax.models.engines import solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network
from actrelax.models.problem import RelaxationProblem

CURRENT = PRESETS["unfrozen-relaxation"]
OWN = replace(CURRENT.dense, feedback="random")
OWN_FEEDBACK = replace(CURRENT, dense=OWN, conv=OWN)


def unfrozen(case, batch=1, assumptions=CURRENT):
    x, y = case.x[:batch], case.y[:batch]
    return RelaxationProblem.from_batch(case.network, x, y, loss=case.loss, assumptions=assumptions)


@torch.no_grad()
def small(activation, width, weight, bias, psi, clamp):
    """input -> hidden1 -> hidden2 -> output: hidden2 rests at the clamp, hidden1 receives psi^T (f'(W x + b) clamp)."""
    case = mlp_case(activation, widths=(2, width, width, width))
    case.network.add_feedback(OWN_FEEDBACK, torch.Generator().manual_seed(0))
    middle, last = (case.network.projections[name] for name in ("hidden1->hidden2", "hidden2->output"))
    middle.weight.copy_(torch.as_tensor(weight))
    middle.bias.copy_(torch.as_tensor(bias))
    middle.feedback.copy_(torch.as_tensor(psi))
    last.feedback.copy_(torch.eye(width))
    problem = unfrozen(case, assumptions=OWN_FEEDBACK)
    return replace(problem, clamped=torch.as_tensor(clamp)[None].to(problem.clamped))


def spiral(strength):
    """Feedback at an angle to the weights: eigenvalues -1 + strength e^{+- i 60 degrees} at a known fixed point."""
    drive = math.atanh(3**-0.5)  # the largest curvature of tanh
    gain, curvature = 2 / 3, -2 * 3**-0.5 * 2 / 3
    turn = 2 * math.pi / 3
    psi = strength / -curvature / 2 * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    rest = psi.T @ np.full(2, gain)
    return small("tanh", 2, 2 * np.eye(2), drive - 2 * rest, psi, [1.0, 1.0]), torch.from_numpy(rest)


def fates(problem, integrator="euler", *, eta, **options):
    steps = (ending(problem, integrator, eta=size, **options) for size in (eta, eta / 4))
    return long_time.fates(*steps)


def test_captured_networks_have_those_of_hand_built_ones():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 6), nn.Sigmoid(), nn.Linear(6, 3))
    x, y = torch.randn(1, 4), torch.tensor([2])
    networks = Network.from_module(layers, x), Network.from_sequential(layers, (4,))
    captured, built = (RelaxationProblem.from_batch(n, x, y, assumptions=CURRENT) for n in networks)
    for one, other in zip(box(captured).values(), box(built).values(), strict=True):
        assert torch.allclose(one, other, rtol=1e-13)
    start = captured.initial_state()
    renamed = dict(zip(built.units, start.values(), strict=True))
    found, expected = fixed_point(captured, start), fixed_point(built, renamed)
    for one, other in zip(found.state.values(), expected.state.values(), strict=True):
        assert torch.allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("make", [lambda: mlp_case(gain=3.0), graph_case])
def test_nothing_moves_at_a_fixed_point_and_eigenvalues_are_those_of_small_changes(make):
    problem = unfrozen(make())
    point = fixed_point(problem, problem.initial_state())
    names, state = problem.relaxing, point.state
    rates = torch.cat([x.flatten() for x in problem.vector_field(state).values()])
    assert float(rates.abs().max()) < 1e-9

    columns = []
    for name in names:
        for i in range(state[name].numel()):
            fields = []
            for change in (1e-5, -1e-5):
                x = state[name].clone()
                x.view(-1)[i] += change
                fields.append(torch.cat([v.flatten() for v in problem.vector_field(state | {name: x}).values()]))
            columns.append((fields[0] - fields[1]) / 2e-5)
    expected = np.linalg.eigvals(torch.stack(columns, 1).numpy())
    assert np.sort(point.eigenvalues.real) == pytest.approx(np.sort(expected.real), abs=1e-5)
    assert np.ptp(point.eigenvalues.real) > 0.01


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "gelu", "softplus"])
def test_eigenvalues_of_a_chain_are_those_of_minus_the_hessians(activation):
    """x_l descends |x|^2 / 2 - <x_{l+1}, f(W x + b)>: second derivatives by autograd."""
    case = mlp_case(activation, gain=3.0)
    problem = unfrozen(case)
    point = fixed_point(problem, problem.initial_state())
    above = [*problem.network.hidden[1:], problem.network.output]
    expected = []
    for name, target in zip(problem.network.hidden, above, strict=True):
        p = problem.network.projections[f"{name}->{target}"]
        f = problem.network.populations[target].activation
        x_above = point.state.get(target, problem.clamped)[0]

        def potential(x, p=p, f=f, x_above=x_above):
            return (x @ x) / 2 - x_above @ f(p.weight.detach() @ x + p.bias.detach())

        hessian = torch.autograd.functional.hessian(potential, point.state[name][0])
        expected.append(-torch.linalg.eigvalsh(hessian).numpy())
    assert np.abs(point.eigenvalues.imag).max() < 1e-7
    assert np.sort(point.eigenvalues.real) == pytest.approx(np.sort(np.concatenate(expected)), abs=1e-7)


def test_feedback_weights_of_their_own_make_it_spiral():
    problem, rest = spiral(3.0)
    near = {"hidden1": rest[None] + 0.01, "hidden2": problem.clamped}
    point = fixed_point(problem, near)
    assert point.state["hidden1"][0].tolist() == pytest.approx(rest.tolist(), abs=1e-9)
    turned = 3 * complex(0.5, 3**0.5 / 2)
    assert point.eigenvalues[:2].real == pytest.approx(np.full(2, -1 + turned.real), abs=1e-7)
    assert np.abs(point.eigenvalues[:2].imag) == pytest.approx(np.full(2, turned.imag), abs=1e-7)
    assert not point.is_stable
    assert point.unstable_directions == 2


@pytest.mark.parametrize(("strength", "fate"), [(0.6, "settled"), (3.0, "moves")])
def test_what_spirals_outward_moves_on(strength, fate):
    problem, rest = spiral(strength)
    start = {"hidden1": rest[None] + 0.01, "hidden2": problem.clamped}
    problem = replace(problem, start=start)
    assert fates(problem, "rk4", eta=0.25, duration=40.0, window=10.0) == [fate]


def sliding():
    """A gain that is open at rest and then closes: dx/dt = -x - w [w x + b > 0] slides along x = -b / w."""
    problem = small("relu", 1, [[2.0]], [0.5], [[2.0]], [-1.0])
    return replace(problem, start={"hidden1": torch.zeros_like(problem.clamped), "hidden2": problem.clamped})


def test_relu_slides_along_a_kink_where_there_is_no_fixed_point():
    problem = sliding()
    assert fixed_points(problem, scattered(problem, 10, torch.Generator().manual_seed(0))) == []
    ended = ending(problem, "euler", eta=0.01, duration=15.0, window=5.0)
    assert float(ended.state["hidden1"]) == pytest.approx(-0.25, abs=0.02)
    # back and forth, by eta (2 - 0.25) in one direction
    assert 0.25 * float(ended.swing) == pytest.approx(0.01 * 1.75, rel=0.2)
    assert not ended.settled.any()
    assert fates(problem, eta=0.1, duration=15.0, window=5.0) == ["chatters"]


def test_swings_are_those_of_the_end_of_the_trajectory():
    case = mlp_case(gain=3.0)
    problem = unfrozen(case, 3)
    ended = ending(problem, "euler", eta=0.1, duration=6.0, window=2.0)
    whole = solve(problem, "euler", eta=0.1, steps=60, record=True)
    late = {name: whole[name][40:] for name in case.network.hidden}
    swings = [(x.max(0).values - x.min(0).values).max(1).values / x.abs().amax((0, 2)) for x in late.values()]
    assert ended.swing.tolist() == pytest.approx(torch.stack(swings).amax(0).tolist(), rel=1e-9)
    assert float(ended.swing.min()) > 1e-4
    assert ending(problem, "euler", eta=0.1, duration=80.0).settled.all()


def test_a_population_that_dies_is_at_rest():
    """Without a clamp all activities decay for ever, so their relative change never vanishes."""
    problem = unfrozen(mlp_case(), 2)
    assert ending(replace(problem, clamped=0 * problem.clamped), "euler").settled.all()


def test_fixed_steps_settle_up_to_twice_the_fastest_time_there_is():
    """Euler's step is stable if |1 + eta lambda| < 1, with lambda the leftmost eigenvalue at the fixed point."""
    problem = unfrozen(mlp_case(gain=5.0))
    implicit = ending(problem, "BDF", eta=1.0, duration=60.0)
    assert implicit.settled.all()
    limit = -2 / float(fixed_point(problem, implicit.state).eigenvalues[-1].real)
    assert limit < 0.5
    assert fates(problem, eta=0.9 * limit, duration=60.0) == ["settled"]
    assert fates(problem, eta=1.1 * limit, duration=60.0) == ["chatters"]


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu", "gelu"])
@pytest.mark.parametrize("make", [mlp_case, lambda activation: graph_case()])
def test_everything_ends_in_the_box(make, activation):
    problem = unfrozen(make(activation), 2)
    bounds = box(problem)
    outside = {name: 10 * bound + 1 for name, bound in bounds.items()}
    final = solve(replace(problem, start=outside), "euler", eta=0.1, steps=300).final
    for name, bound in bounds.items():
        assert bool((final[name].abs() <= bound * (1 + 1e-9) + 1e-12).all())


@pytest.mark.parametrize("assumptions", ["ar", "no-derivatives", "unfrozen-relaxation"])
def test_the_box_knows_what_the_gain_is(assumptions):
    """The slope of a sigmoid is at most 1/4, so the box is larger without derivatives."""
    case = mlp_case("sigmoid")
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y, assumptions=assumptions)
    final = solve(problem, "euler", eta=0.1, steps=300).final
    shares = {name: float((final[name].abs() / bound).max()) for name, bound in box(problem).items()}
    assert max(shares.values()) <= 1 + 1e-9
    assert min(shares.values()) > 1e-3


def test_single_linear_units_rest_at_the_edge_of_the_box():
    case = deep_case(5, 1.3, width=1, activation="identity")
    problem = unfrozen(case)
    final = solve(problem, "euler", eta=0.5, steps=400).final
    for name, bound in box(problem).items():
        assert float(bound) == pytest.approx(float(final[name].abs()), rel=1e-9)


def test_starts_are_the_feedforward_pass_and_places_in_the_box():
    problem = unfrozen(mlp_case())
    starts = list(scattered(problem, 12, torch.Generator().manual_seed(1)))
    assert len(starts) == 12
    assert distance(starts[0], problem.initial_state()) == 0
    bounds = box(problem)
    shares = [max(float((s[n].abs() / b).max()) for n, b in bounds.items()) for s in starts[1:]]
    assert max(shares) <= 1
    assert min(shares) < 0.2 < 0.5 < max(shares)


def test_a_steep_sigmoid_has_three_fixed_points_and_each_is_listed_once():
    """One unit, x = 8 f'(8 x + b) c, against solutions by bracketing."""

    def rate(x):
        s = 1 / (1 + math.exp(-(8 * x - 8)))
        return 8 * s * (1 - s) - x

    grid = np.linspace(-0.5, 3, 2001)
    signs = [(a, b) for a, b in pairwise(grid) if rate(a) * rate(b) < 0]
    expected = [brentq(rate, a, b) for a, b in signs]
    assert len(expected) == 3
    problem = small("sigmoid", 1, [[8.0]], [-8.0], [[8.0]], [1.0])
    places = ({"hidden1": x * problem.clamped, "hidden2": problem.clamped} for x in np.linspace(0, 1.6, 17))
    found = fixed_points(problem, places)
    by_place = sorted(found, key=lambda point: float(point.state["hidden1"]))
    assert [float(point.state["hidden1"]) for point in by_place] == pytest.approx(expected, abs=1e-8)
    assert [point.is_stable for point in by_place] == [True, False, True]
    assert [point.unstable_directions for point in by_place] == [0, 1, 0]
    starts = [{"hidden1": x * problem.clamped, "hidden2": problem.clamped} for x in (0.0, 0.1, 1.0, 1.6)]
    resting = resting_places(problem, starts)
    reached = sorted(float(place["hidden1"]) for place in resting)
    assert reached == pytest.approx([expected[0], expected[2]], abs=1e-6)


def test_adaptive_methods_take_float32():
    """They compute in float64; what they start from has the dtype of the network."""
    case = mlp_case()
    case.network.float()
    problem = RelaxationProblem.from_batch(case.network, case.x[:1].float(), case.y[:1], assumptions=CURRENT)
    assert bool(ending(problem, "BDF").settled.all())
    starts = list(scattered(problem, 3, torch.Generator().manual_seed(0)))
    (place,) = resting_places(problem, starts)
    (point,) = fixed_points(problem, starts)
    assert distance(place, point.state) < 1e-5


def test_what_is_out_of_range_is_refused():
    problem = unfrozen(mlp_case(), 3)
    with pytest.raises(
        ActrelaxError, match=r"a fixed point belongs to one sample, got a batch of 3: give a batch of one\."
    ):
        fixed_point(problem, problem.initial_state())
    with pytest.raises(ActrelaxError, match=r"the window must lie between 0 and the duration 5, got 5\."):
        ending(problem, "euler", duration=5.0, window=5.0)
    with pytest.raises(ActrelaxError, match=r"^eta must be a positive number, got 0\.0\.$"):
        ending(problem, "euler", eta=0.0)
