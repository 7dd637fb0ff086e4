"""The adjoint of a user's rate model. Oracles: dense solves in NumPy, and differences of the settled loss."""

import brian2 as b2
import numpy as np
import pytest
from brian2.codegen.runtime.cython_rt import CythonCodeObject

from actrelax.models.engines.brian2 import adjoint, generating, targets
from actrelax.models.errors import ActrelaxError

UNITS = 6
TANH = """
dr/dt = (-r + k * tanh(a)) / tau : 1
a = s + I : 1
s : 1
I : 1
k : 1 (shared)
tau : second
"""
SUM = "w : 1\ns_post = w * r_pre : 1 (summed)"


@pytest.fixture(autouse=True)
def in_numpy():
    with generating("numpy"):
        yield


def model(text=TANH, synapses=SUM, *, gain=1.0, seed=0, sparse=True, **values):
    """Return a group, its synapses and their weights (target, source)."""
    draw = np.random.default_rng(seed)
    group = b2.NeuronGroup(UNITS, text, method="euler", dt=0.5 * b2.ms, namespace={})
    recurrent = b2.Synapses(group, group, synapses, dt=0.5 * b2.ms, namespace={})
    W = gain * draw.normal(size=(UNITS, UNITS)) / np.sqrt(UNITS)
    if sparse:
        W[draw.random(W.shape) < 0.4] = 0
    j, i = np.nonzero(W)
    recurrent.connect(i=i, j=j)
    recurrent.w = W[j, i]
    for name, value in {"I": draw.normal(size=UNITS), **values}.items():
        setattr(group, name, value)
    return group, recurrent, W


def tanh_model(**options):
    values = {"k": 0.9, "tau": np.linspace(5, 20, UNITS) * b2.ms}
    return model(**{**values, **options})


def run(duration, *things):
    network = b2.Network(*things)
    network.run(duration * b2.ms, namespace={})
    return network


def test_it_rests_at_the_implicit_gradient():
    group, recurrent, W = tanh_model()
    back, feedback = adjoint(group, recurrent)
    e = np.arange(UNITS) - 2.0
    back.error = e
    run(1500, group, recurrent, back, feedback)
    g = 0.9 * (1 - np.tanh(group.a[:]) ** 2)
    assert back.gain[:] == pytest.approx(g, rel=1e-12)
    assert back.gradient[:] == pytest.approx(np.linalg.solve(np.eye(UNITS) - W.T @ np.diag(g), e), rel=1e-10)
    without = np.abs(back.gradient[:] - e).max()
    assert without > 0.1  # the synapses matter


def test_updates_are_differences_of_the_settled_loss():
    target = np.linspace(-0.5, 0.5, UNITS)

    def settled(change=None):
        group, recurrent, _ = tanh_model(text=TANH + "target : 1", target=target)
        if change is not None:
            recurrent.w[change[0]] += change[1]
        things = adjoint(group, recurrent, error="r - target")
        run(1500, group, recurrent, *things)
        return group, recurrent, things.group

    group, recurrent, back = settled()
    update = back.gain[recurrent.j[:]] * back.gradient[recurrent.j[:]] * group.r[recurrent.i[:]]
    for synapse in (0, 5, len(recurrent) - 1):
        losses = [((settled((synapse, h))[0].r[:] - target) ** 2).sum() / 2 for h in (1e-4, -1e-4)]
        assert (losses[0] - losses[1]) / 2e-4 == pytest.approx(update[synapse], rel=1e-6, abs=1e-9)


PLAIN = "dr/dt = (-r + tanh(s + I)) / (10*ms) : 1\ns : 1\nI : 1"


@pytest.mark.parametrize(
    ("text", "synapses"),
    [
        ("dr/dt = (-r + tanh(a)) / (10*ms) : 1\na = b : 1 (constant over dt)\nb = s + I : 1\ns : 1\nI : 1", SUM),
        ("dr/dt = (-r + 0.5 * (a + abs(a))) / (10*ms) : 1\na = s + I : 1\ns : 1\nI : 1", SUM),
        (PLAIN.replace("I)", "0.3 * y)") + "\ndy/dt = (I - y) / (5*ms) : 1", SUM),
        (PLAIN, "w : 1\nq = w * r_pre : 1\ns_post = q : 1 (summed)"),
        (PLAIN, "w : 1\nq = tanh(r_pre) : 1 (constant over dt)\ns_post = w * q * r_pre : 1 (summed)"),
    ],
    ids=["constant over dt", "abs", "filtered stimulus", "sum by name", "part of the sum by name"],
)
def test_parts_of_equations_under_their_own_names(text, synapses):
    """Gradients are differences of the settled loss, also if equations use subexpressions or filter the stimulus."""

    def settled(push=0.0):
        group, recurrent, _ = model(text.replace("-r +", "-r + push +") + "\npush : 1", synapses, gain=0.5)
        group.push[2] = push
        things = adjoint(group, recurrent, rate="r", error="r - 0.5")
        run(600, group, recurrent, *things)
        return ((group.r[:] - 0.5) ** 2).sum() / 2, things.group.gradient[2]

    losses = [settled(h)[0] for h in (1e-4, -1e-4)]
    assert settled()[1] == pytest.approx((losses[0] - losses[1]) / 2e-4, rel=1e-5)


