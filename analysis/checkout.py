"""Commit of the checkout that this program runs from."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

FILE = Path(__file__).resolve()  # in the checkout, even if an editable installation links to it
CODE = ("analysis", "models", "simulations", "src")
HEAD = "# branch.oid "
SECONDS = 2.0
"""Time limit for git, in seconds."""


@cache
def commit() -> str:
    """Return the first 12 digits of the commit, followed by "-modified" if the code differs from it.

    Return "" for an installed wheel, and if git does not answer. Git is asked once per process, because the process
    keeps the code that it loaded.
    """
    if not _git("ls-files", "--error-unmatch", "--", str(FILE)):
        return ""
    lines = _git("status", "--porcelain=v2", "--branch", "--untracked-files=no", "--", *CODE).splitlines()
    digits = "".join(line.removeprefix(HEAD)[:12] for line in lines if line.startswith(HEAD))
    if not digits.isalnum():  # "(initial)" before the first commit
        return ""
    is_modified = any(not line.startswith("#") for line in lines)
    return f"{digits}-modified" if is_modified else digits


def _git(*words: str) -> str:
    """Return git's output, or "" if git fails, is missing or takes too long."""
    # inside a hook these name another checkout
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(FILE.parents[1]), *words]
    try:
        asked = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.decode(errors="replace")
