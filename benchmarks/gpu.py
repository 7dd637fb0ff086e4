"""Short session on a GPU: checks, costs of a training step, and trainings.

    python benchmarks/gpu.py --data cifar10.npz      # make gpu DATA=cifar10.npz; at most eight minutes
    python benchmarks/gpu.py --device cpu --tiny     # the same program without a GPU; two minutes

It runs from a checkout without installation, and needs Python, PyTorch, NumPy and SciPy. Checks, costs and trainings
are separate processes with time limits. Every result, including failures and omissions, is written at once into a JSON
file and a Markdown table.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent
CHECKOUT = BENCHMARKS.parent
PARTS = {"checks": 90.0, "costs": 180.0, "trainings": 180.0}
"""Time limit of each part, in seconds."""
EACH = {"checks": 45.0, "costs": 75.0, "trainings": 60.0}
"""Time limit of one item, in seconds."""
LONGER = 20
"""Factor of the time limits with --long or --tiny."""

LACKING = [name for name in ("torch", "numpy", "scipy") if importlib.util.find_spec(name) is None]
if LACKING:
    sys.exit(f"this Python lacks {', '.join(LACKING)}: run benchmarks/gpu.py by one that has PyTorch, NumPy and SciPy.")

# combine the folders into one package, as an installation does
sys.path.insert(0, str(CHECKOUT / "src"))
import actrelax  # noqa: E402

actrelax.__path__.append(str(CHECKOUT))

from gpu_parts.items import Options, run  # noqa: E402
from gpu_parts.processes import results  # noqa: E402
from gpu_parts.report import Report  # noqa: E402


def main() -> int:
    """Run the session, or the part given by --only, and return the exit status."""
    asked = options()
    chosen = Options(asked.device, asked.tiny, asked.long, asked.data)
    if asked.only:
        part = importlib.import_module(f"gpu_parts.{asked.only}")
        run(part.items(chosen)[asked.skip :], asked.seconds)
        return 0
    missing = unusable(chosen)
    if missing:
        print(missing, file=sys.stderr)
        return 2
    report = Report(asked.out, chosen, CHECKOUT)
    longer = LONGER if asked.long or asked.tiny else 1
    for part in asked.parts:
        command = [sys.executable, __file__, "--only", part, *as_arguments(chosen)]
        for result in results(command, PARTS[part] * longer, EACH[part] * longer, asked.out / "log.txt"):
            report.add(part, result)
    print(f"\n{report.as_markdown()}")
    return 1 if report.failed else 0


def unusable(chosen: Options) -> str:
    """Return why the session can't run, in one sentence, or ""."""
    import torch

    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        return "PyTorch finds no GPU on this machine: use another machine, or give --device cpu --tiny."
    if chosen.data is not None and not chosen.data.is_file():
        return f"{chosen.data} does not exist: give --data a .npz file of CIFAR-10, or leave it out."
    return ""


def as_arguments(chosen: Options) -> list[str]:
    """Return the options as words of a command line."""
    flags = [f"--{name}" for name in ("tiny", "long") if getattr(chosen, name)]
    return ["--device", chosen.device, *flags, *(["--data", str(chosen.data)] if chosen.data else [])]


def options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="CIFAR-10 as a .npz file; without it trainings are left out")
    parser.add_argument("--device", default="cuda", help="device of all computations (default: cuda)")
    parser.add_argument("--tiny", action="store_true", help="use the smallest networks, to test the program")
    parser.add_argument("--long", action="store_true", help="add all rules and batches of 2048, with 20 times the time")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (default: all)")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of results (default: runs/gpu)")
    # options of the processes that it starts
    parser.add_argument("--only", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--skip", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
