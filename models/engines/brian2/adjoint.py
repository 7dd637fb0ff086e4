"""The adjoint of a rate model written in Brian2: units whose rest state is the gradient of a loss (docs/theory.md).

Gradients pass through the model's own synapses in the other direction: a second summed variable adds the gradients of
the postsynaptic neurons up at the presynaptic ones. So nothing about the synapses is read when the adjoint is made, and
it works on every target and device of Brian2, whenever synapses are connected and weights are changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import brian2 as b2
from brian2.synapses.synapses import SummedVariableUpdater
from brian2.utils.stringtools import get_identifiers

from actrelax.models._names import known
from actrelax.models.engines.brian2.rate_model import (
    IN_SYNAPSES,
    Link,
    Rates,
    gains_of,
    link_of,
    rates_of,
    refuse_linked,
    summed_into,
    whole,
)
from actrelax.models.engines.brian2.unused import forgotten_on_error
from actrelax.models.errors import ActrelaxError

BASE_UNITS = ("metre", "kilogram", "second", "amp", "kelvin", "mole", "candle")
"""In the order of Brian2's dimensions."""


class Adjoint(NamedTuple):
    """The adjoint of a rate model; a list of objects for a list of groups or of synapses.

    group     NeuronGroup with the variables gradient, error and gain
    feedback  object that sums gradients through the model's synapses, from each neuron to those that drive it
    """

    group: Any
    feedback: Any


def adjoint(
    group: Any,
    synapses: Any,
    *,
    rate: str | None = None,
    error: str | Mapping[str, str] | None = None,
    gain: str | Mapping[str, str] | None = None,
) -> Adjoint:
    """Return objects whose rest state is the gradient of a loss of a rate model's settled rates.

    For ``tau dr/dt = -r + f(a)``, with a summed variable in a, they follow ``tau dx/dt = -x + error + sum w g x``:
    activation relaxation, with the model's own weights and time constants, and the gains g = f'(a) of the moment. They
    are stable where the model is. At rest ``x = dL/dr``. The model's synapses get the variables ``gradient_post`` and
    ``gain_post``: where they sum ``w * r_pre``, ``dL/dw = gain_post * gradient_post * r_pre``. In other equations of r
    and the summed variable the leak -d(dr/dt)/dr takes the place of 1/tau. Standalone programs are supported.

    Parameters
    ----------
    group : brian2.NeuronGroup or sequence of them
        The rate model; it may have units.
    synapses : brian2.Synapses or sequence of them
        All synapses among the groups, or subgroups of them, each with one summed variable of its target. They can be
        connected and changed later.
    rate : str, optional
        Name of the rates; by default the only variable with a differential equation.
    error : str or mapping from names of groups to str, optional
        Derivative of the loss with respect to the rates, an expression in the group's variables; by default a parameter
        ``error`` of the adjoint group, 0 until it is set.
    gain : str or mapping from names of summed variables to str, optional
        f'(a) in the group's variables, for functions that Brian2 can't differentiate, such as ``int(a > 0)``. It is the
        derivative by the summed variable, over the leak.

    Returns
    -------
    Adjoint
        Unpack it, or add both to the `brian2.Network` of the model. The adjoint of a group with several summed
        variables, such as ``excited`` and ``inhibited``, has a gain for each: ``gain_excited``, ``gain_inhibited``.

    Raises
    ------
    ActrelaxError
        For several differential variables without a choice of `rate`, rates that read another differential
        variable which follows them or that don't read what is summed, variables that `run_regularly` sets from the
        rates, variables linked by an index or to what follows the rates of a group, synapses that sum anything but one
        function of presynaptic rates, synapses to other groups, a function that can't be differentiated, or names that
        the adjoint needs.

    Examples
    --------
    >>> import brian2 as b2
    >>> b2.prefs.codegen.target = "numpy"
    >>> tau = 10 * b2.ms
    >>> rates = b2.NeuronGroup(2, "dr/dt = (-r + tanh(s + I)) / tau : 1\\ns : 1\\nI : 1", method="euler")
    >>> recurrent = b2.Synapses(rates, rates, "w : 1\\ns_post = w * r_pre : 1 (summed)")
    >>> recurrent.connect(i=0, j=1)
    >>> recurrent.w = 0.5
    >>> back, feedback = adjoint(rates, recurrent)
    >>> back.error = [0, 1]
    >>> b2.Network(rates, recurrent, back, feedback).run(300 * b2.ms)
    >>> print(back.gradient[:].round(6))
    [0.5 1. ]
    """
    groups, connections = _listed(group), _listed(synapses)
    _check(groups, connections)
    summed_in = {
        each.name: [summed_into(s) for s in connections if whole(s.target).name == each.name] for each in groups
    }
    rates = {each.name: rates_of(each, rate, summed_in[each.name]) for each in groups}
    for each in groups:
        refuse_linked(each, rates)
    links = [link_of(each, rates, several=len(connections) > 1) for each in connections]
    summed = sorted({link.summed for link in links})
    if isinstance(gain, str) and len(summed) > 1:
        example = ", ".join(f"{name!r}: '...'" for name in summed)
        raise ActrelaxError(f"the summed variables {', '.join(summed)} need a gain each: give gain={{{example}}}.")
    given = _by_name("gain", gain, "summed variable", summed)
    gains = {each.name: gains_of(each, rates[each.name], links, given) for each in groups}
    backs, sums = _made(groups, rates, links, gains, _by_name("error", error, "group", list(rates)))
    return Adjoint(
        backs if isinstance(group, Sequence) else backs[0],
        sums if isinstance(synapses, Sequence) else sums[0],
    )


