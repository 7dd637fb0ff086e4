"""Plans: their sums against powers of the scheme's matrix over the whole graph, and their number of vectors.

Plans are evaluated by hand on graphs of single units, where feedback along an edge is a number.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actrelax.models.closed_form import exact_plan, settled_plan
from actrelax.models.engines import INTEGRATORS
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import chain_matrix, coefficients
from actrelax.models.network import Graph

STEPPED = [name for name, integrator in INTEGRATORS.items() if integrator.order is not None]


def chain(hidden):
    names = [f"p{i}" for i in reversed(range(hidden + 1))]
    return Graph(tuple(names), (*((below,) for below in names[1:]), ()))


def from_edges(hidden, edges):
    """Return a graph of populations p0, p1, ... from the lowest up to the output; an edge (i, j) feeds j from i."""
    order = [f"p{i}" for i in reversed(range(hidden + 1))]
    return Graph(tuple(order), tuple(tuple(f"p{i}" for i, j in edges if f"p{j}" == name) for name in order))


@st.composite
def graphs(draw):
    """Draw a graph in which every hidden population feeds at least one above it, with arbitrary skips."""
    hidden = draw(st.integers(1, 9))
    edges = [(i, j) for i in range(hidden) for j in draw(st.sets(st.integers(i + 1, hidden), min_size=1))]
    return from_edges(hidden, edges)


def by_hand(graph, plan, feedback, start, relays=()):
    """Return population -> activity by carrying out the plan step by step."""
    arrived = {name: np.zeros(generators.arriving) for name, generators in plan.items()}
    result = {}
    for name, generators in plan.items():
        stack = np.concatenate([[start[name]] if generators.own else [], arrived[name]])
        assert not (generators.own and name in relays)
        result[name], *sent = generators.matrix @ stack if stack.size else [0.0]
        assert set(generators.slots) == set(graph.sources[name])
        for source, slots in generators.slots.items():
            for vector, slot in slots:
                arrived[source][slot] += feedback[source, name] * sent[vector]
    return result


def drawn(graph, seed):
    rng = np.random.default_rng(seed)
    feedback = {(source, name): rng.normal() for name in graph.order for source in graph.sources[name]}
    return feedback, {name: rng.normal() for name in graph.order}


def stepped(graph, feedback, start, taus, name, dt, steps):
    """Return T^n x(0) with the scheme's matrix T of all units, and the same for all magnitudes."""
    order = list(graph.order)
    z = np.zeros((len(order), len(order)))
    for row, unit in enumerate(order[1:], 1):
        z[row, row] = -1 / taus[unit]
        for target in order:
            if unit in graph.sources[target]:
                z[row, order.index(target)] = feedback[unit, target] / taus[unit]
    flipped = np.ascontiguousarray(z[::-1, ::-1])  # from the lowest up, as transitions have it
    x = np.array([start[unit] for unit in order[::-1]])
    state = np.linalg.matrix_power(INTEGRATORS[name].transition(flipped, dt), steps) @ x
    amounts = np.abs(flipped)
    np.fill_diagonal(amounts, flipped.diagonal())
    size = np.linalg.matrix_power(INTEGRATORS[name].transition(amounts, dt), steps) @ np.abs(x)
    return dict(zip(order[::-1], state, strict=True)), dict(zip(order[::-1], size, strict=True))


def assert_equals_steps(graph, plan, seed, taus, name, dt, steps, silent):
    feedback, start = drawn(graph, seed)
    if silent:
        start = {unit: x if unit == graph.order[0] else 0.0 for unit, x in start.items()}
    found = by_hand(graph, plan, feedback, start)
    expected, size = stepped(graph, feedback, start, taus, name, dt, steps)
    for unit, x in expected.items():
        assert abs(found[unit] - x) <= 1e-12 * size[unit], unit


SCHEMES = st.sampled_from(STEPPED)


@given(graphs(), SCHEMES, st.integers(0, 30), st.floats(0.01, 1.0), st.booleans(), st.integers(0, 100))
def test_on_any_graph_the_plan_gives_what_steps_give(graph, name, steps, eta, silent, seed):
    """x(n) = sum_k c_k A^k x(0) + d_k A^(k-1) A_o eps, with paths of all lengths (one time constant)."""
    law = coefficients(INTEGRATORS[name].transition, chain_matrix([1.0] * (len(graph.order) - 1)), eta, steps)
    plan = exact_plan(graph, law, from_zero=silent)
    assert_equals_steps(graph, plan, seed, dict.fromkeys(graph.order, 1.0), name, eta, steps, silent)


