"""How different may time constants be?

A factor of ten apart, as long as no whole population is slow. Neurons, or whole populations, have time constants of
their own, log-normal with a median of 1: two thirds of them lie within some factor of it. A spread changes when a
relaxation arrives and not where, every neuron's equilibrium being the gradient. So the slow ones count, against the
time that there is: 10 median time constants, or 40.

Left: accuracy after training. Right: the angle of the lowest projection's updates to backprop's. Steps are those of the
exponential Euler scheme, which is stable for neurons much faster than a step, too.

It takes 2 minutes.

The last line on screen:  neurons, 10 tau: a point lost at no level, worse than fixed hidden weights at no level
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from actrelax.simulations.studies.common import OUT
from actrelax.simulations.studies.perturbation import BASE, EPOCHS, SEEDS, study
from actrelax.simulations.suites.suite import varied

# two thirds of the time constants are within this factor of their median
LEVELS = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
# of relaxations, in units of the median tau
DURATIONS = (40.0, 10.0)
DT = 0.5


def spread(factor: float) -> Mapping[str, float]:
    """Return the options of log-normal time constants with a median of 1 and this factor as standard deviation."""
    variance = math.log(factor) ** 2
    return {"tau": math.exp(variance / 2), "tau_spread": math.sqrt(math.expm1(variance))}


def main(out: Path = OUT, levels: Sequence[float] = LEVELS, seeds: int = SEEDS, epochs: int = EPOCHS) -> pd.DataFrame:
    """Train with every spread, of neurons and of populations, for two durations, and draw; see `perturbation.study`."""
    series = {
        f"{which}, {duration:g} tau": {
            factor: {**spread(factor), "tau_spread_over": which, "duration": duration} for factor in levels
        }
        for which in ("populations", "neurons")
        for duration in DURATIONS
    }
    return study(
        out / "time_constants.png",
        series,
        xlabel="spread of time constants (factor around their median)",
        scale="log",
        seeds=seeds,
        epochs=epochs,
        base=varied(BASE, {"integrator": "exponential", "dt": DT}),
    )


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
