"""The example scripts show their claims, with small settings."""

import importlib
import math
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import brian2 as b2
import pytest
import torch
from outcomes import is_drawn

from actrelax.simulations import examples
from actrelax.simulations.examples import (
    deep_equilibrium,
    delay_line,
    delays,
    from_scratch,
    inhibition_stabilised,
    learned_feedback,
    one_relaxation,
    own_network_and_dynamics,
    recurrent,
    time_constants_and_noise,
    two_phases_in_brian2,
    unfrozen,
)

ROOT = Path(__file__).resolve().parents[3]
NAMES = [module.name for module in pkgutil.iter_modules(examples.__path__)]


@pytest.fixture(autouse=True)
def leaves_nothing_behind():
    """Check that no script changes global state."""
    before = torch.get_default_dtype(), b2.prefs.codegen.target
    yield
    assert (torch.get_default_dtype(), b2.prefs.codegen.target) == before


def test_the_method_from_scratch_is_the_packages():
    far, near = from_scratch.main(steps=50), from_scratch.main(steps=200)
    for scheme in ("euler", "sequential"):
        assert max(far[scheme][1], near[scheme][1]) < 1e-12
        assert far[scheme][0] > 0.1 > 1e-5 > near[scheme][0]
    assert abs(far["euler"][0] / far["sequential"][0] - 1) > 0.01, "otherwise one could stand for the other"


def test_a_relaxation_reaches_the_gradient_as_the_law_says(tmp_path):
    measured = one_relaxation.main(tmp_path, duration=150.0)
    assert measured.pop("law") < 1e-12
    # eta 0.1, 150 steps: lower populations lag behind, and none has converged to rounding
    assert 1e-4 > measured["hidden1"] > 3 * measured["hidden2"] > 9 * measured["hidden3"] > 1e-9
    assert is_drawn(tmp_path / "one_relaxation.png")


def test_noise_leaves_the_mean_and_adds_what_the_scheme_says(tmp_path):
    measured = time_constants_and_noise.main(tmp_path, samples=1000, duration=600.0)
    # 24 neurons at 300 times; a variance of sigma^2 would be 7 standard errors off for the fastest
    assert measured["mean"] < 5
    assert measured["variance"] < 4
    assert measured["lower"] < 4
    assert is_drawn(tmp_path / "time_constants_and_noise.png")


def test_a_delay_costs_its_time_for_each_projection_on_the_way(tmp_path):
    measured = delays.main(tmp_path, duration=250.0)
    assert measured["engines"] < 1e-13
    assert measured["end"] < 1e-4
    assert measured["all feedback"] == pytest.approx(2, abs=0.05)
    assert measured["hidden1->hidden2 only"] == pytest.approx(1, abs=0.05)
    assert measured["hidden3->output only"] == 0
    assert is_drawn(tmp_path / "delays.png")
    assert math.isnan(delays.main(tmp_path, duration=20.0)["all feedback"]), "too short to come near the gradient"


def test_current_gains_settle_for_tanh_and_not_for_relu(tmp_path):
    measured = unfrozen.main(tmp_path, samples=8, duration=40.0)
    frozen, tanh, relu = measured.values()
    assert (frozen["settled"], tanh["settled"], relu["settled"]) == (1, 1, 0)
    hidden = ("hidden1", "hidden2", "hidden3")
    assert [frozen[name] for name in hidden] == pytest.approx([1, 1, 1], abs=1e-9)
    assert [case["hidden3"] for case in (tanh, relu)] == pytest.approx([1, 1], abs=1e-9)
    for name in hidden[:2]:
        assert relu[name] < 0.8 < 0.9 < tanh[name] < 0.999
    assert is_drawn(tmp_path / "unfrozen.png")


def test_feedback_aligns_and_its_offset_follows_the_law(tmp_path):
    measured = learned_feedback.main(tmp_path, epochs=4, steps=50)
    plain, matched = measured["learned-feedback"], measured["kolen-pollack"]
    assert plain["difference"] == pytest.approx(1, abs=1e-12)
    assert matched["difference"] == pytest.approx(0.997 ** (4 * 23), abs=1e-12)  # 1 - 0.3 x 0.01, 23 batches per epoch
    assert matched["law"] == pytest.approx(matched["difference"], abs=1e-12)
    assert matched["angle"] < plain["angle"] - 2 < 75  # drawn independently, they began at about 90
    assert min(plain["accuracy"], matched["accuracy"]) > 0.6
    assert is_drawn(tmp_path / "learned_feedback.png")


