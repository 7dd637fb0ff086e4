"""The GPU session, run on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from actrelax.simulations.data import digits

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("needs the repository", allow_module_level=True)

MISSING = (
    "brian2 dask h5netcdf h5py joblib loky matplotlib pandas PIL pooch sklearn tabulate tqdm typeguard tyro xarray"
)
"""Dependencies of the package that PyTorch does not install."""


@pytest.fixture
def bare(tmp_path):
    """Return an environment with PyTorch, NumPy and SciPy, but no other dependencies of the package."""
    return without(MISSING, tmp_path)


def without(packages, folder):
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({packages.split()!r}))\n")
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def images(tmp_path):
    """Write the digits as a .npz file of 8-bit images."""
    found, path = digits(), tmp_path / "digits.npz"
    arrays = {}
    for part, (pixels, labels) in found.parts.items():
        arrays |= {f"x_{part}": (pixels[:, 0].numpy() * 255).astype(np.uint8), f"y_{part}": labels.numpy()}
    np.savez(path, **arrays)
    return path


def session(environment, *arguments, cwd):
    command = [sys.executable, BENCHMARKS / "gpu.py", *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)


def statuses(out, part):
    results = json.loads((out / "gpu.json").read_text())["results"][part]
    return {result["item"]: result["status"] for result in results}


def test_the_whole_session_runs_on_a_bare_machine(bare, images, tmp_path):
    out = tmp_path / "out"
    done = session(bare, "--device", "cpu", "--tiny", "--data", images, "--out", out, cwd=tmp_path)
    log = (out / "log.txt").read_text() if (out / "log.txt").exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + log
    checks = statuses(out, "checks")
    assert {name for name, status in checks.items() if status == "left out"} == {
        "steps keep no memory",
        "rounding is small, tf32",
    }
    assert set(checks.values()) == {"ok", "left out"}
    assert set(statuses(out, "costs").values()) == set(statuses(out, "trainings").values()) == {"ok"}
    page = (out / "gpu.md").read_text()
    for title in ("## Goals", "## Checks", "## Costs of a training step", "## Trainings", "## Failed or left out"):
        assert title in page
    assert page in done.stdout


def test_without_data_nothing_is_trained(tmp_path):
    out, environment = tmp_path / "out", without(f"{MISSING} filelock", tmp_path)  # only torch.compile needs it
    done = session(environment, "--device", "cpu", "--tiny", "--parts", "trainings", "--out", out, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(statuses(out, "trainings").values()) == {"left out"}
    assert "cnn, backprop: left out, trainings need CIFAR-10: give --data FILE.npz." in done.stdout


def test_without_a_gpu_it_says_so(bare, tmp_path):
    done = session({**bare, "CUDA_VISIBLE_DEVICES": ""}, "--out", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == ("PyTorch finds no GPU on this machine: use another machine, or give --device cpu --tiny.\n")
    assert not (tmp_path / "out").exists()


def test_a_python_without_pytorch_is_told_what_it_lacks(tmp_path):
    done = session(without("torch", tmp_path), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == ("this Python lacks torch: run benchmarks/gpu.py by one that has PyTorch, NumPy and SciPy.\n")


PART = """
import os, sys, time
sys.path.insert(0, {benchmarks!r})
from gpu_parts.items import Item, run

def die():
    os._exit(7)

def lose_the_device():
    raise RuntimeError("CUDA error: device-side assert triggered")

def fail():
    raise ValueError("three is not four")

def print_more():
    print("some library says something")
    return [{{"found": "a row"}}]

behaviours = {{
    "good": lambda: [{{"found": 1}}], "dies": die, "loses": lose_the_device, "fails": fail, "prints": print_more,
    "hangs": lambda: time.sleep(60),
}}
names, (skip, seconds) = sys.argv[1].split(","), (sys.argv[3], sys.argv[5])
run([Item(name, behaviours[name]) for name in names][int(skip):], float(seconds))
"""


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Return the results of a part whose items behave as named."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from gpu_parts import processes

    script = tmp_path / "part.py"
    script.write_text(PART.format(benchmarks=str(BENCHMARKS)))

    def run(*names, seconds=60.0, each=30.0):
        command = [sys.executable, str(script), ",".join(names)]
        found = processes.results(command, seconds, each, tmp_path / "log.txt")
        return [(result["item"], result["status"], result["message"]) for result in found]

    return run


def test_one_failure_does_not_stop_the_rest(results):
    assert results("fails", "dies", "loses", "good") == [
        ("fails", "failed", "ValueError: three is not four"),
        ("dies", "failed", "the process ended with status 7; its messages are in log.txt."),
        ("loses", "failed", "RuntimeError: CUDA error: device-side assert triggered"),
        ("good", "ok", ""),
    ]


def test_what_a_library_prints_is_no_result(results, capfd):
    assert results("prints", "good") == [("prints", "ok", ""), ("good", "ok", "")]
    assert capfd.readouterr().err == "some library says something\n"


def test_a_part_ends_with_its_time(results):
    assert results("good", "hangs", "good", seconds=4.0) == [
        ("good", "ok", ""),
        ("hangs", "left out", "no time was left."),
        ("good", "left out", "no time was left."),
    ]


def test_what_hangs_is_stopped_and_the_rest_goes_on(results):
    assert results("hangs", "good", each=3.0) == [
        ("hangs", "failed", "the process took more than 3 seconds; its messages are in log.txt."),
        ("good", "ok", ""),
    ]


def test_a_part_that_does_not_start_is_a_failure(results):
    assert results("unheard-of", seconds=20.0) == [
        ("the whole part", "failed", "the process ended with status 1; its messages are in log.txt.")
    ]