EXCITED_AND_INHIBITED = """
dr/dt = (-r + tanh(excited - 0.5 * inhibited + 0.2 * i)) / (10*ms) : 1
excited : 1
inhibited : 1
"""


def test_a_list_of_groups_and_synapses():
    """Excitation and inhibition apart, from a subgroup too; they are connected later. The loss is of one group only."""
    one, two = (b2.NeuronGroup(n, EXCITED_AND_INHIBITED, method="euler", dt=2 * b2.ms, name=f"g{n}") for n in (4, 3))
    kinds = ((one, one, "excited"), (one, two, "excited"), (two, one, "inhibited"), (two[1:], two, "inhibited"))
    links = [b2.Synapses(u, v, f"w : 1\n{s}_post = w * r_pre : 1 (summed)", dt=2 * b2.ms) for u, v, s in kinds]
    backs, feedback = adjoint([one, two], links, error={"g4": "r - 1"})
    draw, W = np.random.default_rng(0), np.zeros((7, 7))
    places = ((0, 0), (4, 0), (0, 4), (4, 5))
    for synapses, (row, column) in zip(links, places, strict=True):
        synapses.connect("(i + 2 * j) % 3 != 0")
        synapses.w = draw.uniform(0, 0.6, len(synapses))
        W[synapses.j[:] + row, synapses.i[:] + column] = synapses.w[:] * (-0.5 if column else 1)
    run(600, one, two, links, backs, feedback)
    gain = np.concatenate([1 - np.tanh(v.excited[:] - 0.5 * v.inhibited[:] + 0.2 * v.i[:]) ** 2 for v in (one, two)])
    expected = np.linalg.solve(np.eye(7) - W.T @ np.diag(gain), np.append(one.r[:] - 1, [0, 0, 0]))
    assert np.concatenate([back.gradient[:] for back in backs]) == pytest.approx(expected, rel=1e-10)
    assert np.abs(expected[4:]).max() > 0.1
    assert backs[1].gain_inhibited[:] == pytest.approx(-0.5 * gain[4:])
    assert links[3].gain_post[:] == pytest.approx(-0.5 * gain[4:][links[3].j[:]])


@pytest.mark.skipif("cython" not in targets(), reason="no compiler")
def test_feedback_in_compiled_code():
    """What runs over the synapses, in Cython; whole models are compiled in test_build.py."""
    group, recurrent, W = tanh_model()
    back, feedback = adjoint(group, recurrent, error="r - 1")
    feedback.codeobj_class = CythonCodeObject  # to compile the rest takes long, and tests nothing
    run(1500, group, recurrent, back, feedback)
    assert isinstance(feedback.codeobj, CythonCodeObject)
    g = 0.9 * (1 - np.tanh(group.a[:]) ** 2)
    expected = np.linalg.solve(np.eye(UNITS) - W.T @ np.diag(g), group.r[:] - 1)
    assert back.gradient[:] == pytest.approx(expected, rel=1e-10)


def test_later_changes_of_weights_take_effect():
    group, recurrent, _ = tanh_model(sparse=False)
    back, feedback = adjoint(group, recurrent)
    back.error = 1.0
    network = run(1500, group, recurrent, back, feedback)
    before = np.array(back.gradient[:])
    recurrent.w = "w / 2"
    network.run(1500 * b2.ms, namespace={})
    W = np.zeros((UNITS, UNITS))
    W[recurrent.j[:], recurrent.i[:]] = recurrent.w[:]
    g = 0.9 * (1 - np.tanh(group.a[:]) ** 2)
    expected = np.linalg.solve(np.eye(UNITS) - W.T @ np.diag(g), np.ones(UNITS))
    assert back.gradient[:] == pytest.approx(expected, rel=1e-10)
    assert np.abs(before - expected).max() > 0.1


def test_its_time_constants_are_those_of_the_model():
    """One step from zero is dt / tau times the error."""
    group, recurrent, _ = tanh_model()
    back, feedback = adjoint(group, recurrent)
    back.error = 1.0
    run(0.5, group, recurrent, back, feedback)
    assert back.gradient[:] == pytest.approx(0.5 / np.linspace(5, 20, UNITS), rel=1e-12)


