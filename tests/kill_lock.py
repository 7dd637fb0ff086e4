"""Two trainings in one folder: one gets the lock, and SIGKILL releases it for the next.

    python tests/kill_lock.py            (or make kill; about a minute)

Two runs with different seeds begin at once in one folder: one is refused, or both end one after the other's kill. A run
is killed at a random moment; the next command at once goes on with it and ends, bit for bit, as the run of that seed
that was not interrupted. Exit status 1 otherwise.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from outcomes import differing, outcome

ROUNDS = 6
PROGRAM = [sys.executable, "-m", "actrelax.simulations.train", "--quiet"]
OPTIONS = ["--network", "digits-mlp", "--steps", "10", "--epochs", "15", "--checkpoint-every", "3", "--threads", "1"]
HELD = "another process is writing into"


def begun(folder: Path, seed: int) -> subprocess.Popen[str]:
    """Start a run that replaces an existing one."""
    options = [*OPTIONS, "--seed", str(seed), "--overwrite", "--out", str(folder)]
    return subprocess.Popen([*PROGRAM, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def one_round(folder: Path, after: float) -> tuple[str, int | None]:
    """Start two runs at once, and kill the one that was not refused; return an error text and its seed."""
    pair = [begun(folder, seed) for seed in (0, 1)]
    while all(process.poll() is None for process in pair):
        time.sleep(0.01)
    ended = [seed for seed, process in enumerate(pair) if process.poll() is not None]
    left = pair[1 - ended[0]]
    said = pair[ended[0]].communicate()[1]
    if len(ended) == 2 or HELD not in said or pair[ended[0]].returncode != 2:
        left.kill()
        left.communicate()
        return f"neither was refused: {said}", None
    time.sleep(after)
    left.kill()
    left.communicate()
    return "", 1 - ended[0]


def main() -> int:
    """Kill the running process six times, and return the exit status."""
    moments, failed = random.Random(20260101), 0
    with tempfile.TemporaryDirectory() as place:
        alone = [Path(place) / f"alone{seed}" for seed in (0, 1)]
        start = time.perf_counter()
        for seed, folder in enumerate(alone):
            begun(folder, seed).communicate()
        seconds = (time.perf_counter() - start) / 2
        for number in range(1, ROUNDS + 1):
            folder = Path(place) / f"run{number}"
            wrong, seed = one_round(folder, moments.uniform(0, seconds / 2))
            at = "before it began"
            if seed is not None:
                if (folder / "config.json").exists():
                    at = "later"
                    assert json.loads((folder / "config.json").read_text())["experiment"]["seed"] == seed
                    done = subprocess.run(
                        [*PROGRAM, "--resume", str(folder)], check=False, capture_output=True, text=True
                    )
                    wrong = done.stderr
                else:
                    wrong = begun(folder, seed).communicate()[1]
                wrong = wrong or ", ".join(differing(outcome(folder), outcome(alone[seed])))
                wrong = wrong or ", ".join(path.name for path in folder.glob(".*"))
            failed += bool(wrong)
            print(f"seed {seed} had the folder and was killed {at}: {wrong or 'the same'}", flush=True)
    print(f"{ROUNDS - failed} of {ROUNDS} folders were one run's, and went on at once after it was killed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
