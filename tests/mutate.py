"""Apply each defect of tests/defects.py: a test marked with its name must fail.

    python tests/mutate.py          all of them (or make mutate)
    python tests/mutate.py NAME     defects whose name contains NAME

Exit status 1 if a defect survives. A failure that is not an assertion proves nothing: then the defect
itself is wrong. ``python -m pytest tests --defect NAME`` shows how the tests fail.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PRELOADED = ["hypothesis.extra.numpy", "pytest", "scipy.stats", "actrelax.models.learning"]
"""Modules imported once and shared by the processes."""


class Failures:
    """Pytest plugin that records the reasons of failures."""

    def __init__(self) -> None:
        self.exceptions: list[BaseException] = []

    def pytest_exception_interact(self, call) -> None:
        self.exceptions.append(call.excinfo.value)


def outcome(name: str) -> str:
    """Apply a defect in this process, run the tests that name it, and return the outcome."""
    import pytest

    files = [str(file) for file in sorted(TESTS.rglob("test_*.py")) if f'"{name}"' in file.read_text()]
    if not files:
        return "NO TEST NAMES IT"
    failures = Failures()
    with open(os.devnull, "w") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    pytest.main(["-x", "-p", "no:cacheprovider", "--defect", name, *files], [failures])
    if not failures.exceptions:
        return "NOT CAUGHT"
    wrong = [e for e in failures.exceptions if not isinstance(e, AssertionError | pytest.fail.Exception)]
    return f"ERROR, {wrong[0]!r}" if wrong else "caught"


def main() -> int:
    """Try the defects, two at a time, and return the exit status."""
    os.chdir(TESTS.parent)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    from defects import DEFECTS

    names = [name for name in DEFECTS if " ".join(sys.argv[1:]) in name]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with ProcessPoolExecutor(2, context, max_tasks_per_child=1) as pool:
        outcomes = list(pool.map(outcome, names))
    for name, each in zip(names, outcomes, strict=True):
        print(f"{each}: {name}")
    print(f"{outcomes.count('caught')} of {len(names)} defects caught")
    return 0 if outcomes.count("caught") == len(names) else 1


if __name__ == "__main__":
    raise SystemExit(main())
