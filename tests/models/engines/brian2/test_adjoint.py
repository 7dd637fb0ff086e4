"""The adjoint of a user's rate model. Oracles: dense solves in NumPy, and differences of the settled loss."""

import brian2 as b2
import numpy as np
import pytest

from actrelax.models.engines.brian2 import adjoint, generating
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
    back, returning = adjoint(group, recurrent)
    e = np.arange(UNITS) - 2.0
    back.error = e
    run(1500, group, recurrent, back, returning)
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


def test_later_changes_of_weights_take_effect():
    group, recurrent, _ = tanh_model(sparse=False)
    back, returning = adjoint(group, recurrent)
    back.error = 1.0
    network = run(1500, group, recurrent, back, returning)
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
    back, returning = adjoint(group, recurrent)
    back.error = 1.0
    run(0.5, group, recurrent, back, returning)
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
    back, returning = adjoint(group, recurrent)
    back.error = e = np.arange(UNITS) - 2.5
    run(600, group, recurrent, back, returning)
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
    back, returning = adjoint(group, recurrent, gain="k * int(a > 0)")
    back.error = 1.0
    run(1500, group, recurrent, back, returning)
    g = 0.9 * (group.a[:] > 0)
    assert 0 < (g > 0).sum() < UNITS
    assert back.gradient[:] == pytest.approx(
        np.linalg.solve(np.eye(UNITS) - W.T @ np.diag(g), np.ones(UNITS)), rel=1e-9
    )


def connected(group, text=SUM):
    synapses = b2.Synapses(group, group, text)
    synapses.connect()
    return synapses


def refused_models():
    one, two = (b2.NeuronGroup(2, TANH, method="euler") for _ in range(2))
    empty, crossed = b2.Synapses(one, one, SUM), b2.Synapses(one, two, SUM)
    crossed.connect()
    moving = b2.NeuronGroup(2, TANH + "db/dt = -b / tau : 1", method="euler")
    named = b2.NeuronGroup(2, TANH + "error : 1", method="euler")
    rising = b2.NeuronGroup(2, "dr/dt = s / tau : 1\ns : 1\ntau : second", method="euler")
    backwards = "w : 1\ns_pre = w * r_post : 1 (summed)"
    return [
        (one, one, {}, "adjoint takes a NeuronGroup and its Synapses, got NeuronGroup and NeuronGroup."),
        (one, empty, {}, "has no synapses yet: call its connect method first."),
        (one, crossed, {}, "to itself: put all populations into one group."),
        (moving, connected(moving), {}, "has 2 differential equations: name the rates, rate='r'."),
        (moving, connected(moving), {"rate": "q"}, "has no differential equation of 'q'; known: b, r."),
        (named, connected(named), {}, "the adjoint has a variable 'error', and so has "),
        (one, connected(one, backwards), {}, "must have one summed variable, of its postsynaptic neurons."),
        (one, connected(one, "s_post = I_pre : 1 (summed)"), {}, "'s' must sum a function of r_pre: write dr/dt = "),
        (rising, connected(rising), {}, "dr/dt of 'r' must decrease: write dr/dt = (-r + f(a)) / tau, and s_post = "),
    ]


def test_refusals():
    for group, synapses, options, sentence in refused_models():
        with pytest.raises(ActrelaxError) as refused:
            adjoint(group, synapses, **options)
        assert sentence in str(refused.value)
    group = b2.NeuronGroup(2, TANH + "db/dt = -b / tau : 1", method="euler")
    assert adjoint(group, connected(group), rate="r").group.N == 2
