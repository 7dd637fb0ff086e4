"""Public names and their signatures agree with public_api.txt.

After an intended change, `python tests/test_public.py` rewrites the file; its diff shows the changes for users.
"""

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import actrelax

SNAPSHOT = Path(__file__).with_name("public_api.txt")


def public_api() -> Iterator[str]:
    """Yield one line per public name, and per public method and property of a class."""
    for module in (actrelax, actrelax.brian2):
        for name in sorted(module.__all__):
            yield from described(f"{module.__name__}.{name}", getattr(module, name))


def described(name: str, thing: object) -> Iterator[str]:
    """Yield the description of a public object: signature and members, keys of a table, or type of a value."""
    if inspect.isclass(thing):
        yield f"{name}{'' if issubclass(thing, Exception) else inspect.signature(thing)}"
        for member, value in sorted(members(thing).items()):
            yield from described(f"{name}.{member}", value)
    elif callable(thing):
        yield f"{name}{inspect.signature(thing)}"
    elif isinstance(thing, property) or inspect.isdatadescriptor(thing) or hasattr(thing, "func"):
        yield f"{name}  (property)"
    elif isinstance(thing, dict):
        yield f"{name} = {', '.join(thing)}"
    else:
        yield f"{name} : {type(thing).__name__}"


def members(cls: type) -> dict[str, object]:
    """Return the public members that the package defines, including members of base classes."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("actrelax.")]
    names = {name for base in ours for name in vars(base) if not name.startswith("_")}
    found = {name: inspect.getattr_static(cls, name) for name in names}
    return {
        name: getattr(cls, name) if isinstance(value, classmethod | staticmethod) else value
        for name, value in found.items()
        if callable(value) or hasattr(value, "__get__")
    }


def test_names_and_signatures_are_those_of_the_snapshot():
    assert list(public_api()) == SNAPSHOT.read_text().splitlines(), "meant? then run python tests/test_public.py"


def test_public_names_are_found():
    for name in actrelax.__all__:
        assert getattr(getattr(actrelax, name), "__name__", name) == name
        assert name in dir(actrelax)
    with pytest.raises(AttributeError, match="module 'actrelax' has no attribute 'Netwrok'"):
        actrelax.Netwrok  # noqa: B018


@pytest.mark.parametrize("line", ["import actrelax.brian2", "import actrelax; actrelax.brian2.build"])
def test_the_submodule_for_brian2_is_loaded_on_access(line):
    code = f"import actrelax, sys; assert 'brian2' not in sys.modules\n{line}\nprint(actrelax.brian2.build.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "actrelax.models.engines.brian2.build\n"


if __name__ == "__main__":
    SNAPSHOT.write_text("".join(f"{line}\n" for line in public_api()))
