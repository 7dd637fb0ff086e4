"""Brian2 objects of a learning network."""

import brian2 as b2
from networks import mlp_case

from actrelax.models.assumptions import PRESETS
from actrelax.models.learning.brian2.equations import HOLD_ORDER
from actrelax.models.learning.brian2.objects import assemble


def test_sums_that_depend_on_each_other_have_an_order():
    """Drives, then what is held, softmax of the held rates and feedback, whatever the names of the objects."""
    simulation = assemble(mlp_case().network, PRESETS["unfrozen"], "cross-entropy", eta=0.2)
    synapses = [thing for thing in simulation.network.objects if isinstance(thing, b2.Synapses)]
    orders = {
        variable.rsplit("_", 2)[-2]: updater.order
        for thing in synapses
        for variable, updater in thing.summed_updaters.items()
    }
    assert orders["drive"] < HOLD_ORDER < orders["normaliser"] < orders["feedback"] < 0
    (thresholder,) = {simulation.groups[name].thresholder["hold"].order for name in ("hidden1", "output")}
    assert thresholder < HOLD_ORDER


def test_monitors_are_silent_until_asked():
    simulation = assemble(mlp_case().network, PRESETS["ar"], "half-sum-of-squares", eta=0.2)
    assert list(simulation.monitors) == ["hidden1", "hidden2", "hidden3", "output"]
    assert not any(monitor.active for monitor in simulation.monitors.values())
    assert (simulation.dt, simulation.step) == (0.2 * b2.ms, 0)
