"""What is read from a rate model in Brian2. Oracles: derivatives by hand."""

import brian2 as b2
import pytest
from brian2.parsing.sympytools import str_to_sympy

from actrelax.models.engines.brian2.rate_model import Rates, gains_of, link_of, rates_of, refuse_linked, summed_into
from actrelax.models.errors import ActrelaxError

TEXT = """
dr/dt = (-r - 0.5 * r**3 + tanh(a)) / tau + 0.1 * xi / tau**.5 : 1
dy/dt = (I - y) / tau : 1
a = s + u : 1 (constant over dt)
u = 0.3 * y : 1
v = r**2 : 1
s : 1
I : 1
tau : second
"""


def model():
    """Return a group with a filtered stimulus, and synapses whose sum has a part of its own name."""
    group = b2.NeuronGroup(2, TEXT, method="euler")
    return group, b2.Synapses(
        group, group, "w : 1\nq = 2 * w : 1 (constant over dt)\ns_post = q * r_pre**2 : 1 (summed)"
    )


def same(text, expected):
    return (str_to_sympy(text) - str_to_sympy(expected)).equals(0)


def test_leaks_gains_and_weights_are_derivatives():
    group, synapses = model()
    assert summed_into(synapses) == "s"
    rates = rates_of(group, "r", ["s"])
    assert same(rates.leak, "(1 + 1.5 * r**2) / tau")
    link = link_of(synapses, {group.name: rates}, several=False)
    assert same(link.weight, "4 * w * r_pre")
    (gain,) = gains_of(group, rates, [link], {"s": None}).values()
    assert same(gain, "(1 - tanh(s + 0.3 * y)**2) / (1 + 1.5 * r**2)")
    assert gains_of(group, rates, [link], {"s": "1.0 * int(a > 0)"}) == {"s": "1.0 * int(a > 0)"}


def test_what_follows_the_rates():
    """The rates, what is summed and what is made of them do; the stimulus and its filter don't."""
    rates = rates_of(model()[0], "r", ["s"])
    assert rates.live == {"r", "s", "a", "v"}


@pytest.mark.parametrize("statements", ["I = r", "I += 0.1 * v  # slowly", "b = s\n\nI = 2 * b", "r = clip(r, 0, 1)"])
def test_statements_that_set_what_the_rates_read_from_them(statements):
    group = b2.NeuronGroup(2, TEXT.replace("0.3 * y", "I") + "b : 1", method="euler", name="mine")
    group.run_regularly(statements)
    with pytest.raises(ActrelaxError, match=r"^run_regularly sets '[Ir]' of 'mine' from the rates, and no gradient"):
        rates_of(group, "r", ["s"])


@pytest.mark.parametrize("statements", ["I = rand()", "r = 0  # a new trial", "b = r", "y += int(t > 1*second)"])
def test_statements_that_do_not(statements):
    group = b2.NeuronGroup(2, TEXT + "b : 1", method="euler")
    group.run_regularly(statements)
    assert rates_of(group, "r", ["s"]).name == "r"


def test_weights_may_learn_from_the_adjoint():
    """Weights that read the rates alone would be filters; those that read gradients learn."""
    group, _ = model()
    rates = {group.name: rates_of(group, "r", ["s"])}
    for factor, accepted in (("gradient_post", True), ("r_post", False)):
        text = f"dw/dt = -{factor} * r_pre / second : 1 (clock-driven)\ns_post = w * r_pre : 1 (summed)"
        synapses = b2.Synapses(group, group, text)
        if accepted:
            assert link_of(synapses, rates, several=False).weight == "w"
        else:
            with pytest.raises(ActrelaxError, match="into 's', but reads w: write"):
                link_of(synapses, rates, several=False)


@pytest.mark.parametrize("read", ["v_pre", "v_post", "v", "r_post", "r", "s_pre", "a_pre"])
def test_synapses_may_read_nothing_else_that_follows_them(read):
    group, _ = model()
    rates: dict[str, Rates] = {group.name: rates_of(group, "r", ["s"])}
    synapses = b2.Synapses(group, group, f"s_post = r_pre * (1 + {read}) : 1 (summed)", name="mine")
    with pytest.raises(
        ActrelaxError, match=rf"^'mine' must sum a function of r_pre .* into 's', but reads {read}: write"
    ):
        link_of(synapses, rates, several=False)


@pytest.mark.parametrize("read", ["y_pre", "u_post", "I", "tau_post / second"])
def test_synapses_may_read_what_does_not_follow_them(read):
    group, _ = model()
    rates = {group.name: rates_of(group, "r", ["s"])}
    synapses = b2.Synapses(group, group, f"s_post = r_pre * (1 + {read}) : 1 (summed)")
    assert same(link_of(synapses, rates, several=False).weight, f"1 + {read}")


@pytest.mark.parametrize("variable", ["r", "s", "v"])
def test_variables_linked_to_what_follows_the_rates_are_refused(variable):
    """Brian2 writes rates linked into other equations out as if nothing but synapses read them."""
    group, _ = model()
    reader = b2.NeuronGroup(2, "dr/dt = (-r + tanh(s + x)) / (10 * ms) : 1\ns : 1\nx : 1 (linked)", name="reader")
    reader.x = b2.linked_var(group, variable)
    rates = {group.name: rates_of(group, "r", ["s"]), "reader": rates_of(reader, None, ["s"])}
    origin = "r" if variable == "v" else variable  # a subexpression is linked as what it computes
    said = rf"^'x' of 'reader' is linked to '{origin}' of '{group.name}', which follows the rates: connect"
    with pytest.raises(ActrelaxError, match=said):
        refuse_linked(reader, rates)


@pytest.mark.parametrize("variable", ["y", "u", "I"])
def test_variables_may_be_linked_to_what_does_not_follow_the_rates(variable):
    group, _ = model()
    reader = b2.NeuronGroup(2, "dr/dt = (-r + tanh(s + x)) / (10 * ms) : 1\ns : 1\nx : 1 (linked)")
    reader.x = b2.linked_var(group, variable)
    refuse_linked(reader, {group.name: rates_of(group, "r", ["s"]), reader.name: rates_of(reader, None, ["s"])})


def test_variables_must_be_linked_first():
    reader = b2.NeuronGroup(2, "dr/dt = (-r + s + x) / (10 * ms) : 1\ns : 1\nx : 1 (linked)", name="reader")
    with pytest.raises(ActrelaxError, match=r"^'x' of 'reader' is linked to nothing yet: set reader.x = linked_var"):
        refuse_linked(reader, {"reader": rates_of(reader, None, ["s"])})
