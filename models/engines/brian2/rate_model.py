"""What an adjoint needs to know of a rate model written in Brian2: leaks, gains and weights, as expressions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import brian2 as b2
import sympy
from brian2.core.variables import Subexpression
from brian2.equations.equations import DIFFERENTIAL_EQUATION, SUBEXPRESSION
from brian2.groups.group import CodeRunner
from brian2.parsing.statements import parse_statement
from brian2.parsing.sympytools import str_to_sympy, sympy_to_str

from actrelax.models.errors import ActrelaxError

IN_SYNAPSES = ("gradient_post", "gain_post", "feedback_pre")
"""Variables of the adjoint that the model's synapses can read."""


class Rates(NamedTuple):
    """The rates of a group: dr/dt = slope(r, s), with its subexpressions written out, and the leak -d(slope)/dr.

    live    names of the group's variables that follow the rates: themselves, summed variables, and what is made of them
    """

    name: str
    slope: Any
    leak: str
    live: frozenset[str]


class Link(NamedTuple):
    """Synapses that add weight * (change of the presynaptic rate) to the summed variable, and their ends."""

    synapses: Any
    source: str
    target: str
    summed: str
    weight: str
    feedback: str


def whole(end: Any) -> Any:
    """Return the group of a subgroup."""
    return end.source if isinstance(end, b2.Subgroup) else end


def summed_into(synapses: Any) -> str:
    """Return the one variable of the postsynaptic neurons that synapses sum, without `_post`."""
    names = list(synapses.summed_updaters)
    if len(names) != 1 or not names[0].endswith("_post"):
        raise ActrelaxError(f"{synapses.name!r} must have one summed variable, of its postsynaptic neurons.")
    return str(names[0]).removesuffix("_post")


def rates_of(group: Any, rate: str | None, summed: Collection[str]) -> Rates:
    """Return the rates of a group, into whose variables `summed` the model's synapses sum.

    Refuses several differential equations without a choice, rates that read another variable which follows the rates
    by a differential equation or by `run_regularly`, and rates that do not leak.
    """
    moving = _moving(group)
    if rate is None and len(moving) != 1:
        raise ActrelaxError(f"{group.name!r} has {len(moving)} differential equations: name the rates, rate='r'.")
    chosen = next(iter(moving)) if rate is None else rate
    if chosen not in moving:
        raise ActrelaxError(
            f"{group.name!r} has no differential equation of {chosen!r}; known: {', '.join(sorted(moving))}."
        )
    parts = _subexpressions(group)
    runs = _run_regularly(group)
    live = _live({chosen, *summed}, [*parts.items(), *moving.items(), *runs])
    slope = _written_out(moving[chosen], parts)
    slope = slope.subs({symbol: 0 for symbol in slope.free_symbols if re.fullmatch("xi(_.*)?", symbol.name)})
    others = sorted(_names(slope) & live & set(moving) - {chosen})
    if others:
        raise ActrelaxError(
            f"dr/dt of {chosen!r} reads {others[0]!r}, which follows the rates by a differential equation of its own: "
            f"write {others[0]!r} as an expression of rates and summed variables."
        )
    assigned = sorted({name for name, value in runs if _names(value) & live} & {chosen, *_names(slope)} - set(summed))
    if assigned:
        raise ActrelaxError(
            f"run_regularly sets {assigned[0]!r} of {group.name!r} from the rates, and no gradient would pass through "
            "it: write it into dr/dt as an expression of rates and summed variables, or, if it changes slowly, set it "
            "by a network_operation."
        )
    leak = _derivative(slope, chosen, group.name)
    if leak == 0:
        raise ActrelaxError(f"dr/dt of {chosen!r} must decrease with {chosen!r}: write dr/dt = (-r + f(a)) / tau.")
    return Rates(chosen, slope, _text(-leak, chosen, group.name), live)


def refuse_linked(group: Any, rates: Mapping[str, Rates]) -> None:
    """Refuse a linked variable that follows the rates of a group, by name: gradients pass through synapses alone."""
    for name in (name for name, each in group.equations.items() if "linked" in each.flags):
        if name not in group.variables:
            raise ActrelaxError(
                f"{name!r} of {group.name!r} is linked to nothing yet: set {group.name}.{name} = linked_var(...) first."
            )
        for owner, variable in _origins(group.variables, name):
            if owner in rates and variable in rates[owner].live:
                raise ActrelaxError(
                    f"{name!r} of {group.name!r} is linked to {variable!r} of {owner!r}, which follows the rates: "
                    "connect them by synapses, s_post = w * r_pre : 1 (summed)."
                )


