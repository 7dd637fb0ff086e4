"""The closed form in PyTorch: equal to the stepped relaxation, for a fraction of the feedback passes.

For dt/tau up to 1, the two agree within 1e-12 of each population's largest value.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import convolutional_chains, deep_case, dense_graphs, graph_case, make_case, mlp_case
from torch import nn

from actrelax.models.assumptions import PRESETS
from actrelax.models.closed_form import plan_of, stream
from actrelax.models.engines import INTEGRATORS, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import add_noise, chain_matrix, coefficients, fill_delay_lines
from actrelax.models.learning import activity_gradients
from actrelax.models.network import ACTIVATIONS, build, leaky_relu
from actrelax.models.problem import RelaxationProblem, UnitDynamics
from actrelax.models.results import Status, relative_error

STEPPED = [name for name, integrator in INTEGRATORS.items() if integrator.order is not None]


TIMED = [*STEPPED, "exact"]


FROZEN = [
    name
    for name, p in PRESETS.items()
    if not p.is_continuous and all(k.activity_gain != "current" for k in p.all_knobs)
]


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def started(problem, start, seed=0):
    """Return one of three initial states."""
    if start != "given":
        return start
    generator = torch.Generator().manual_seed(seed)
    return {v: torch.randn(x.shape, generator=generator) for v, x in problem.initial_state().items()}


def assert_same(problem, integrator, *, bound=1e-12, magnitude=None, **grid):
    """Check that closed form and steps agree in every population, and return the closed form's trajectory."""
    stepped = solve(problem, integrator, evaluation="stepped", **grid)
    closed = solve(problem, integrator, evaluation="closed-form", **grid)
    assert (stepped.evaluation, closed.evaluation) == ("stepped", "closed-form")
    assert list(closed.final) == list(stepped.final)
    assert closed.steps == stepped.steps
    for name, x in stepped.final.items():
        size = None if magnitude is None or name == problem.network.output else torch.tensor(magnitude[name])
        assert relative_error(closed.final[name], x, magnitude=size) < bound, name
        assert closed.final[name].dtype == x.dtype
    return closed


@settings(max_examples=25)
@given(
    depth=st.integers(1, 50),
    gain=st.sampled_from([0.4, 0.9, 1.5]),
    integrator=st.sampled_from(STEPPED),
    steps=st.sampled_from([0, 1, 2, 5, 30, 90]),
    eta=st.floats(0.05, 1.0),
    start=st.sampled_from(["feedforward", "zero", "given"]),
    several=st.booleans(),
    seed=st.integers(0, 100),
)
def test_chains(depth, gain, integrator, steps, eta, start, several, seed):
    """x_l(n) = sum_m C[l, m] B_{l->m} x_m(0), for damping and amplifying feedback, any initial state, any tau."""
    case = deep_case(depth, gain, seed=seed)
    taus = {name: 1.0 + (i * 7 % 5) / 3 for i, name in enumerate(case.network.hidden)} if several else 1.0
    plain = problem_of(case, assumptions="random-feedback")
    problem = problem_of(case, assumptions="random-feedback", tau=taus, start=started(plain, start, seed))
    closed = assert_same(problem, integrator, dt=eta, steps=steps)
    hops = [min(level, depth - level) for level in range(1, depth)]
    assert closed.feedback_applications <= sum(hops)
    if steps == 0:
        assert closed.feedback_applications == 0
    if start == "zero":
        assert closed.feedback_applications <= depth - 1


@pytest.mark.parametrize("gain", [0.4, 0.9, 1.5])
def test_at_depth_fifty_625_applications_do_for_24500(gain):
    case = deep_case(50, gain)
    problem = problem_of(case, assumptions="random-feedback")
    closed = assert_same(problem, "euler", eta=0.1, steps=500, bound=1e-13)
    assert closed.feedback_applications == 625
    assert solve(problem, "euler", eta=0.1, steps=500, evaluation="stepped").feedback_applications == 24_500


@pytest.mark.parametrize(("make", "integrator"), [*((mlp_case, name) for name in STEPPED), (graph_case, "sequential")])
def test_a_thousand_steps(make, integrator):
    """Rounding errors do not accumulate."""
    problem = problem_of(make())
    assert_same(problem, integrator, eta=0.02, steps=1000)