def test_units_saturation_and_synapses_with_parameters():
    """Rates in Hz, a leak that depends on the input, and a sum of presynaptic and synaptic parameters."""
    text = """
    dr/dt = -r / tau + (top - r) / (1 + exp(-s / mV)) / tau : Hz
    s = inside + I : volt
    inside : volt
    I : volt
    release : 1
    top = 100 * Hz : Hz
    tau = 10 * ms : second
    """
    synapses = "w : 1\nscale : volt / Hz (shared)\ninside_post = w * scale * release_pre * r_pre : volt (summed)"
    group, recurrent, W = model(text, synapses, I=np.linspace(-1, 1, UNITS) * b2.mV, release=np.linspace(0.5, 1, UNITS))
    recurrent.scale = 0.05 * b2.mV / b2.Hz
    back, feedback = adjoint(group, recurrent)
    back.error = e = np.arange(UNITS) - 2.5
    run(600, group, recurrent, back, feedback)
    f = 1 / (1 + np.exp(-np.asarray(group.s[:] / b2.mV)))
    gain = (100 - np.asarray(group.r[:])) * f * (1 - f) / (1 + f)  # dr/ds at rest, per mV
    coupling = 0.05 * W * np.linspace(0.5, 1, UNITS)
    expected = np.linalg.solve(np.eye(UNITS) - coupling.T @ np.diag(gain), e)
    assert np.abs(coupling * gain[:, None]).max() > 0.1
    assert back.gradient[:] == pytest.approx(expected, rel=1e-9)
    assert np.asarray(back.gain[:]) == pytest.approx(1e3 * gain, rel=1e-9)  # per volt


def test_a_gain_of_ones_own_and_noise():
    text = TANH.replace("k * tanh(a)", "k * a * int(a > 0)").replace("/ tau", "/ tau + 0.0 * xi / tau**.5")
    group, recurrent, W = tanh_model(text=text)
    with pytest.raises(ActrelaxError, match=r"applies a function to 's' that can't be differentiated: give f'\(a\) by"):
        adjoint(group, recurrent)
    back, feedback = adjoint(group, recurrent, gain="k * int(a > 0)")
    back.error = 1.0
    run(1500, group, recurrent, back, feedback)
    g = 0.9 * (group.a[:] > 0)
    assert 0 < (g > 0).sum() < UNITS
    assert back.gradient[:] == pytest.approx(
        np.linalg.solve(np.eye(UNITS) - W.T @ np.diag(g), np.ones(UNITS)), rel=1e-9
    )


def test_a_variable_of_one_neuron_is_linked_into_all():
    one = b2.NeuronGroup(1, "k : 1")
    one.k = 0.9
    text = TANH.replace("k : 1 (shared)", "k : 1 (linked)")
    group, recurrent, W = tanh_model(text=text, k=b2.linked_var(one, "k"))
    back, feedback = adjoint(group, recurrent, error="r")
    run(1500, one, group, recurrent, back, feedback)
    g = 0.9 * (1 - np.tanh(group.a[:]) ** 2)
    assert back.gradient[:] == pytest.approx(np.linalg.solve(np.eye(UNITS) - W.T @ np.diag(g), group.r[:]), rel=1e-9)


def test_weights_learn_by_an_equation_of_their_own():
    text = SUM.replace("w : 1", "dw/dt = -gain_post * gradient_post * r_pre / second : 1 (clock-driven)")
    group, recurrent, _ = tanh_model(synapses=text)
    back, feedback = adjoint(group, recurrent, error="r")
    network = run(300, group, recurrent, back, feedback)
    update = back.gain[recurrent.j[:]] * back.gradient[recurrent.j[:]] * group.r[recurrent.i[:]]
    before = recurrent.w[:].copy()
    network.run(0.5 * b2.ms, namespace={})
    assert recurrent.w[:] - before == pytest.approx(-update * 0.5e-3, rel=0.02, abs=1e-7)


def connected(group, text=SUM, target=None):
    synapses = b2.Synapses(group, target or group, text)
    synapses.connect()
    return synapses


