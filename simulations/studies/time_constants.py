"""Learning with heterogeneous time constants.

Time constants may differ by a factor of ten, unless a whole population is slow. Neurons, or whole populations, draw
their time constants from a log-normal distribution with a median of 1; two thirds lie within some factor of it. The
spread changes the speed of a relaxation but not its equilibrium, the gradient. Slow neurons therefore matter only if
the relaxation is short; it lasts 10 or 40 median time constants.

Left: accuracy after training. Right: angle of the lowest projection's updates to backprop's. Steps use the exponential
Euler scheme, which is stable even for neurons much faster than a step.

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

# two thirds of the time constants lie within this factor of the median
LEVELS = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
# durations of relaxations, in units of the median tau
DURATIONS = (40.0, 10.0)
DT = 0.5


def spread(factor: float) -> Mapping[str, float]:
    """Return the options for log-normal time constants with median 1 and geometric standard deviation `factor`."""
    variance = math.log(factor) ** 2
    return {"tau": math.exp(variance / 2), "tau_spread": math.sqrt(math.expm1(variance))}


def main(out: Path = OUT, levels: Sequence[float] = LEVELS, seeds: int = SEEDS, epochs: int = EPOCHS) -> pd.DataFrame:
    """Train with each spread, over neurons or populations, for two durations, and draw; see `perturbation.study`."""
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
        xlabel="spread of time constants (factor around the median)",
        scale="log",
        seeds=seeds,
        epochs=epochs,
        base=varied(BASE, {"integrator": "exponential", "dt": DT}),
    )


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