@forgotten_on_error()
def _made(
    groups: list[Any],
    rates: dict[str, Rates],
    links: list[Link],
    gains: dict[str, dict[str, str]],
    errors: dict[str, str | None],
) -> tuple[list[Any], list[Any]]:
    """Return the adjoint groups, and what sums their feedback."""
    backs = {}
    for each in groups:
        feedbacks = [link.feedback for link in links if link.source == each.name]
        backs[each.name] = _back(each, rates[each.name], feedbacks, gains[each.name], errors[each.name])
    return list(backs.values()), [_sum_of_feedback(link, backs, gains[link.target]) for link in links]


def _back(group: Any, rates: Rates, feedbacks: list[str], gains: dict[str, str], error: str | None) -> Any:
    """Return the adjoint of one group."""
    leak, variables = rates.leak, group.variables
    lines = {
        "gradient": f"dgradient/dt = ({' + '.join(['error', *feedbacks])} - gradient) * ({leak}) : 1",
        "error": "error : 1" if error is None else f"error = {error} : 1",
    }
    lines |= {name: f"{name} : 1" for name in feedbacks}
    for summed, text in gains.items():
        name = _gain_name(summed, gains)
        lines[name] = f"{name} = {text} : {_unit(variables[rates.name].dim / variables[summed].dim)}"
    read = get_identifiers(" ".join([leak, error or "", *gains.values()]))
    taken = [name for name in lines if name in variables or name in read]  # in the group, or outside it
    if taken:
        raise ActrelaxError(
            f"the adjoint has a variable {taken[0]!r}, and {group.name!r} uses that name, too: rename yours."
        )
    references = sorted(name for name in read if name in variables and name not in lines)
    for name in references:
        if variables.indices[name] not in ("_idx", "0"):
            raise ActrelaxError(
                f"{name!r} of {group.name!r} is linked by an index, which the adjoint can't follow: make it a "
                "parameter and set its values."
            )
    made = b2.NeuronGroup(
        group.N,
        "\n".join(lines.values()),
        method="euler",
        clock=group.clock,
        namespace=group.namespace or None,
        name=f"{group.name}_adjoint",
    )
    for name in references:
        made.variables.add_reference(name, group, index=variables.indices[name])
    return made


def _sum_of_feedback(link: Link, backs: dict[str, Any], gains: dict[str, str]) -> Any:
    """Return what adds up the gradients that arrive at presynaptic neurons; its variables become the synapses'."""
    variables, source, target = link.synapses.variables, backs[link.source], backs[link.target]
    variables.add_reference("gradient_post", target, "gradient", "_postsynaptic_idx")
    variables.add_reference("gain_post", target, _gain_name(link.summed, gains), "_postsynaptic_idx")
    variables.add_reference("feedback_pre", source, link.feedback, "_presynaptic_idx")
    variables.add_reference("_N_adjoint", source, "N")  # N_pre of a subgroup is smaller
    text = b2.Expression(f"({link.weight}) * gain_post * gradient_post")
    return SummedVariableUpdater(text, "feedback_pre", link.synapses, source, "_N_adjoint", "_synaptic_pre")


def _listed(things: Any) -> list[Any]:
    return list(things) if isinstance(things, Sequence) else [things]


def _by_name(option: str, given: str | Mapping[str, str] | None, kind: str, names: list[str]) -> dict[str, str | None]:
    """Return an option's value for each name."""
    if not isinstance(given, Mapping):
        return dict.fromkeys(names, given)
    for name in given:
        known(kind, name, names, where=option)
    return {name: given.get(name) for name in names}


def _check(groups: list[Any], connections: list[Any]) -> None:
    wrong = [each for each in groups if not isinstance(each, b2.NeuronGroup)]
    wrong += [each for each in connections if not isinstance(each, b2.Synapses)]
    if wrong or not groups or not connections:
        got = type(wrong[0]).__name__ if wrong else "an empty list"
        raise ActrelaxError(f"adjoint takes NeuronGroups and the Synapses among them, got {got}.")
    names = [each.name for each in (*groups, *connections)]
    for name in names:
        if names.count(name) > 1:
            raise ActrelaxError(f"{name!r} is given twice: give each group and each Synapses object once.")
    for each in connections:
        for end in (whole(each.source), whole(each.target)):
            if all(end.id != one.id for one in groups):
                raise ActrelaxError(
                    f"{each.name!r} connects {end.name!r}, which is not given: give all groups, as a list."
                )
        code = " ".join(updater.expression.code for updater in each.summed_updaters.values())
        if any(name in each.variables or name in get_identifiers(code) for name in IN_SYNAPSES):
            raise ActrelaxError(
                f"{each.name!r} has an adjoint already, or a variable named like its: {', '.join(IN_SYNAPSES)}."
            )


def _gain_name(summed: str, gains: dict[str, str]) -> str:
    return "gain" if len(gains) == 1 else f"gain_{summed}"


def _unit(dimensions: Any) -> str:
    """Return a unit in SI units, as text."""
    factors = [f"{unit}**{power}" for unit, power in zip(BASE_UNITS, dimensions._dims, strict=True) if power]
    return " * ".join(factors) or "1"