def refused_models():
    one, two = (b2.NeuronGroup(2, TANH, method="euler") for _ in range(2))
    crossed = connected(one, target=two)
    used, recurrent, _ = model()
    adjoint(used, recurrent)
    moving = b2.NeuronGroup(2, TANH + "db/dt = -b / tau : 1", method="euler")
    named = b2.NeuronGroup(2, TANH + "error : 1", method="euler")
    rising = b2.NeuronGroup(2, "dr/dt = s / tau : 1\ns : 1\ntau : second", method="euler")
    adapting = b2.NeuronGroup(
        2, PLAIN.replace("I)", "b)") + "\nb = 1 - c : 1\ndc/dt = (r - c) / second : 1", method="euler"
    )
    squared = b2.NeuronGroup(2, PLAIN + "\nu = v**2 : 1 (constant over dt)\nv = 1 + r : 1", method="euler")
    outside = b2.NeuronGroup(2, PLAIN.replace("I)", "feedback)"), method="euler", namespace={"feedback": 0.7})
    unread = b2.NeuronGroup(2, PLAIN + "\nunread : 1", method="euler")
    linked = b2.NeuronGroup(2, PLAIN.replace("I)", "x)") + "\nx : 1 (linked)", method="euler")
    linked.x = b2.linked_var(two, "r")
    indexed = b2.NeuronGroup(2, PLAIN.replace("I)", "x)") + "\nx : 1 (linked)", method="euler")
    indexed.x = b2.linked_var(two, "I", index=[1, 0])
    jumping = b2.NeuronGroup(2, PLAIN.replace("tanh", "sign"), method="euler")
    tired = SUM.replace("w *", "z * w *") + "\ndz/dt = (1 - z) / second - z * r_pre / second : 1 (clock-driven)"
    backwards = "w : 1\ns_pre = w * r_post : 1 (summed)"
    return [
        (one, one, {}, "adjoint takes NeuronGroups and the Synapses among them, got NeuronGroup."),
        (one, [], {}, "adjoint takes NeuronGroups and the Synapses among them, got an empty list."),
        ([one, two], [crossed, crossed], {}, f"{crossed.name!r} is given twice: give each group and each Synapses"),
        ([one, one], crossed, {}, f"{one.name!r} is given twice"),
        (one, crossed, {}, f" connects {two.name!r}, which is not given: give all groups, as a list."),
        (used, recurrent, {}, "has an adjoint already, or a variable named like its: gradient_post, gain_post, "),
        (moving, connected(moving), {}, "has 2 differential equations: name the rates, rate='r'."),
        (moving, connected(moving), {"rate": "q"}, "has no differential equation of 'q'; known: b, r."),
        (
            named,
            connected(named),
            {},
            f"the adjoint has a variable 'error', and {named.name!r} uses that name, too: rename",
        ),
        (one, connected(one, backwards), {}, "must have one summed variable, of its postsynaptic neurons."),
        (one, connected(one, "s_post = I_pre : 1 (summed)"), {}, "must sum a function of r_pre and of nothing else"),
        (one, connected(one, "s_post = r_pre - r_post : 1 (summed)"), {}, "write s_post = w * r_pre : 1 (summed)."),
        (
            one,
            connected(one, "s_post = r_pre - 0.5 * r : 1 (summed)"),
            {},
            "follows the rates into 's', but reads r: write",
        ),
        (
            squared,
            connected(squared, "s_post = r_pre * u_pre : 1 (summed)"),
            {},
            "follows the rates into 's', but reads u_pre:",
        ),
        (
            squared,
            connected(squared, "s_post = r_pre * u : 1 (summed)"),
            {},
            "follows the rates into 's', but reads u: write",
        ),
        (one, connected(one, tired), {}, "follows the rates into 's', but reads z: write"),
        (
            adapting,
            connected(adapting),
            {"rate": "r"},
            "dr/dt of 'r' reads 'c', which follows the rates by a differential",
        ),
        (
            [linked, two],
            connected(linked, target=two),
            {},
            f"'x' of {linked.name!r} is linked to 'r' of {two.name!r}, which follows the rates: connect them by",
        ),
        (indexed, connected(indexed), {}, f"'x' of {indexed.name!r} is linked by an index, which the adjoint can't"),
        (outside, connected(outside), {}, "the adjoint has a variable 'feedback', and "),
        (
            unread,
            connected(unread, SUM.replace("s_", "unread_")),
            {},
            "dr/dt of 'r' does not read 'unread': write dr/dt",
        ),
        (jumping, connected(jumping), {}, "applies a function to 's' that can't be differentiated: give f'(a) by"),
        (
            one,
            connected(one, "s_post = r_pre * gain_post : 1 (summed)"),
            {},
            "has an adjoint already, or a variable named",
        ),
        (rising, connected(rising), {}, "dr/dt of 'r' must decrease with 'r': write dr/dt = (-r + f(a)) / tau."),
        (one, connected(one), {"error": {"two": "r"}}, f"error names an unknown group 'two'; known: {one.name}."),
        (one, connected(one), {"gain": {"a": "1"}}, "gain names an unknown summed variable 'a'; known: s."),
        (
            one,
            [connected(one), connected(one, SUM.replace("s_", "I_"))],
            {"gain": "1"},
            "the summed variables I, s need a gain each: give gain={'I': '...', 's': '...'}.",
        ),
    ]


def test_refusals():
    for group, synapses, options, sentence in refused_models():
        with pytest.raises(ActrelaxError) as refused:
            adjoint(group, synapses, **options)
        assert sentence in str(refused.value)
    group = b2.NeuronGroup(2, TANH + "db/dt = -b / tau : 1", method="euler")
    assert adjoint(group, connected(group), rate="r").group.N == 2
