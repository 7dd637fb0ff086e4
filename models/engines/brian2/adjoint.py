"""The adjoint of a rate model written in Brian2: units whose rest state is the gradient of a loss (docs/theory.md)."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import brian2 as b2
import sympy
from brian2.parsing.sympytools import str_to_sympy, sympy_to_str
from brian2.utils.stringtools import get_identifiers

from actrelax.models.engines.brian2.codegen import require_runtime
from actrelax.models.engines.brian2.unused import forgotten_on_error
from actrelax.models.errors import ActrelaxError

OWN = ("gradient", "feedback", "error", "gain")
"""Variables of the adjoint group."""
BASE_UNITS = ("metre", "kilogram", "second", "amp", "kelvin", "mole", "candle")
"""In the order of Brian2's dimensions."""


class Adjoint(NamedTuple):
    """The adjoint of a rate model.

    group     NeuronGroup with the variables gradient, error and gain
    synapses  Synapses that carry gradients from each neuron to those that drive it
    """

    group: Any
    synapses: Any


class _Model(NamedTuple):
    """The user's model, with its derivatives at a state: dr/dt = F(r, s), where s sums c(r of others)."""

    rate: str
    summed: str
    leak: str
    gain: str
    weight: str


def adjoint(
    group: Any, synapses: Any, *, rate: str | None = None, error: str | None = None, gain: str | None = None
) -> Adjoint:
    """Return a group and synapses whose rest state is the gradient of a loss of a rate model's settled rates.

    For ``tau dr/dt = -r + f(a)``, with one summed variable in a, they follow ``tau dx/dt = -x + error + sum w g x``:
    activation relaxation, with the model's own weights and time constants, and the gains g = f'(a) of the moment. They
    are stable where the model is. At rest ``x = dL/dr`` and, for synapses from i to j that sum ``w * r_pre``,
    ``dL/dw = gain[j] * gradient[j] * r[i]``. In other equations of r and the summed variable the leak -d(dr/dt)/dr
    takes the place of 1/tau.

    Parameters
    ----------
    group : brian2.NeuronGroup
        The rate model; it may have units.
    synapses : brian2.Synapses
        Connected synapses from the group to itself with one summed variable. Later changes of weights take effect.
    rate : str, optional
        Name of the rates; by default the only variable with a differential equation.
    error : str, optional
        Derivative of the loss with respect to the rates, an expression in the group's variables; by default a parameter
        ``error`` of the adjoint group, 0 until it is set.
    gain : str, optional
        f'(a) in the group's variables, for functions that Brian2 can't differentiate, such as ``int(a > 0)``.

    Returns
    -------
    Adjoint
        Unpack it, or add both objects to the `brian2.Network` of the model.

    Raises
    ------
    ActrelaxError
        For several summed or differential variables, unconnected synapses, a function that can't be differentiated, or
        names that the adjoint needs.

    Examples
    --------
    >>> import brian2 as b2
    >>> b2.prefs.codegen.target = "numpy"
    >>> tau = 10 * b2.ms
    >>> rates = b2.NeuronGroup(2, "dr/dt = (-r + tanh(s + I)) / tau : 1\\ns : 1\\nI : 1", method="euler")
    >>> recurrent = b2.Synapses(rates, rates, "w : 1\\ns_post = w * r_pre : 1 (summed)")
    >>> recurrent.connect(i=0, j=1)
    >>> recurrent.w = 0.5
    >>> back, returning = adjoint(rates, recurrent)
    >>> back.error = [0, 1]
    >>> b2.Network(rates, recurrent, back, returning).run(300 * b2.ms)
    >>> print(back.gradient[:].round(6))
    [0.5 1. ]
    """
    require_runtime()
    _check(group, synapses)
    return _made(group, synapses, _model(group, synapses, rate, gain), error)


@forgotten_on_error()
def _made(group: Any, synapses: Any, model: _Model, error: str | None) -> Adjoint:
    """Return the group and synapses of the adjoint."""
    error_text = "error : 1" if error is None else f"error = {error} : 1"
    text = f"""
    dgradient/dt = (error + feedback - gradient) * ({model.leak}) : 1
    gain = {model.gain} : {_unit(group, model)}
    feedback : 1
    {error_text}
    """
    back = b2.NeuronGroup(
        group.N,
        text,
        method="euler",
        clock=group.clock,
        namespace=group.namespace or None,
        name=f"{group.name}_adjoint",
    )
    words = get_identifiers(model.weight)
    ends = {word for word in words if re.search("_(pre|post)$", word)}
    read = {re.sub("_(pre|post)$", "", word) for word in ends}
    # before the synapses, which find the variables of both ends when they are made
    _refer(back, group, get_identifiers(f"{model.leak} {model.gain} {error or ''}") | read)
    returning = b2.Synapses(
        back,
        back,
        f"feedback_post = ({_swapped(model.weight)}) * gain_pre * gradient_pre : 1 (summed)",
        clock=group.clock,
        namespace=synapses.namespace or None,
        name=f"{synapses.name}_adjoint",
    )
    returning.connect(i=synapses.j[:], j=synapses.i[:])
    _refer(returning, synapses, words - ends)
    return Adjoint(back, returning)


