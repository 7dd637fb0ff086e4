"""One short session on a GPU: does everything hold there, what does a step cost, how well and how fast does it train?

    python benchmarks/gpu.py --data cifar10.npz      # make gpu DATA=cifar10.npz; at most eight minutes
    python benchmarks/gpu.py --device cpu --tiny     # the same program where there is no GPU, two minutes

It runs from a checkout, without installing it, and takes Python, PyTorch, NumPy and SciPy. The parts - checks, costs,
trainings - are processes of their own with a limit on their time; results are written as they come, into a JSON file
and a table in Markdown, with what failed and what was left out.
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
"""Seconds of each part."""
EACH = {"checks": 45.0, "costs": 75.0, "trainings": 60.0}
"""Seconds of one item of it."""
LONGER = 20
"""How many times longer they may be with --long, and on a slow CPU."""

LACKING = [name for name in ("torch", "numpy", "scipy") if importlib.util.find_spec(name) is None]
if LACKING:
    sys.exit(f"this Python lacks {', '.join(LACKING)}: run benchmarks/gpu.py by one that has PyTorch, NumPy and SciPy.")

# the three folders become the package, as an installation maps them
sys.path.insert(0, str(CHECKOUT / "src"))
import actrelax  # noqa: E402

actrelax.__path__.append(str(CHECKOUT))

from gpu_parts.items import Options, run  # noqa: E402
from gpu_parts.processes import results  # noqa: E402
from gpu_parts.report import Report  # noqa: E402


def main() -> int:
    """Run the session, or the one part that a process was started for; return the exit status."""
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
    """Return why nothing can run, in a sentence, or nothing."""
    import torch

    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        return "there is no GPU that PyTorch can use here: run it where there is one, or give --device cpu --tiny."
    if chosen.data is not None and not chosen.data.is_file():
        return f"there is no file {chosen.data}: give --data a .npz of CIFAR-10, or leave it out."
    return ""


def as_arguments(chosen: Options) -> list[str]:
    """Return the options as a command line has them."""
    flags = [f"--{name}" for name in ("tiny", "long") if getattr(chosen, name)]
    return ["--device", chosen.device, *flags, *(["--data", str(chosen.data)] if chosen.data else [])]


def options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="CIFAR-10 as a .npz file; no training without it")
    parser.add_argument("--device", default="cuda", help="cuda unless given")
    parser.add_argument("--tiny", action="store_true", help="the smallest networks and numbers")
    parser.add_argument("--long", action="store_true", help="all rules, batches of 2048, and 20 times as long")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="all unless given")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of results, runs/gpu unless given")
    # of the processes that it starts
    parser.add_argument("--only", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--skip", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
