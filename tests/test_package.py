"""What importing the package costs, and that its public names are there."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import actrelax


@pytest.mark.parametrize("module", ["", ".models", ".models.results", ".models.learning"])
def test_importing_loads_no_optional_package(module):
    heavy = {"brian2", "matplotlib", "sklearn", "xarray", "zarr"}
    code = f"import actrelax{module}, sys; print(sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_public_names():
    for name in actrelax._MODULE_OF:
        assert getattr(actrelax, name).__name__ == name
        assert name in dir(actrelax)
    with pytest.raises(AttributeError, match="module 'actrelax' has no attribute 'Netwrok'"):
        actrelax.Netwrok  # noqa: B018


def test_every_public_object_is_documented():
    undocumented = []
    for info in pkgutil.walk_packages(actrelax.__path__, "actrelax."):
        module = importlib.import_module(info.name)
        if not module.__doc__:
            undocumented.append(info.name)
        for name, thing in vars(module).items():
            is_ours = getattr(thing, "__module__", None) == info.name and not name.startswith("_")
            if is_ours and (inspect.isclass(thing) or inspect.isfunction(thing)) and not inspect.getdoc(thing):
                undocumented.append(f"{info.name}.{name}")
    assert undocumented == []


ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "models": {"models"},
    "analysis": {"models", "analysis"},
    "simulations": {"models", "analysis", "simulations"},
}


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_go_one_way(folder):
    imported = set()
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported |= {name.split(".")[1] for name in names if name.startswith("actrelax.")}
    assert imported
    assert imported <= ALLOWED[folder]
