"""Fill the disk under recordings, and fail each write: files must keep whole points, or an error must say why not.

    python tests/kill_recording.py            (or make kill; a minute)

A recording is written, as NetCDF and as Zarr, onto a small tmpfs that is filled to more than 80 levels before; and
under `strace`, which fails the system calls on its files one after another. Where a machine allows neither, a sentence
says so. Exit status 1 if a file opens with wrong points, or anything but our error is raised.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from networks import mlp_case

from actrelax.models import _files
from actrelax.models.engines import solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import Record, Trajectory, open_trajectory

SIZE, LEVELS = 400, 42
"""Size of the tmpfs in KiB, and number of fill levels per kind of file."""
SUFFIXES = ("nc", "zarr")
CALLS = ("openat", "write", "fsync", "rename")
"""System calls that fail, one after another."""


def relaxed(path: Path | None = None) -> Trajectory:
    """Relax, and record all states."""
    case = mlp_case()
    problem = RelaxationProblem.from_batch(case.network, case.x, case.y)
    return solve(problem, "euler", 150, eta=0.1, record=Record(path=path))


def written(path: Path) -> str:
    """Write a recording, and return the outcome."""
    try:
        relaxed(path)
    except ActrelaxError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"WRONG: {type(error).__name__}: {error}"
    return "written"


def judged(path: Path, how: str, expected: Trajectory) -> str:
    """Return the outcome and the number of points, beginning with WRONG if a rule was broken."""
    if not path.exists():
        return f"WRONG: {how}, and nothing there" if how == "written" else how
    try:
        dataset = open_trajectory(path).load()
    except Exception as error:
        return f"WRONG: {how}, but {error}"
    points = dataset.sizes["time"]
    same = all(
        torch.equal(torch.from_numpy(dataset[name].values), x[:points].flatten(2))
        for name, x in expected.recorded.items()
    )
    whole = points == len(expected.times) or how != "written"
    return f"{how}, {points} points" if same and whole else f"WRONG: {how}, {points} points, the same: {same}"


def fill(place: Path) -> int:
    """Write to a disk at all fill levels, and return the number of broken rules."""
    expected, broken = relaxed(), 0
    for suffix in SUFFIXES:
        kinds: dict[str, int] = {}
        for level in range(LEVELS):
            (place / "filler").write_bytes(bytes(level * SIZE * 1024 // LEVELS))
            path = place / f"x.{suffix}"
            how = judged(path, written(path), expected)
            broken += how.startswith("WRONG")
            kind = how if how.startswith("WRONG") else how.split(",")[0].split(":")[0]
            kinds[kind] = kinds.get(kind, 0) + 1
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
        print(f"{suffix}, full to {LEVELS} levels: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}", flush=True)
    return broken


def on_tmpfs() -> int:
    """Run `fill` on a small tmpfs, and return the exit status."""
    with tempfile.TemporaryDirectory() as place:
        mount = f"mount -t tmpfs -o size={SIZE}k none {place}"
        if (
            shutil.which("unshare") is None
            or subprocess.run(["unshare", "-rm", "sh", "-c", mount], check=False).returncode
        ):
            print("skipped: this machine lets nobody mount a small tmpfs.")
            return 0
        command = f"{mount} && exec {sys.executable} {__file__} --fill {place}"
        return subprocess.run(["unshare", "-rm", "sh", "-c", command], check=False).returncode


def under_strace() -> int:
    """Fail one kind of system call after another, and return the exit status."""
    if (
        shutil.which("strace") is None
        or subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, stderr=subprocess.DEVNULL).returncode
    ):
        print("skipped: this machine has no strace, or lets it trace nothing.")
        return 0
    broken, expected = 0, relaxed()
    with tempfile.TemporaryDirectory() as folder:
        for call in CALLS:
            path = Path(folder) / f"{call}.nc"
            trace = ["strace", "-f", "-o", "/dev/null", "-P", path, "-P", f"{path}.partial", "-e", f"trace={call}"]
            inject = ["-e", f"inject={call}:error=ENOSPC:when=1"]
            done = subprocess.run(
                [*trace, *inject, sys.executable, __file__, "--once", path], capture_output=True, text=True, check=False
            )
            said = done.stdout.strip() or f"WRONG: status {done.returncode}: {done.stderr[-300:]}"
            how = judged(path, said, expected)
            broken += how.startswith("WRONG")
            print(f"{call} failed: {how}", flush=True)
    return 1 if broken else 0


def main(arguments: list[str]) -> int:
    """Run all parts, or one part in a separate process."""
    warnings.filterwarnings("ignore", "Object at .*")
    torch.set_default_dtype(torch.float64)
    if arguments[:1] == ["--fill"]:
        return 1 if fill(Path(arguments[1])) else 0
    if arguments[:1] == ["--once"]:
        _files.partial_of = lambda path: path.with_name(f"{path.name}.partial")  # strace needs a fixed name
        print(written(Path(arguments[1])))
        return 0
    return max(on_tmpfs(), under_strace())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