@pytest.mark.parametrize("make", [mlp_case, graph_case])
@pytest.mark.parametrize("integrator", TIMED)
def test_a_hundred_thousand_steps_are_the_equilibrium(make, integrator):
    problem = problem_of(make())
    settled = solve(problem, "equilibrium", evaluation="stepped").final
    trajectory = solve(problem, integrator, eta=0.1, steps=100_000)
    assert (trajectory.evaluation, trajectory.steps, trajectory.status) == ("closed-form", 100_000, Status.COMPLETED)
    for name, x in settled.items():
        assert relative_error(trajectory.final[name], x) < 1e-10, name
    assert trajectory.feedback_applications == solve(problem, "equilibrium").feedback_applications


@given(dense_graphs(), st.sampled_from(TIMED), st.integers(0, 30), st.floats(0.01, 1.0), st.data())
def test_graphs(case, integrator, steps, eta, data):
    """x(n) = sum_k c_k A^k x(0) + d_k A^(k-1) A_o eps, by the number of hops."""
    start = started(problem_of(case), data.draw(st.sampled_from(["feedforward", "zero", "given"])))
    tau = data.draw(st.sampled_from([0.5, 1.0]))
    assert_same(problem_of(case, tau=tau, start=start), integrator, eta=eta, steps=steps)


@st.composite
def graphs_with_copies(draw):
    """Populations of one width, any two connected by weights, by a copy, or by both, in any order."""
    count = draw(st.integers(3, 6))
    names = ["input", *(f"hidden{i}" for i in range(1, count)), "output"]
    edges = []
    for j in range(1, len(names)):
        for i in range(j):
            kinds = draw(st.sampled_from([[], ["copy"], ["weights"], ["copy", "weights"], ["weights", "copy"]]))
            if not kinds and j == i + 1:
                kinds = ["weights"]
            edges += [(names[i], names[j], [] if kind == "copy" else [nn.Linear(4, 4)]) for kind in kinds]
    activations = st.sampled_from(["tanh", "softplus", "identity"])
    populations = {name: draw(activations) for name in names[1:]}
    return make_case((4,), populations, draw(st.permutations(edges)), seed=draw(st.integers(0, 100)), batch=2)


@given(graphs_with_copies(), st.sampled_from(["ar", "no-derivatives"]), st.integers(0, 12))
def test_copies_beside_weights(case, assumptions, steps):
    """A copy passes the same tensor on, so adding to it in place would change the input of other populations."""
    assert_same(problem_of(case, assumptions=assumptions), "euler", eta=0.3, steps=steps)


@pytest.mark.parametrize("assumptions", ["ar", "no-derivatives"])
def test_a_copy_and_weights_to_one_population_and_weights_to_another(assumptions):
    """The smallest such graph: the copy arrives first at a, weights are added, and b must stay unchanged."""
    edges = [
        ("input", "a0", [nn.Linear(4, 5)]),
        ("a0", "a", [nn.Linear(5, 5)]),
        ("a0", "b", [nn.Linear(5, 5)]),
        ("a", "p", []),
        ("a", "p", [nn.Linear(5, 5)]),
        ("b", "p", [nn.Linear(5, 5)]),
        ("p", "q", [nn.Linear(5, 5)]),
        ("q", "output", [nn.Linear(5, 3)]),
    ]
    populations = dict.fromkeys(["a0", "a", "b", "q"], "tanh") | {"p": "identity", "output": "identity"}
    assert_same(problem_of(make_case((4,), populations, edges), assumptions=assumptions), "euler", eta=0.2, steps=3)


@given(convolutional_chains(), st.sampled_from(STEPPED), st.integers(0, 12), st.sampled_from(["feedforward", "zero"]))
def test_convolutions(case, integrator, steps, start):
    """Routes of max pooling apply to each vector of a stack."""
    assert_same(problem_of(case, start=start), integrator, eta=0.2, steps=steps)


@pytest.mark.parametrize("name", FROZEN)
@pytest.mark.parametrize("architecture", ["chain", "graph"])
def test_presets(name, architecture, generator):
    case = graph_case() if architecture == "graph" else image_chain("tanh")
    case.network.add_feedback(name, generator)
    for integrator in ("euler", "sequential", "equilibrium"):
        grid = {} if integrator == "equilibrium" else {"eta": 0.2, "steps": 9}
        assert_same(problem_of(case, assumptions=name), integrator, **grid)
    assert_same(problem_of(case, assumptions=name, feedback_transform="sparse-0.5"), "euler", eta=0.2, steps=9)


