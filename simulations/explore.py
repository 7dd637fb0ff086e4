"""Play with a relaxation in the browser: change what it assumes and how it is computed, and see it at once.

Serves a page on this machine alone (127.0.0.1) and opens it: a network, one of the test images or your own drawing,
assumptions, integrator, step, time constants, noise, delay and start. Each population's activity is shown beside
backprop's gradient, with errors over time; two settings can stand side by side, and each is also a command line and a
Python program. In another tab a digits network learns by two rules. Needs the package bokeh.

Ctrl-C ends it. The last line on screen is the page's address:

    open http://127.0.0.1:34567/, and end with Ctrl-C
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

from actrelax.analysis.view.charts import require_bokeh
from actrelax.models._names import known
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.explorer.compute import relaxed
from actrelax.simulations.explorer.serve import free_port, serve
from actrelax.simulations.explorer.setting import SHOWN, Setting
from actrelax.simulations.training.experiment import Model
from actrelax.simulations.training.options import require


@dataclass(frozen=True)
class Config:
    """Options of the explorer."""

    network: str | None = None
    """The network to begin with, digits-cnn unless given; others can be chosen on the page."""
    run: Path | None = None
    """Explore the network of a run of `actrelax train`, on its images."""
    trust: bool = False
    """With --run: run the Python file that the run names."""
    accept_changes: bool = False
    """With --run: go on although files, images or weights changed since the run was trained."""
    port: int | None = None
    """Port of the page; any that is free unless given."""
    browser: bool = True
    """Open the page in the browser."""


def main(config: Config) -> None:
    """Serve the page until Ctrl-C."""
    require_bokeh("actrelax explore")
    require(port=(config.port, 1, 65535))
    start = beginning(config)
    relaxed(start)  # or say why not, before a browser opens
    port = free_port(config.port)
    print(f"exploring {start.problem.run or start.problem.model.network}", flush=True)
    pages: WeakSet[Any] = WeakSet()
    try:
        serve(partial(_document, start, pages), port, browser=config.browser, said=_say)
    finally:
        for page in pages:
            page.end()
    print("\nended.")


def beginning(config: Config) -> Setting:
    """Return the setting to begin with.

    Raises
    ------
    ActrelaxError
        For an unknown network, or a run that can't be loaded.
    """
    if config.run is not None:
        if config.network is not None:
            raise ActrelaxError("--run has a network of its own: leave --network out, or leave --run out.")
        return Setting.of_run(config.run, trust=config.trust, accept_changes=config.accept_changes)
    if config.trust or config.accept_changes:
        raise ActrelaxError("--trust and --accept-changes are for the network of a run: leave them out.")
    usual = Setting()
    if config.network is None:
        return usual
    return replace(usual, problem=replace(usual.problem, model=Model(known("network", config.network, SHOWN))))


def _say(address: str) -> None:
    print(f"open {address}, and end with Ctrl-C", flush=True)


def _document(start: Setting, pages: WeakSet[Any], document: Any) -> None:
    from actrelax.simulations.explorer.app import App

    pages.add(App(document, start))


if __name__ == "__main__":
    from actrelax.simulations.cli import run as run_simulation

    raise SystemExit(run_simulation("explore", sys.argv[1:]))
