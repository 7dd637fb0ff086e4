"""Kill a training run with SIGKILL at ten random moments; resumed runs must equal an uninterrupted one.

    python tests/kill.py            (or make kill; about five minutes)

A run of `actrelax train` on the bundled digits is killed, continued with --resume, killed again and continued to its
end; its weights, optimiser, random state and metrics.csv are compared, bit for bit, with an uninterrupted run.
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

from outcomes import differing, outcome

from actrelax.analysis.runs import RunFolder

KILLS = 10
PROGRAM = [sys.executable, "-m", "actrelax.simulations.train", "--quiet"]
OPTIONS = shlex.split(
    "--network digits-cnn --assumptions learned-feedback --steps 10 --epochs 40 --augment flip,crop --momentum 0.9 "
    "--schedule cosine --warmup 1 --measure-alignment 7 --validation 100 --checkpoint-every 10 --threads 1"
)


def run_to_the_end(folder: Path) -> None:
    """Resume a run until it ends; start it if it was killed before it began."""
    begun = (folder / "config.json").exists()
    options = ["--resume", str(folder)] if begun else [*OPTIONS, "--out", str(folder)]
    subprocess.run([*PROGRAM, *options], check=True, stdout=subprocess.DEVNULL)


def kill_after(seconds: float, options: list[str]) -> None:
    """Run a training, and kill it after some seconds."""
    process = subprocess.Popen([*PROGRAM, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(seconds)
    process.kill()
    process.communicate()


def main() -> int:
    """Kill ten runs, and return the exit status."""
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
            found = differing(outcome(folder), outcome(whole))
            failed += bool(found)
            print(f"killed after {first:.1f} and {second:.1f} s, {at}: {', '.join(found) or 'the same'}", flush=True)
            shutil.rmtree(folder)
    print(f"{KILLS - failed} of {KILLS} killed runs ended as the one of {seconds:.0f} s that was left alone")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
