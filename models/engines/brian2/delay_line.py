"""Delays of continuous values, which Brian2's summed variables lack: lines of variables that shift in every step.

They work for all variables of all groups and with every code generation target, and are exact for whole steps.
"""

from __future__ import annotations

from typing import Any

from actrelax.models._names import whole_number


def delay_line(name: str, steps: int, unit: str = "1") -> tuple[str, str]:
    """Return the equations of a delay line, and the variable with the delayed value.

    The line has steps + 1 variables, since it is shifted before it is read: the first has the current value.

    Parameters
    ----------
    name : str
        Prefix of its variables.
    steps : int
        Delay in steps, 1 or more.
    unit : str, default "1"
        Brian2 unit of the value.

    Returns
    -------
    equations : str
        Equations to add to the group's.
    delayed : str
        Name of the variable to read.

    Raises
    ------
    ActrelaxError
        For steps that are no whole number, 1 or more.

    Examples
    --------
    >>> equations, delayed = delay_line("late", steps=2, unit="volt")
    >>> print(equations)
    late_0 : volt
    late_1 : volt
    late_2 : volt
    >>> delayed
    'late_2'
    """
    whole_number("steps", steps, least=1)
    return "\n".join(f"{name}_{k} : {unit}" for k in range(steps + 1)), f"{name}_{steps}"


def shift(
    group: Any, name: str, expression: str, steps: int, *, clock: Any = None, when: str = "start", order: int = 0
) -> Any:
    """Make a group shift a delay line in every time step.

    Before the run, set all variables of the line to the values before t = 0, for instance to the initial value.

    Parameters
    ----------
    group : brian2.NeuronGroup
        Group with the equations of `delay_line`.
    name, steps
        As for `delay_line`.
    expression : str
        Value to delay: a variable of the group, or an expression of variables.
    clock : brian2.Clock, optional
        By default the group's clock.
    when, order : str and int, default "start" and 0
        Slot and order of the shift within a step. Summed variables are computed in the slot "groups", by their order,
        before the state changes: shift after the sums in the expression and before sums that read the line.

    Returns
    -------
    brian2.CodeRunner

    Examples
    --------
    >>> import brian2 as b2
    >>> b2.prefs.codegen.target = "numpy"
    >>> equations, delayed = delay_line("late", steps=3)
    >>> group = b2.NeuronGroup(1, "dx/dt = 1/ms : 1\\n" + equations, method="euler")
    >>> _ = shift(group, "late", "x", steps=3)
    >>> b2.run(10 * b2.defaultclock.dt)
    >>> round((group.x[0] - group.late_3[0]) / 0.1)  # the line was shifted before x changed
    4
    """
    statements = [f"{name}_{k} = {name}_{k - 1}" for k in range(steps, 0, -1)]
    statements.append(f"{name}_0 = {expression}")
    return group.run_regularly("\n".join(statements), clock=clock, when=when, order=order)
