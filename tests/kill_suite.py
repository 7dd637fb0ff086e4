"""Kill a suite with SIGKILL again and again: its table must equal the table of an uninterrupted suite.

    python tests/kill_suite.py            (or make kill; about three minutes)

`actrelax reproduce smoke`, two runs at a time, is killed at random moments: with all its processes, or the parent
alone, whose workers then continue beside the next command. The final results, except for times, are compared with
the results of an uninterrupted suite; so is each run's checkpoint, bit for bit. Exit status 1 if they differ, or if no
kill of one kind hit a suite at work.
"""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from outcomes import differing, outcome

KILLS = 6
PROGRAM = [sys.executable, "-m", "actrelax.simulations.reproduce", "smoke", "--quiet", "--jobs", "2"]
OPTIONS = ["--seeds", "2", "--epochs", "6"]
UNTIMED = ("variant", "condition", "seed", "run", "state", "test_accuracy", "train_accuracy", "reason")


def command(place: Path) -> list[str]:
    """Return the command of the suite."""
    return [*PROGRAM, *OPTIONS, "--runs", str(place / "runs"), "--out", str(place / "out")]


def kill_after(seconds: float, place: Path, *, alone: bool) -> bool:
    """Run a suite, kill it alone or with its workers, and return whether it was still running."""
    process = subprocess.Popen(
        command(place), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        if alone:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def results(place: Path) -> dict[str, object]:
    """Return the results of a suite, without times."""
    with (place / "out" / "runs.csv").open(newline="") as file:
        rows = [{name: row[name] for name in UNTIMED} for row in csv.DictReader(file)]
    table = (place / "out" / "table.json").read_text().splitlines()
    return {
        "runs": sorted(rows, key=lambda row: row["run"]),
        "curves": sorted((place / "out" / "curves.csv").read_text().splitlines()),
        "table": [line for line in table if "minutes" not in line],
        "outcomes": {folder.name: outcome(folder) for folder in sorted((place / "runs").glob("digits-*"))},
    }


def main() -> int:
    """Kill a suite six times, and return the exit status."""
    moments = random.Random(20260101)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        start = time.perf_counter()
        subprocess.run(command(whole), check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        hits = {True: 0, False: 0}
        for number in range(KILLS):
            alone, after = bool(number % 2), moments.uniform(0.25, 0.6) * seconds
            at_work = kill_after(after, killed, alone=alone)
            hits[alone] += at_work
            done = len(list((killed / "runs").glob("digits-*/summary.json")))
            how = ("alone" if alone else "with its workers") if at_work else "not at all, it had ended"
            print(f"killed after {after:.1f} s, {how}: {done} runs done", flush=True)
        subprocess.run(command(killed), check=True, stdout=subprocess.DEVNULL)
        found = differing(results(killed), results(whole))
    print(f"the suite that was killed ended {'otherwise: ' + ', '.join(found) if found else 'with the same results'}")
    if not all(hits.values()):
        print("but no kill of one of the kinds hit it at work: make it longer.")
    return 1 if found or not all(hits.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
