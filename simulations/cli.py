"""The `actrelax` command: one subcommand per simulation, imported when it is called."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from itertools import pairwise
from types import ModuleType
from typing import Any

from actrelax.models._names import known
from actrelax.models.errors import ActrelaxError, lacks_memory
from actrelax.models.results import DivergenceError
from actrelax.simulations.output import say_warnings, speaking
from actrelax.simulations.training.signals import AbandonedError, Stopped

SIMULATIONS = {
    "demo": "train a small CNN on the bundled digits by AR and by backprop, and draw figures; half a minute",
    "relax": "relax one network by any engine and integrator; writes the trajectory as NetCDF, and a figure",
    "explore": "play with a relaxation in the browser: image, assumptions, steps, noise, delays; two side by side",
    "check": "check that all engines and integrators agree on one relaxation; exit status 1 if any disagrees",
    "train": "train any network on any images by AR or backprop, with exact resuming and the papers' protocols",
    "evaluate": "test the network of a training run on any data set",
    "reproduce": "run the papers' experiments over many seeds: tables with tests, and figures; resumable",
    "sweep": "find the best learning rate of each condition of an experiment, and draw the sensitivity curve",
    "analyze": "compare training runs, or show the results of a suite: figures, tables, an HTML report",
    "bench": "measure time and memory of a training step: backprop, AR's closed form, and stepping",
    "plasticity": "learn the digits inside Brian2, one stimulus after another; a minute and a half",
}
"""Name of a module in this folder -> description.

The module has a `Config`, and a `main(config)` that may return an exit status. If defaults depend on other options, it
also has `defaults(arguments)`, or `CONFIGS`: first argument -> (description, defaults).
"""

DONE, FAILED, BAD_INPUT, SIGNALLED = 0, 1, 2, 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulation named by the first argument, and return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in SIMULATIONS:
        if arguments is None:  # the program itself, not a call from Python
            say_warnings(given[0])
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
    """Run one simulation, possibly as one of several processes started by torchrun, and return the exit status."""
    return speaking(lambda: _run_as_process(name, arguments))


def _run_as_process(name: str, arguments: Sequence[str]) -> int:
    if "matplotlib" not in sys.modules:  # figures are files, and a notebook's backend may be missing
        os.environ["MPLBACKEND"] = "agg"
    if logging.lastResort is not None:  # writes unformatted messages to standard error
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
    """Run a simulation, and convert errors into one sentence and an exit status."""
    try:
        _refuse_empty(arguments)
        # imported here, so that Ctrl-C is handled during the import, too
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


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse empty arguments: a path that is empty would be the current directory."""
    for before, word in pairwise(("", *arguments)):
        option = before if word == "" else word[:-1]
        if word == "" or (word.startswith("--") and word.endswith("=")):
            raise ActrelaxError(
                f"{option if option.startswith('--') else 'an argument'} is empty, as after an unset shell variable: "
                "give it a value, or leave it out."
            )


def _parsed(module: ModuleType, name: str, arguments: Sequence[str]) -> Any:
    """Return the module's `Config`, parsed from the arguments."""
    import tyro

    how: dict[str, Any] = {"prog": f"actrelax {name}", "description": module.__doc__}
    how["config"] = (tyro.conf.OmitArgPrefixes,)  # option names without the name of their group
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