def test_own_units_settle_at_the_gradient_in_brian2(tmp_path):
    measured = own_network_and_dynamics.main(tmp_path, duration=200.0)
    assert measured["engines"] < 1e-13
    assert measured["electrode"] < 1e-13
    assert 1e-8 < max(measured["hidden1"], measured["hidden2"]) < 0.02
    assert is_drawn(tmp_path / "own_network_and_dynamics.png")


def test_late_inhibition_oscillates_where_the_linearised_equation_says(tmp_path):
    measured = delay_line.main(tmp_path, duration=800.0)
    assert measured["recursion"] < 1e-12
    assert measured["predicted"] == pytest.approx(12.09, abs=0.01)
    swings = {delay: measured[f"{delay}"] for delay in (4, 8, 11, 13, 16, 20)}
    assert max(swings[delay] for delay in (4, 8, 11)) < 0.1 < 1 < min(swings[delay] for delay in (13, 16, 20))
    assert is_drawn(tmp_path / "delay_line.png")


def test_both_phases_of_a_network_with_loops_settle_and_learn_as_autograd_does(tmp_path):
    measured = recurrent.main(tmp_path, duration=200.0)
    assert measured["implicit"] < 1e-11
    assert measured["through time"] < 1e-9
    for name in ("lower", "upper"):
        assert 1e-3 < measured[f"rates {name}"] < 0.05
        assert 1e-3 < measured[f"gradients {name}"] < 0.2
    assert is_drawn(tmp_path / "recurrent.png")


def test_both_phases_oscillate_from_the_same_time_constant_of_inhibition(tmp_path):
    measured = inhibition_stabilised.main(tmp_path, duration=300.0, ratios=(2.2, 2.8))
    assert measured["alone"] > 1.5
    assert measured["forward"] == pytest.approx(measured["backward"], rel=1e-5)
    assert 2.2 < measured["forward"] < 2.8
    for phase in ("forward", "backward"):
        rates = [measured[f"{phase} {ratio}"] for ratio in (2.2, 2.8)]
        assert rates[0] < -1e-3 < 1e-3 < rates[1]
        assert rates == pytest.approx([measured[f"{phase} {ratio} predicted"] for ratio in (2.2, 2.8)], abs=2e-4)
    assert is_drawn(tmp_path / "inhibition_stabilised.png")


def test_a_loop_inside_a_model_learns_as_the_unrolled_one(tmp_path):
    measured = deep_equilibrium.main(tmp_path, epochs=1, images=128)
    assert measured["stem"] < 0.01
    assert measured["loss"] < 0.01
    assert measured["steps"] < 100
    assert is_drawn(tmp_path / "deep_equilibrium.png")


def test_both_phases_run_and_learn_in_brian2(tmp_path):
    measured = two_phases_in_brian2.main(tmp_path, stimuli=8, block=4, updates=6)
    assert measured["rates"] < measured["gradients"] < 1e-3
    assert measured["weights"] < 5e-3
    assert measured["after"] < 0.5 * measured["before"]
    assert is_drawn(tmp_path / "two_phases_in_brian2.png")


@pytest.mark.parametrize("name", ["from_scratch", "one_relaxation"])
def test_two_as_they_are_run(name, tmp_path):
    script = ROOT / "simulations" / "examples" / f"{name}.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == promised(name)


@pytest.mark.parametrize("name", NAMES)
def test_docs_show_what_the_script_promises(name):
    page = (ROOT / "docs" / "examples.md").read_text()
    section = re.search(rf"python simulations/examples/{name}\.py\n(.*?)(\n## |\Z)", page, re.DOTALL)
    assert section is not None
    assert f"    {promised(name)}\n" in section[1]
    if name == "from_scratch":  # it draws no figure
        return
    assert f"(figures/examples/{name}.png)" in section[1]
    assert is_drawn(ROOT / "docs" / "figures" / "examples" / f"{name}.png")


def test_the_method_from_scratch_comes_first():
    assert re.findall(r"examples/(\w+)\.py$", (ROOT / "docs" / "examples.md").read_text(), re.M)[0] == "from_scratch"


def promised(name):
    """Return the last line of output that a script's docstring states."""
    module = importlib.import_module(f"actrelax.simulations.examples.{name}")
    return re.search(r"^The last line on screen:  (.+)$", module.__doc__, re.MULTILINE)[1]