def image_chain(activation):
    """Max and average pooling on both sides of convolutions, passed by stacks of two and three vectors."""
    edges = [
        ("input", "conv1", [nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(2)]),
        ("conv1", "conv2", [nn.AvgPool2d(2, stride=1), nn.Conv2d(4, 6, 3, padding=1)]),
        ("conv2", "conv3", [nn.MaxPool2d(2, stride=1), nn.Conv2d(6, 4, 2, padding=1), nn.MaxPool2d(2)]),
        ("conv3", "hidden1", [nn.AvgPool2d(2, stride=1, padding=1), nn.Flatten(), nn.Linear(36, 7)]),
        ("hidden1", "hidden2", [nn.Linear(7, 6)]),
        ("hidden2", "output", [nn.Linear(6, 5)]),
    ]
    names = [target for _, target, _ in edges]
    return make_case((2, 10, 10), dict.fromkeys(names[:-1], activation) | {"output": "identity"}, edges, gain=2.0)


@pytest.mark.parametrize("activation", [*ACTIVATIONS.values(), leaky_relu(0.3)], ids=lambda a: a.name)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_every_activation_in_both_precisions(activation, dtype, bound):
    """Fused kernels multiply gains with stacks and with single signals, vectors and images."""
    for case in (mlp_case(activation, widths=(8, 7, 6, 9, 5, 4)), image_chain(activation)):
        case.network.to(dtype)
        case.x = case.x.to(dtype)
        closed = assert_same(problem_of(case), "sequential", eta=0.2, steps=8, bound=bound)
        assert {x.dtype for x in closed.final.values()} == {dtype}


@pytest.mark.parametrize("start", ["feedforward", "zero", "given"])
def test_in_bfloat16(start):
    """Weights are bfloat16, a given initial state has the precision of states."""
    case = mlp_case()
    case.network.bfloat16()
    case.x = case.x.bfloat16()
    given = started(problem_of(case), start)
    if start == "given":
        given = {v: x.float() for v, x in given.items()}
    closed = assert_same(problem_of(case, start=given), "euler", eta=0.2, steps=8, bound=0.05)
    assert {x.dtype for v, x in closed.final.items() if v != "output"} == {torch.float32}


@pytest.mark.parametrize("make", [mlp_case, graph_case])
@pytest.mark.filterwarnings("ignore:eta is 1.5")
def test_above_eta_one_errors_are_relative_to_the_terms(make):
    """Coefficients alternate in sign, so rounding errors are relative to the largest term, c_k A^k x(0)."""
    problem = problem_of(make())
    hidden = problem.network.hidden
    law = np.abs(coefficients(INTEGRATORS["euler"].transition, chain_matrix([1.0] * len(hidden)), 1.5, 40))
    carried = problem.initial_state()
    terms = dict.fromkeys(hidden, 0.0)
    for hops in range(len(hidden) + 1):
        terms = {v: max(terms[v], law[0, hops] * float(carried[v].abs().max())) for v in hidden}
        carried = {v: problem.feedback(v, carried) for v in hidden}
    assert law[0, 1] > 1e-11  # 0.5**39 times 60, from cancellation
    assert_same(
        problem,
        "euler",
        eta=1.5,
        steps=40,
        magnitude={v: max(terms[v], float(x.abs().max())) for v, x in carried.items()},
    )


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_equilibrium_is_autograds_to_the_last_bit(activation):
    """Both call the same backward kernels in the same order."""
    case = mlp_case(activation)
    gradients = activity_gradients(case.network, case.x, case.y)
    final = solve(problem_of(case), "equilibrium", evaluation="closed-form").final
    assert all(torch.equal(final[name], gradients[name]) for name in case.network.hidden)


def test_populations_come_from_the_top_down_with_their_products():
    """Populations come with gain times activity if feedback computed it, for reuse by plasticity."""
    case = graph_case()
    problem = problem_of(case)
    plan = plan_of(problem, INTEGRATORS["euler"], dt=0.2, steps=9)
    stepped = solve(problem, "euler", eta=0.2, steps=9, evaluation="stepped").final
    with torch.no_grad():
        arrivals = list(stream(problem, plan))
    assert [relaxed.names for relaxed in arrivals] == [("output",), *((v,) for v in case.network.hidden[::-1])]
    assert torch.equal(arrivals[0].state["output"], problem.clamped)
    drives = case.network.feedforward(case.x).drives
    for relaxed in arrivals[:-1]:  # the lowest population sends nothing
        (name,) = relaxed.names
        gain = case.network.populations[name].activation.derivative(drives[name])
        assert relative_error(relaxed.amplified["feedforward"], gain * stepped[name]) < 1e-12


