"""The `actrelax` command: one subcommand per simulation, loaded when it is called."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from actrelax.models._names import known
from actrelax.models.errors import ActrelaxError, lacks_memory
from actrelax.models.results import DivergenceError
from actrelax.simulations.output import speaking
from actrelax.simulations.training.signals import AbandonedError, Stopped

SIMULATIONS = {
    "demo": "train a small CNN on the bundled digits by AR and by backprop; figures; half a minute",
    "relax": "relax one network by any engine and integrator; the trajectory as a NetCDF file, and a figure",
    "check": "solve one relaxation in every way there is; exit status 1 if any disagrees",
    "train": "train any network on any images by AR or backprop; the papers' protocols; resumes bit for bit",
    "evaluate": "test a trained run's network on any data set",
    "reproduce": "the papers' experiments over many seeds: tables with tests, figures; goes on where it stopped",
    "sweep": "the learning rate that suits each condition of such an experiment; the sensitivity curve",
    "analyze": "compare training runs, or show what a suite found: figures, tables, an HTML report",
    "bench": "what a step of training costs by backprop, by AR at once and step by step; time and memory",
    "plasticity": "learn the digits inside Brian2, synapses and all, one stimulus after another; a minute and a half",
}
"""Name of a module in this folder -> what it does.

The module has a `Config` and a `main(config)`, which may return an exit status; where defaults depend on other
options, `defaults(arguments)`, or `CONFIGS`: first argument -> (what it is, its defaults).
"""

DONE, FAILED, BAD_INPUT, SIGNALLED = 0, 1, 2, 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulation that the first argument names; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in SIMULATIONS:
        return run(given[0], given[1:])
    return speaking(lambda: _usage(given))


def _usage(arguments: Sequence[str]) -> int:
    width = max(map(len, SIMULATIONS))
    print("usage: actrelax SIMULATION [options]      (actrelax SIMULATION --help lists them)\n")
    print("\n".join(f"  {name:{width}}  {what}" for name, what in SIMULATIONS.items()))
    if not arguments or arguments[0] in ("-h", "--help"):
        return DONE
    print(f"\nunknown simulation {arguments[0]!r}; known: {', '.join(SIMULATIONS)}.", file=sys.stderr)
    return BAD_INPUT


def run(name: str, arguments: Sequence[str]) -> int:
    """Run one simulation with its options, perhaps as one of several processes that torchrun has started."""
    return speaking(lambda: _run_as_process(name, arguments))


def _run_as_process(name: str, arguments: Sequence[str]) -> int:
    if "matplotlib" not in sys.modules:  # figures are files: a notebook's backend is not needed, and may be missing
        os.environ["MPLBACKEND"] = "agg"
    if logging.lastResort is not None:  # writes the bare sentence to standard error
        logging.getLogger("actrelax").addHandler(logging.lastResort)
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return _run(name, arguments)
    from actrelax.simulations.training.processes import joined

    try:
        return joined(lambda: _run(name, arguments))
    except AbandonedError as abandoned:
        print(f"actrelax {name}: {abandoned}", file=sys.stderr)
        return FAILED


def _run(name: str, arguments: Sequence[str]) -> int:
    """Errors become one sentence and an exit status."""
    try:
        # here, with all that the program needs, so that Ctrl-C is met from the first second
        module = importlib.import_module(f"actrelax.simulations.{name}")
        config = _parsed(module, name, arguments)
        status = module.main(config)
    except Stopped as stopped:
        print(f"actrelax {name}: {stopped}", file=sys.stderr)
        return SIGNALLED + stopped.signal_number
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return SIGNALLED + signal.SIGINT
    except ActrelaxError as error:
        print(f"actrelax {name}: {error}", file=sys.stderr)
        return FAILED if isinstance(error, DivergenceError) else BAD_INPUT
    except (MemoryError, RuntimeError, TypeError, ValueError) as error:
        if not lacks_memory(error):
            raise
        print(f"actrelax {name}: not enough memory: choose a smaller network, batch or delay.", file=sys.stderr)
        return FAILED
    return DONE if status is None else int(status)


def _parsed(module: ModuleType, name: str, arguments: Sequence[str]) -> Any:
    """Return the module's `Config`."""
    import tyro

    how: dict[str, Any] = {"prog": f"actrelax {name}", "description": module.__doc__}
    how["config"] = (tyro.conf.OmitArgPrefixes,)  # options are named alike, in whichever group they stand
    if hasattr(module, "CONFIGS"):
        words = list(arguments) or ["list" if "list" in module.CONFIGS else "--help"]
        if words[0] not in ("-h", "--help"):
            if words[0].startswith("-"):
                raise ActrelaxError(f"name the suite first: actrelax {name} SUITE {words[0]} ...")
            known("suite", words[0], module.CONFIGS)
        return tyro.extras.overridable_config_cli(module.CONFIGS, args=words, **how)
    if hasattr(module, "defaults"):
        how["default"] = module.defaults(arguments)
    return tyro.cli(module.Config, args=arguments, **how)


if __name__ == "__main__":
    raise SystemExit(main())
