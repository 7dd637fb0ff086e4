"""The `actrelax` command: one subcommand per simulation, loaded when it is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import tyro

from actrelax.models.errors import ActrelaxError, DivergenceError

SIMULATIONS = {"demo": "train a small CNN on the bundled digits by AR and by backprop; figures; two minutes"}
"""Name of a module in this folder, with a `Config` and a `main(config)` -> what it does."""

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulation that the first argument names; returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in SIMULATIONS:
        return run(arguments[0], arguments[1:])
    width = max(map(len, SIMULATIONS))
    print("usage: actrelax SIMULATION [options]      (actrelax SIMULATION --help lists them)\n")
    print("\n".join(f"  {name:{width}}  {what}" for name, what in SIMULATIONS.items()))
    if not arguments or arguments[0] in ("-h", "--help"):
        return DONE
    print(f"\nunknown simulation {arguments[0]!r}; known: {', '.join(SIMULATIONS)}.", file=sys.stderr)
    return BAD_INPUT


def run(name: str, arguments: Sequence[str]) -> int:
    """Run one simulation with its options; errors become one sentence and an exit status."""
    module = importlib.import_module(f"actrelax.simulations.{name}")
    config = tyro.cli(module.Config, prog=f"actrelax {name}", description=module.__doc__, args=arguments)
    try:
        module.main(config)
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return INTERRUPTED
    except ActrelaxError as error:
        print(f"actrelax {name}: {error}", file=sys.stderr)
        return FAILED if isinstance(error, DivergenceError) else BAD_INPUT
    return DONE


if __name__ == "__main__":
    raise SystemExit(main())
