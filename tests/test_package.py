"""What importing the package costs, and that its public names are there."""

import subprocess
import sys

import pytest

import actrelax


@pytest.mark.parametrize("module", ["actrelax", "actrelax.models", "actrelax.models.learning"])
def test_importing_loads_neither_brian2_nor_matplotlib(module):
    code = f"import {module}, sys; print([m for m in ('brian2', 'matplotlib', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_public_names():
    for name in actrelax._MODULE_OF:
        assert getattr(actrelax, name).__name__ == name
        assert name in dir(actrelax)
    with pytest.raises(AttributeError, match="module 'actrelax' has no attribute 'Netwrok'"):
        actrelax.Netwrok  # noqa: B018


def test_every_public_object_is_documented():
    import importlib
    import inspect
    import pkgutil

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