def link_of(synapses: Any, rates: Mapping[str, Rates], several: bool) -> Link:
    """Return how synapses connect the rates of groups, by name; refuses what is no function of presynaptic rates."""
    source, target = whole(synapses.source), whole(synapses.target)
    summed, read = summed_into(synapses), f"{rates[source.name].name}_pre"
    own = _subexpressions(synapses)
    term = _written_out(str_to_sympy(next(iter(synapses.summed_updaters.values())).expression.code), own)
    ends = {f"{name}_pre" for name in rates[source.name].live}
    ends |= {spelling for name in rates[target.name].live for spelling in (name, f"{name}_post")}  # which are the same
    moving = [(name, text) for name, text in _moving(synapses).items() if not _names(text) & {*IN_SYNAPSES}]
    live = _live(ends, [*own.items(), *moving])  # what reads the adjoint learns
    weight = _derivative(term, read, synapses.name)
    wrong = sorted(_names(term) & live - {read})
    if weight == 0 or wrong:
        found = f", but reads {wrong[0]}" if wrong else ""
        raise ActrelaxError(
            f"{synapses.name!r} must sum a function of {read} and of nothing else that follows the rates into "
            f"{summed!r}{found}: write s_post = w * r_pre : 1 (summed)."
        )
    feedback = f"feedback_{synapses.name}" if several else "feedback"
    return Link(synapses, source.name, target.name, summed, _text(weight, read, synapses.name), feedback)


def gains_of(group: Any, rates: Rates, links: Iterable[Link], given: Mapping[str, str | None]) -> dict[str, str]:
    """Return the derivative of a group's activation by each summed variable; `given` has those of the caller."""
    summed = sorted({link.summed for link in links if link.target == group.name})
    return {name: given[name] or _gain(group, rates, name) for name in summed}


def _gain(group: Any, rates: Rates, summed: str) -> str:
    derivative = _derivative(rates.slope, summed, group.name)
    if derivative == 0:
        raise ActrelaxError(
            f"dr/dt of {rates.name!r} does not read {summed!r}: write dr/dt = (-r + f(a)) / tau, with {summed} in a."
        )
    return _text(derivative / str_to_sympy(rates.leak), summed, group.name)


def _moving(owner: Any) -> dict[str, Any]:
    """Return the right-hand sides of the differential equations of a group or of synapses."""
    equations = owner.equations.items()
    return {name: str_to_sympy(each.expr.code) for name, each in equations if each.type == DIFFERENTIAL_EQUATION}


def _subexpressions(owner: Any) -> dict[str, Any]:
    """Return the subexpressions of a group or of synapses, those that are constant over dt included."""
    codes = {name: each.expr.code for name, each in owner.equations.items() if each.type == SUBEXPRESSION}
    updater = owner.subexpression_updater  # what Brian2 makes of those that are constant over dt: "name = code" lines
    if updater is not None:
        codes |= dict(line.split(" = ", 1) for line in updater.abstract_code.splitlines())
    return {name: str_to_sympy(code) for name, code in codes.items()}


def _run_regularly(group: Any) -> list[tuple[str, Any]]:
    """Return the variables that a group's statements set by its clock, each with what it is computed from."""
    runners = [each for each in group.contained_objects if type(each) is CodeRunner]  # no updaters, thresholds, resets
    lines = [line for each in runners for line in each.abstract_code.splitlines() if line.split("#")[0].strip()]
    return [(name, str_to_sympy(value)) for name, _, value, _ in map(parse_statement, lines)]


def _origins(variables: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield the group and the name of each stored variable that a variable is, or is computed from."""
    variable = variables[name]
    if isinstance(variable, Subexpression):
        for each in variable.identifiers & set(variables):
            yield from _origins(variables, each)
    elif variable.owner is not None:
        yield variable.owner.name, variable.name


def _written_out(expression: Any, parts: Mapping[str, Any]) -> Any:
    """Return an expression with the parts that it names in their places; Brian2 refuses circular ones."""
    while True:
        found = {symbol: parts[symbol.name] for symbol in expression.free_symbols if symbol.name in parts}
        if not found:
            return expression
        expression = expression.subs(found, simultaneous=True)


def _live(sources: set[str], equations: Collection[tuple[str, Any]]) -> frozenset[str]:
    """Return the sources, and the names of all equations that depend on them."""
    found = set(sources)
    while True:
        more = {name for name, expression in equations if _names(expression) & found} - found
        if not more:
            return frozenset(found)
        found |= more


def _names(expression: Any) -> set[str]:
    return {symbol.name for symbol in expression.free_symbols}


def _derivative(expression: Any, name: str, where: str) -> Any:
    symbol = next((s for s in expression.free_symbols if s.name == name), None)
    if symbol is None:
        return sympy.Integer(0)
    try:
        found = sympy.diff(expression, symbol)
    except AttributeError:  # of conditions
        found = None
    if found is None or found.has(sympy.Derivative, sympy.Subs, sympy.DiracDelta):
        raise ActrelaxError(
            f"{where!r} applies a function to {name!r} that can't be differentiated: give f'(a) by gain='...'."
        )
    return found


def _text(expression: Any, name: str, where: str) -> str:
    """Return an expression in Brian2's language, simplified if the simpler one can be written in it."""
    simpler = sympy.simplify(expression)
    return str(sympy_to_str(expression if simpler.has(sympy.Piecewise) else simpler))
