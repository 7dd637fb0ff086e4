"""The package as users install it: a wheel with its dependencies, in a separate environment."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest
from test_readme import ROOT, programs

import actrelax

SOURCES = ["src", "models", "simulations", "analysis", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"]
FOLDERS = {"src/actrelax": "actrelax", **{name: f"actrelax/{name}" for name in ("models", "simulations", "analysis")}}


def run(*command, cwd, **variables):
    """Run a command and return what it prints; the checkout is not on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that is built from a copy of the sources."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    run(*pip, "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "dist", ".", cwd=source)
    (built,) = (source / "dist").iterdir()
    return built


def test_the_wheel_has_every_file_and_this_version(wheel):
    assert wheel.name == f"actrelax-{actrelax.__version__}-py3-none-any.whl"
    inside = {name for name in ZipFile(wheel).namelist() if name.startswith("actrelax/")}
    wanted = {
        f"{place}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, place in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".typed", ".html", ".css", ".js")
    }
    assert len(wanted) > 100
    assert inside == wanted


def test_the_citation_has_this_version():
    assert f"\nversion: {actrelax.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_installed_wheel_runs_the_readme(wheel, tmp_path):
    run(sys.executable, "-m", "venv", "--without-pip", "fresh", cwd=tmp_path)
    python = tmp_path / "fresh" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install", "--quiet"]
    run(*pip, "--no-deps", "--no-index", wheel, cwd=tmp_path)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # those of this Python, which has them
    where = run(
        python, "-c", "import actrelax, actrelax.simulations as s; print(actrelax.__file__, s.__file__)", cwd=tmp_path
    )
    assert where.count(str(site)) == 2
    program = tmp_path / "readme.py"
    program.write_text("\n".join(programs(ROOT / "README.md")))
    assert "hidden1" in run(python, program, cwd=tmp_path)
    shown = run(python.with_name("actrelax"), cwd=tmp_path)
    assert "actrelax SIMULATION --help" in shown
