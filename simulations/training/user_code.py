"""Networks in a user's Python file: their source files, and the function that builds them."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actrelax.analysis.fingerprints import of_file
from actrelax.models.errors import ActrelaxError

NAMED = "the network's file"
"""Name of the fingerprint of FILE.py, since a copy may have another file name."""

READ = (".py", ".pt", ".pth", ".safetensors", ".npy", ".npz")
"""Suffixes of files that belong to a network if its code names them in a string; other files may be outputs."""

_LOADED: set[str] = set()
"""Names of modules loaded from the folder of the last file; another file may have modules with the same names."""


def is_own(network: str) -> bool:
    """Return whether --network is a user's file."""
    return ":" in network


def split(network: str) -> tuple[Path, str]:
    """Return the absolute path of the file and the name of the function in FILE.py:FUNCTION."""
    file, _, name = network.rpartition(":")
    return Path(os.path.abspath(file)), name


def permitted(folder: Path, network: str, *, named: str | None = None, trust: bool = False) -> str:
    """Return the network of a run as FILE.py:FUNCTION or name, if loading it is permitted.

    Parameters
    ----------
    folder : Path
        Folder of the run.
    network : str
        The run's --network.
    named : str, optional
        The user's --network, a copy of the run's file.
    trust : bool, default False
        Permit the run's own file.

    Raises
    ------
    ActrelaxError
        If the user has not permitted the file, or names another function.
    """
    if not is_own(network):
        if named is not None and named != network:
            raise ActrelaxError(f"the run in {folder} has the network {network}, got {named}: leave --network out.")
        return network
    file, name = split(network)
    if named is None:
        if trust:
            return network
        raise ActrelaxError(
            f"the run in {folder} calls {name!r} of {file}, which may do anything: pass --trust (trust=True in Python) "
            "if you trust that file, or --network FILE.py:FUNCTION to name your own copy of it."
        )
    if not is_own(named) or split(named)[1] != name:
        raise ActrelaxError(f"the run in {folder} calls {name!r} of {file.name}, got {named}: give FILE.py:{name}.")
    return named


def fingerprint(network: str) -> dict[str, str]:
    """Return file -> SHA-256 of all source files of a network; {} for a network by name.

    Source files are the file itself, modules in its folder that it imports, directly or not, and modules, weights and
    arrays in its folder that one of them names in a string. No code is executed.
    """
    if not is_own(network):
        return {}
    file, _ = split(network)
    beside = {path.relative_to(file.parent).as_posix(): of_file(path) for path in _beside(file)}
    return {NAMED: of_file(file), **beside}


@contextmanager
def loaded(network: str) -> Iterator[Callable[..., Any]]:
    """Yield the function FILE.py:FUNCTION; exceptions of the user's code pass through.

    Inside the `with` block, imports find modules in the file's folder, as in `python FILE.py`, and load them again.

    Raises
    ------
    ActrelaxError
        If the file or function is missing, or a module that it imports has the name of another loaded module.
    """
    file, name = split(network)
    spec = importlib.util.spec_from_file_location(file.stem, file) if file.suffix == ".py" else None
    if spec is None or spec.loader is None or not os.path.isfile(file):
        raise ActrelaxError(
            f"{network.rpartition(':')[0]} is not a Python file: give your network as FILE.py:FUNCTION."
        )
    module = importlib.util.module_from_spec(spec)
    with _importing_beside(file):
        spec.loader.exec_module(module)
        function = getattr(module, name, None)
        if not callable(function):
            raise ActrelaxError(f"{file} has no function {name!r}: write one that takes input_shape and classes.")
        yield function


@contextmanager
def _importing_beside(file: Path) -> Iterator[None]:
    for name in _LOADED:
        sys.modules.pop(name, None)
    _LOADED.clear()
    for path in _beside(file):
        name = ".".join(path.relative_to(file.parent).with_suffix("").parts).removesuffix(".__init__")
        other = getattr(sys.modules.get(name), "__file__", None)
        if path.suffix == ".py" and other is not None and Path(other).resolve() != path.resolve():
            raise ActrelaxError(f"{file} imports {path}, but {other} is loaded as {name!r}: rename your module.")
    before = set(sys.modules)
    sys.path.insert(0, str(file.parent))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(file.parent))
        for name in set(sys.modules) - before:
            place = getattr(sys.modules[name], "__file__", None)
            if place is not None and Path(place).is_relative_to(file.parent):
                _LOADED.add(name)


def _beside(file: Path) -> list[Path]:
    """Return the files in or below a Python file's folder that it imports or names, directly or not."""
    folder, found = file.parent, dict.fromkeys([file])
    waiting = [file]
    while waiting:
        module = waiting.pop()
        for path in _named_in(module, folder):
            if path not in found and path.is_relative_to(folder):
                found[path] = None
                waiting += [path] if path.suffix == ".py" else []
    del found[file]
    return sorted(found)


def _named_in(module: Path, folder: Path) -> Iterator[Path]:
    """Yield the files that a Python file may import or open, looked up in a folder."""
    try:
        tree = ast.parse(module.read_bytes())
    except (OSError, ValueError, SyntaxError):  # it can't be executed, either
        return
    for node in ast.walk(tree):
        dotted: list[str] = []
        base = folder
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = next(iter(module.parents[node.level - 1 : node.level]), folder) if node.level else folder
            prefix = f"{node.module}." if node.module else ""
            dotted = [f"{prefix}{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 256:
            dotted = [node.value]
            yield from _if_file(folder / node.value) if node.value.endswith(READ) else ()
        for name in dotted:
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                place = base.joinpath(*parts[:end])
                yield from _if_file(place / "__init__.py")
                yield from _if_file(Path(f"{place}.py"))


def _if_file(path: Path) -> Iterator[Path]:
    path = Path(os.path.normpath(path))
    if os.path.isfile(path):  # False also for invalid paths
        yield path
