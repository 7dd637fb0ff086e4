"""A network in a user's Python file: the files that it is made of, and the function that makes it."""

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
"""What the fingerprint of FILE.py is recorded under: a copy may have another name."""

READ = (".py", ".pt", ".pth", ".safetensors", ".npy", ".npz")
"""Files that belong to a network whose code has their name in a string; others, such as a log, it may write."""

_LOADED: set[str] = set()
"""Modules beside the file that was loaded last; another file may have its own of the same names."""


def is_own(network: str) -> bool:
    """Return whether --network names a file."""
    return ":" in network


def split(network: str) -> tuple[Path, str]:
    """Return the file, as an absolute path, and the function of FILE.py:FUNCTION."""
    file, _, name = network.rpartition(":")
    return Path(os.path.abspath(file)), name


def permitted(folder: Path, network: str, *, named: str | None = None, trust: bool = False) -> str:
    """Return the network of a run, as it may be loaded.

    Parameters
    ----------
    folder : Path
        Of the run.
    network : str
        Its --network.
    named : str, optional
        The --network that the user gave beside the run: a file of their own.
    trust : bool, default False
        Whether any file may be run that the run names.

    Raises
    ------
    ActrelaxError
        For a file that the user has not allowed, or another function.
    """
    if not is_own(network):
        if named is not None and named != network:
            raise ActrelaxError(f"the run in {folder} has the network {network}, not {named}: leave --network out.")
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
        raise ActrelaxError(f"the run in {folder} calls {name!r} of {file.name}, not {named}: name FILE.py:{name}.")
    return named


def fingerprint(network: str) -> dict[str, str]:
    """Return file -> SHA-256 of what a network in a file is made of; nothing for a network by name.

    That is the file itself, the modules beside it that it imports, those that they import, and modules, weights and
    arrays beside it that one of them names in a string. Nothing is run.
    """
    if not is_own(network):
        return {}
    file, _ = split(network)
    beside = {path.relative_to(file.parent).as_posix(): of_file(path) for path in _beside(file)}
    return {NAMED: of_file(file), **beside}


@contextmanager
def loaded(network: str) -> Iterator[Callable[..., Any]]:
    """Yield the function of FILE.py:FUNCTION; exceptions of the file itself pass through.

    Inside the block imports find the modules in the file's folder, as in `python FILE.py`, and load them anew.

    Raises
    ------
    ActrelaxError
        If there is no such file or function, or another module is loaded under the name of one that it imports.
    """
    file, name = split(network)
    spec = importlib.util.spec_from_file_location(file.stem, file) if file.suffix == ".py" else None
    if spec is None or spec.loader is None or not os.path.isfile(file):
        raise ActrelaxError(
            f"there is no file {network.rpartition(':')[0]}: name your own network as FILE.py:FUNCTION."
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
            raise ActrelaxError(f"{file} imports {path}, but {other} is loaded as {name!r}: give yours another name.")
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
    """Return the files in a Python file's folder, or below it, that it imports or names, directly or not."""
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
    except (OSError, ValueError, SyntaxError):  # it can't be run, either
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
    if os.path.isfile(path):  # which answers False for what can be no path at all
        yield path
