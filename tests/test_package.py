"""Costs of importing the package, documentation of all public names, and the direction of imports."""

import ast
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import actrelax

HEAVY = {"bokeh", "brian2", "matplotlib", "pandas", "sklearn", "statsmodels", "xarray", "zarr"}
LIGHT = {
    "actrelax": HEAVY,
    "actrelax.models": HEAVY,
    "actrelax.models.results": HEAVY,
    "actrelax.models.learning": HEAVY,
    "actrelax.simulations.train": {"matplotlib", "pandas", "scipy.stats"},
    "actrelax.simulations.reproduce": {"pandas"},
}
"""Module -> what it does not import."""


def test_importing_loads_no_optional_package():
    code = f"""
import importlib, sys
for module, others in {LIGHT}.items():
    importlib.import_module(module)
    print(module, sorted(others & {{*sys.modules}}))
"""
    # the command sets MPLBACKEND, also when other tests call it, and matplotlib is then loaded
    plain = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    done = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{module} []" for module in LIGHT]


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
MODELS = [
    "models.errors",
    "models._files",
    "models._names",
    "models._values",
    "models.assumptions",
    "models.network",
    "models.problem",
    "models.integrators",
    "models.results",
    "models.closed_form",
    "models.engines",
    "models.engines.brian2",
    "models.learning",
    "models.learning.brian2",
]
"""Sub-packages of models/, in the order of the paper: each may import the ones before it."""
FACES = [*MODELS, "models.network.captured"]
"""Sub-packages whose `__init__` says what other rooms may import from there."""
ALLOWED = {room: set(MODELS[: MODELS.index(room) + 1]) for room in MODELS}
ALLOWED["models.results"] -= {"models.integrators"}
ALLOWED["models.learning"] -= {"models.engines.brian2"}
ALLOWED["analysis"] = {*MODELS, "analysis"}
BELOW = {*MODELS, "analysis", "actrelax", "brian2"}
ALLOWED["simulations.data"] = {*BELOW, "simulations.data"}
ALLOWED["simulations.training"] = ALLOWED["simulations.data"] | {"simulations.training"}
ALLOWED["simulations.suites"] = ALLOWED["simulations.training"] | {"simulations.suites"}
ALLOWED["simulations.costs"] = ALLOWED["simulations.training"] | {"simulations.costs"}
ALLOWED["simulations.examples"] = ALLOWED["simulations.data"] | {"simulations.examples"}
ALLOWED["simulations.studies"] = ALLOWED["simulations.suites"] | {"simulations.examples", "simulations.studies"}
ALLOWED["simulations.explorer"] = ALLOWED["simulations.training"] | {"simulations.explorer"}
ALLOWED["simulations"] = {
    *ALLOWED["simulations.studies"],
    *ALLOWED["simulations.costs"],
    "simulations.explorer",
    "simulations",
}
LATER = {
    ("models.results.trajectory", "models.results.xarray_io"),
    ("models.network.network", "models.network.captured.network"),
    ("models.network.network", "models.network.captured.capture"),
}
"""Imports that do no harm, since they happen when a function is called, or for types alone."""
ON_REQUEST = ("models.results.trajectory", "analysis.view.page")
"""The import against the direction: `Trajectory.to_html` calls the viewer when a user asks for a page."""
INSIDES = {"models.learning.trace"}
"""Modules that analysis/ and simulations/ import directly, because they load torch's slow tracer."""


def modules() -> dict[str, Path]:
    """Return module name, without "actrelax.", -> file; a package has its own name."""
    files = [file for folder in ("models", "analysis", "simulations") for file in (ROOT / folder).rglob("*.py")]
    dotted = {file: ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files}
    return {name.removesuffix(".__init__"): file for file, name in dotted.items()}


def imports(file: Path) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of all imports, including those inside functions and for type checking."""
    for node in ast.walk(ast.parse(file.read_text())):
        found = []
        if isinstance(node, ast.ImportFrom):
            found = [(node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found = [(alias.name, "") for alias in node.names]
        yield from ((module.removeprefix("actrelax."), name) for module, name in found if is_ours(module))


def is_ours(module: str) -> bool:
    """Return whether a module belongs to the package."""
    return f"{module}.".startswith("actrelax.")


def room_of(module: str) -> str:
    """Return the sub-package or folder of a module."""
    rooms = [room for room in ALLOWED if f"{module}.".startswith(f"{room}.")]
    return max(rooms, key=len, default=module)


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_go_one_way(room):
    files = {module: file for module, file in modules().items() if room_of(module) == room}
    assert files
    imported = {
        room_of(target)
        for module, file in files.items()
        for target, _ in imports(file)
        if (module, target) != ON_REQUEST
    }
    assert imported <= ALLOWED[room]


def test_from_outside_a_room_its_public_names_come_from_its_face():
    faces = {face: importlib.import_module(f"actrelax.{face}") for face in FACES}
    past_the_face = [
        f"{module}: from actrelax.{target} import {name}"
        for module, file in modules().items()
        for target, name in imports(file)
        for face, contents in faces.items()
        if target.startswith(f"{face}.") and room_of(target) != room_of(module)
        if name in getattr(contents, "__all__", ())
    ]
    assert past_the_face == []


@pytest.mark.parametrize("folder", ["analysis", "simulations"])
def test_programs_and_analysis_see_faces_only(folder):
    insides = {
        target
        for module, file in modules().items()
        for target, _ in imports(file)
        if module.startswith(folder) and room_of(target) in MODELS and room_of(target) != target
    }
    assert insides <= INSIDES


def test_each_module_of_models_has_a_test_file_of_its_name():
    files = [file for file in (ROOT / "models").rglob("*.py") if file.name != "__init__.py"]
    expected = [ROOT / "tests" / file.relative_to(ROOT).with_name(f"test_{file.name.lstrip('_')}") for file in files]
    assert [str(file.relative_to(ROOT)) for file in expected if not file.exists()] == []


def test_no_module_imports_one_that_imports_it():
    known = modules()
    graph = {}
    for module, file in known.items():
        targets = {f"{target}.{name}" if f"{target}.{name}" in known else target for target, name in imports(file)}
        graph[module] = {target for target in targets if (module, target) not in {*LATER, ON_REQUEST}}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1][::-1])}")