@given(st.data(), st.integers(1, 20), SCHEMES, st.integers(0, 60), st.booleans())
def test_on_chains_the_plan_gives_what_steps_give_for_any_time_constants(data, hidden, name, steps, silent):
    """x_l(n) = sum_m C[l, m] B_{l->m} x_m(0)."""
    taus = data.draw(st.lists(st.floats(0.5, 5.0), min_size=hidden, max_size=hidden))
    graph = chain(hidden)
    law = coefficients(INTEGRATORS[name].transition, chain_matrix(taus), 0.4, steps)
    plan = exact_plan(graph, law, from_zero=silent)
    named = {f"p{i}": tau for i, tau in enumerate(taus)}
    assert_equals_steps(graph, plan, 3, named, name, 0.4, steps, silent)


@given(graphs(), st.data(), SCHEMES, st.integers(0, 30), st.booleans(), st.integers(0, 100))
def test_relays_hold_at_all_times_what_they_receive(graph, data, name, steps, silent, seed):
    """With relays R eliminated, the others relax by A_hh + A_hR (1 - A_RR)^-1 A_Rh."""
    relays = data.draw(st.sets(st.sampled_from(graph.order[1:]), max_size=len(graph.order) - 2))
    feedback, start = drawn(graph, seed)
    order = [unit for unit in graph.order if unit not in relays]
    through: dict[tuple[str, str], float] = {}
    for target in order:  # the sum over all ways from a target to a source that pass relays alone
        reached = {target: 1.0}
        for unit in graph.order:
            for source in graph.sources[unit] if unit in reached and unit in (target, *relays) else ():
                reached[source] = reached.get(source, 0.0) + feedback[source, unit] * reached[unit]
        through |= {(source, target): value for source, value in reached.items() if source != target}
    contracted = Graph(tuple(order), tuple(tuple(s for s, t in through if t == u and s not in relays) for u in order))
    law = coefficients(INTEGRATORS[name].transition, chain_matrix([1.0] * (len(order) - 1)), 0.3, steps)
    start = {unit: x if unit == order[0] or not silent else 0.0 for unit, x in start.items()}
    plan = exact_plan(graph, law, from_zero=silent, relays=relays)
    found = by_hand(graph, plan, feedback, start, relays)
    taus = dict.fromkeys(order, 1.0)
    expected, size = stepped(contracted, through, start, taus, name, 0.3, steps)
    for unit in order:
        assert abs(found[unit] - expected[unit]) <= 1e-12 * size[unit], unit
    for relay in relays:
        holds = [feedback[relay, unit] * found[unit] for unit in graph.order if relay in graph.sources[unit]]
        assert abs(found[relay] - sum(holds)) <= 1e-12 * bound(relay, feedback, graph, size, relays)


def bound(unit, feedback, graph, size, relays):
    """Return the sum of the magnitudes of all terms in what a unit receives."""
    above = [target for target in graph.order if unit in graph.sources[target]]
    return sum(
        abs(feedback[unit, t]) * (bound(t, feedback, graph, size, relays) if t in relays else size[t]) for t in above
    )


@given(graphs(), st.integers(0, 100))
def test_the_settled_plan_is_backpropagation(graph, seed):
    """One vector along each edge: x_v = sum_c B_vc x_c."""
    plan = settled_plan(graph)
    feedback, start = drawn(graph, seed)
    found = by_hand(graph, plan, feedback, start)
    for name in graph.order[1:]:
        expected = sum(
            feedback[name, target] * found[target] for target in graph.order if name in graph.sources[target]
        )
        assert found[name] == pytest.approx(expected, rel=1e-12, abs=1e-300)
    assert set(along_edges(plan)) <= {1}


def along_edges(plan):
    """Return the number of vectors along each edge, from the output down."""
    return [len(taken) for generators in plan.values() for taken in generators.taken.values()]


def widths(plan):
    """Return the number of vectors over each hop of a chain, from the lowest up."""
    return along_edges(plan)[::-1]


def plan_on_chain(hidden, name, eta, steps, silent=False):
    law = coefficients(INTEGRATORS[name].transition, chain_matrix([1.0] * hidden), eta, steps)
    return exact_plan(chain(hidden), law, from_zero=silent)


