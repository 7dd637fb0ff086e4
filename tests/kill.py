"""Kill a training run with SIGKILL at ten random moments: each must end as if nothing had happened.

    python tests/kill.py            (or make kill; about five minutes)

A run of `actrelax train` on the bundled digits is killed, continued with --resume, killed again and continued to its
end; its weights, optimiser, random state and metrics.csv are compared, bit for bit, with a run that was left alone.
Exit status 1 if one differs.
"""

from __future__ import annotations

import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from actrelax.analysis.runs import RunFolder

KILLS = 10
PROGRAM = [sys.executable, "-m", "actrelax.simulations.train", "--quiet"]
OPTIONS = shlex.split(
    "--network digits-cnn --assumptions learned-feedback --steps 10 --epochs 40 --augment --momentum 0.9 "
    "--schedule cosine --warmup 1 --measure-alignment 7 --validation 100 --checkpoint-every 10 --threads 1"
)


def run_to_the_end(folder: Path) -> None:
    """Resume as often as it takes; a run that was killed before it began is begun."""
    begun = (folder / "config.json").exists()
    options = ["--resume", str(folder)] if begun else [*OPTIONS, "--out", str(folder)]
    subprocess.run([*PROGRAM, *options], check=True, stdout=subprocess.DEVNULL)


def kill_after(seconds: float, options: list[str]) -> None:
    """Run, and kill it then."""
    process = subprocess.Popen([*PROGRAM, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(seconds)
    process.kill()
    process.communicate()


def differing(a: object, b: object, where: str) -> list[str]:
    """Name the parts of two checkpoints that are not the same, to the last bit."""
    if isinstance(a, dict) and isinstance(b, dict) and list(a) == list(b):
        return [found for key in a for found in differing(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [found for i, pair in enumerate(zip(a, b, strict=True)) for found in differing(*pair, f"{where}.{i}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    return [] if a == b or (a != a and b != b) else [where]


def complaints(folder: Path, whole: Path) -> list[str]:
    """Return what differs between two runs of one configuration, but for the time they took."""
    states = []
    for path in (folder, whole):
        state = RunFolder(path).checkpoint()
        assert state is not None
        del state["tables"]["timing"]
        states.append(state)
    found = differing(*states, "checkpoint")
    for name in ("metrics.csv", "alignment.csv"):
        if (folder / name).read_bytes() != (whole / name).read_bytes():
            found.append(name)
    return found


def main() -> int:
    """Kill ten runs; returns the exit status."""
    moments = random.Random(20260101)
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        start = time.perf_counter()
        run_to_the_end(whole)
        seconds = time.perf_counter() - start
        for number in range(1, KILLS + 1):
            folder = Path(place) / f"run{number}"
            first, second = moments.uniform(0, seconds), moments.uniform(0, seconds / 2)
            kill_after(first, [*OPTIONS, "--out", str(folder)])
            if (folder / "config.json").exists():
                kill_after(second, ["--resume", str(folder)])
            state = RunFolder(folder).checkpoint() if folder.exists() else None
            at = "before it began"
            if state is not None:
                at = f"at batch {state['position']['batch']} of epoch {state['position']['epoch'] + 1}"
            run_to_the_end(folder)
            found = complaints(folder, whole)
            failed += bool(found)
            print(f"killed after {first:.1f} and {second:.1f} s, {at}: {', '.join(found) or 'the same'}", flush=True)
            shutil.rmtree(folder)
    print(f"{KILLS - failed} of {KILLS} killed runs ended as the one of {seconds:.0f} s that was left alone")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