def _check(group: Any, synapses: Any) -> None:
    if not isinstance(group, b2.NeuronGroup) or not isinstance(synapses, b2.Synapses):
        raise ActrelaxError(
            f"adjoint takes a NeuronGroup and its Synapses, got {type(group).__name__} and {type(synapses).__name__}."
        )
    if synapses.source is not group or synapses.target is not group:
        raise ActrelaxError(f"synapses must connect {group.name!r} to itself: put all populations into one group.")
    if len(synapses) == 0:
        raise ActrelaxError(f"{synapses.name!r} has no synapses yet: call its connect method first.")
    taken = [name for name in OWN if name in group.variables]
    if taken:
        raise ActrelaxError(f"the adjoint has a variable {taken[0]!r}, and so has {group.name!r}: rename yours.")


def _model(group: Any, synapses: Any, rate: str | None, gain: str | None) -> _Model:
    """Differentiate the model's equations."""
    moving = {name: expression.code for name, expression in group.equations.get_substituted_expressions()}
    if rate is None and len(moving) != 1:
        raise ActrelaxError(f"{group.name!r} has {len(moving)} differential equations: name the rates, rate='r'.")
    chosen = next(iter(moving)) if rate is None else rate
    if chosen not in moving:
        raise ActrelaxError(
            f"{group.name!r} has no differential equation of {chosen!r}; known: {', '.join(sorted(moving))}."
        )
    updaters = list(synapses.summed_updaters.values())
    if len(updaters) != 1 or not updaters[0].target_varname.endswith("_post"):
        raise ActrelaxError(f"{synapses.name!r} must have one summed variable, of its postsynaptic neurons.")
    summed = updaters[0].target_varname.removesuffix("_post")
    slope = str_to_sympy(moving[chosen])
    slope = slope.subs({symbol: 0 for symbol in slope.free_symbols if re.fullmatch("xi(_.*)?", symbol.name)})
    leak = -_derivative(slope, chosen, group.name)
    weight = _derivative(str_to_sympy(updaters[0].expression.code), f"{chosen}_pre", synapses.name)
    if leak == 0 or weight == 0:
        what = f"dr/dt of {chosen!r} must decrease" if leak == 0 else f"{summed!r} must sum a function of {chosen}_pre"
        raise ActrelaxError(f"{what}: write dr/dt = (-r + f(a)) / tau, and s_post = w * r_pre : 1 (summed).")
    found = gain or sympy_to_str(sympy.simplify(_derivative(slope, summed, group.name) / leak))
    return _Model(chosen, summed, sympy_to_str(sympy.simplify(leak)), found, sympy_to_str(weight))


def _derivative(expression: Any, name: str, where: str) -> Any:
    symbol = next((s for s in expression.free_symbols if s.name == name), None)
    if symbol is None:
        return sympy.Integer(0)
    try:
        found = sympy.diff(expression, symbol)
    except AttributeError:  # of conditions
        found = None
    if found is None or found.has(sympy.Derivative, sympy.Subs):
        raise ActrelaxError(
            f"{where!r} applies a function to {name!r} that can't be differentiated: give f'(a) by gain='...'."
        )
    return found


def _swapped(weight: str) -> str:
    """Exchange the ends of synapses: they carry gradients backwards."""
    return re.sub(r"(\w+)_(pre|post)\b", lambda m: f"{m[1]}_{'post' if m[2] == 'pre' else 'pre'}", weight)


def _unit(group: Any, model: _Model) -> str:
    """Return the unit of the gain, of rates over that of the sum, in SI units."""
    dimensions = group.variables[model.rate].dim / group.variables[model.summed].dim
    factors = [f"{unit}**{power}" for unit, power in zip(BASE_UNITS, dimensions._dims, strict=True) if power]
    return " * ".join(factors) or "1"


def _refer(to: Any, source: Any, names: set[str]) -> None:
    """Let an object read variables of the model under their own names."""
    for name in sorted(names):
        if name in source.variables and name not in to.variables:
            index = "_idx" if isinstance(source, b2.Synapses) and not source.variables[name].scalar else None
            to.variables.add_reference(name, source, name, index=index)