@given(st.integers(1, 50), st.sampled_from(STEPPED), st.integers(0, 600), st.floats(0.01, 1.0))
def test_never_more_than_sources_above_or_targets_below(hidden, name, steps, eta):
    """min(l, L - l) vectors over the hop into the l-th of L populations, counted from below with the output."""
    found = widths(plan_on_chain(hidden, name, eta, steps))
    assert all(count <= min(level, hidden + 1 - level) for level, count in enumerate(found, 1))


@pytest.mark.parametrize(("layers", "count"), [(5, 6), (50, 625)])
def test_as_many_as_the_theory_says(layers, count):
    """By weight layers: 6 instead of 400 = 4 * 100, 625 instead of 24,500 = 49 * 500."""
    found = widths(plan_on_chain(layers - 1, "euler", 0.1, 500 if layers == 50 else 100))
    assert found == [min(level, layers - level) for level in range(1, layers)]
    assert sum(found) == count


@pytest.mark.parametrize("name", STEPPED)
def test_nothing_is_carried_without_steps(name):
    plan = plan_on_chain(8, name, 0.1, 0)
    assert sum(widths(plan)) == 0
    assert all(generators.own and generators.is_copy for generators in plan.values())


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_synchronous_steps_reach_as_far_as_there_are_steps(steps):
    """Populations more than n hops above have no influence on x(n)."""
    hidden = 12
    assert widths(plan_on_chain(hidden, "euler", 0.1, steps)) == [
        min(steps, level, hidden + 1 - level) for level in range(1, hidden + 1)
    ]


@pytest.mark.parametrize("steps", [1, 3, 12, 500])
def test_from_silence_one_vector_goes_as_far_as_it_gets(steps):
    """x_l = P(K >= L - l) B eps: only the clamp travels, at most n hops; sequential sweeps travel all the way."""
    hidden = 12
    assert widths(plan_on_chain(hidden, "euler", 0.1, steps, silent=True)) == [
        int(hidden - level <= steps) for level in range(hidden)
    ]
    assert widths(plan_on_chain(hidden, "sequential", 0.1, steps, silent=True)) == [1] * hidden


@pytest.mark.parametrize("name", ["euler", "sequential"])
def test_a_step_of_eta_one_needs_one_vector(name):
    """x_l = B x_{l+1} after each step, so no population below the light cone needs its own initial activity."""
    found = widths(plan_on_chain(8, name, 1.0, 20))
    assert found == [1] * 8


def test_a_graph_of_fifty_hops_with_skips_takes_about_fifteen_an_edge():
    hidden = 50
    edges = [(i, i + skip) for i in range(hidden) for skip in (1, 2, 5) if i + skip <= hidden]
    graph = from_edges(hidden, edges)
    law = coefficients(INTEGRATORS["euler"].transition, chain_matrix([1.0] * hidden), 0.1, 500)
    plan = exact_plan(graph, law)
    along = along_edges(plan)
    assert len(along) == len(edges)
    assert 10 < sum(along) / len(edges) < 16
    for target, generators in zip(graph.order, plan.values(), strict=True):
        # one vector of initial activities for each number of hops that paths may have, and one of the clamp
        most = min(graph.below[target], 1 + graph.above[target])
        assert all(len(taken) <= most for taken in generators.taken.values())


def test_above_and_below_count_hops_along_the_longest_path():
    graph = from_edges(4, [(0, 1), (1, 2), (0, 3), (2, 3), (3, 4), (1, 4)])
    assert graph.above == {"p4": 0, "p3": 1, "p2": 2, "p1": 3, "p0": 4}
    assert graph.below == {"p4": 4, "p3": 3, "p2": 2, "p1": 1, "p0": 0}
    assert not graph.is_chain
    assert chain(4).is_chain
    assert chain(1).is_chain
    assert not from_edges(2, [(0, 1), (0, 2), (1, 2)]).is_chain
    assert not from_edges(2, [(0, 2), (1, 2)]).is_chain


def test_cycles_are_refused():
    graph = Graph(("output", "b", "a"), (("b",), ("a",), ("b",)))
    with pytest.raises(ActrelaxError, match=r"^the closed form needs a network without cycles, got a cycle of a, b\.$"):
        settled_plan(graph)