NEURONS = {"hidden1": torch.linspace(1.0, 2.0, 7)}


NOT_COVERED = {
    "taus on a graph": (
        graph_case,
        {"tau": {"conv2": 2.0}},
        "the closed form needs one tau when the network has skip connections, got 2: pass one tau, or step",
    ),
    "tau per neuron": (
        mlp_case,
        {"tau": NEURONS},
        "the closed form needs one tau per population, got one per neuron: pass numbers, or step the",
    ),
    "noise": (
        mlp_case,
        {"noise": 0.1},
        "the closed form needs a relaxation without noise: leave noise out, or step the relaxation.",
    ),
    "noisy input": (
        mlp_case,
        {"input_noise": 0.1},
        "the closed form needs a relaxation without noise: leave noise out, or step the relaxation.",
    ),
    "delay": (
        mlp_case,
        {"delays": 0.2},
        "the closed form needs feedback without delays: leave delays out, or step the relaxation.",
    ),
    "dynamics": (
        mlp_case,
        {"dynamics": {"hidden1": UnitDynamics.second_order(1.0, 1.0)}},
        "the closed form needs leaky units: leave dynamics out, or step the relaxation.",
    ),
    "current gain": (
        mlp_case,
        {"assumptions": "unfrozen-relaxation"},
        "the closed form needs frozen gains: a current activity gain makes the relaxation nonlinear.",
    ),
    "clip": (
        mlp_case,
        {"clip": 0.1},
        "the closed form needs a linear relaxation: leave clip out, or step the relaxation.",
    ),
    "continuous": (
        mlp_case,
        {"assumptions": "continuous"},
        "the closed form needs constant weights: continuous plasticity changes them during the relaxation.",
    ),
}


@pytest.mark.parametrize("what", NOT_COVERED)
def test_what_the_closed_form_does_not_cover_is_stepped_and_refused_when_asked_for(what):
    make, fields, sentence = NOT_COVERED[what]
    problem = problem_of(make(), **fields)

    def generator():
        return torch.Generator().manual_seed(3)

    grid = {"dt": 0.2, "steps": 7}
    with pytest.raises(ActrelaxError, match=f'^evaluation="closed-form" can\'t be used here: {sentence}') as caught:
        solve(problem, "euler", evaluation="closed-form", **grid)
    assert str(caught.value).count(". ") == 0
    assert str(caught.value).endswith(".")
    trajectory = solve(problem, "euler", generator=generator(), **grid)
    assert trajectory.evaluation == "stepped"
    state, draws = fill_delay_lines(problem, problem.initial_state(), 0.2), generator()
    for _ in range(7):
        state = INTEGRATORS["euler"].step(problem, state, 0.2)
        if problem.is_noisy:
            state = add_noise(problem, state, 0.2, draws)
    assert all(torch.equal(trajectory.state[v], x) for v, x in state.items())


def test_the_equilibrium_of_more_than_activities_is_stepped_to():
    problem = problem_of(mlp_case(), dynamics={"hidden1": UnitDynamics.second_order(1.0, 1.0)})
    assert solve(problem, "equilibrium").evaluation == "stepped"
    with pytest.raises(
        ActrelaxError, match=r"the closed form of the equilibrium needs leaky units without delays: step"
    ):
        solve(problem, "equilibrium", evaluation="closed-form")


def test_a_network_of_many_hops_and_no_feedback_to_speak_of():
    """Sigmoids pass on a tenth: after 150 hops the lowest populations are zero, without nan."""
    network = build("mlp-150x4", input_shape=(4,), activation="sigmoid", generator=torch.Generator().manual_seed(0))
    problem = RelaxationProblem.from_batch(network, torch.rand(2, 4), torch.tensor([0, 1]))
    exact = solve(problem, "euler", eta=0.1, steps=60)
    stepped = solve(problem, "euler", eta=0.1, steps=60, evaluation="stepped")
    for name, x in stepped.final.items():
        assert relative_error(exact.final[name], x) < 1e-12
