"""Pictures of settings: the closed form against steps, the parts of a picture, refusals."""

from dataclasses import replace

import numpy as np
import pytest

from actrelax import solve
from actrelax.models.engines import integrator_named
from actrelax.models.errors import ActrelaxError
from actrelax.models.results import relative_error
from actrelax.simulations.explorer.compute import POINTS, by_law, pictured, relaxed
from actrelax.simulations.explorer.setting import Setting
from actrelax.simulations.training.experiment import Model


def setting_of(network="digits-cnn", first=0, **relaxation):
    usual = Setting()
    problem = replace(usual.problem, model=Model(network), first=first)
    return Setting(problem, replace(usual.relaxation, **relaxation))


@pytest.mark.parametrize("network", ["digits-mlp", "digits-cnn", "digits-skip"])
@pytest.mark.parametrize("integrator", ["euler", "sequential", "rk4", "exact"])
def test_the_closed_form_is_the_steps(network, integrator):
    problem = relaxed(setting_of(network)).problem
    stepped = solve(problem, integrator, 12, eta=0.2, record=True)
    found = by_law(problem, integrator_named(integrator), 0.2, 12)
    assert found.times == pytest.approx(stepped.times)
    assert found.evaluation == "closed-form"
    for name, states in stepped.recorded.items():
        assert relative_error(found.recorded[name], states) < 1e-12
        assert relative_error(found.final[name], stepped.final[name]) < 1e-12
        assert relative_error(states[0], states[-1]) > 1e-3 or name == "output"


@pytest.mark.parametrize("changes", [{}, {"noise": 0.1}], ids=["closed form", "stepped"])
def test_at_most_so_many_times_are_shown_and_the_end_is_one(changes):
    scene = pictured(setting_of("digits-mlp", steps=347, **changes)).scene
    assert len(scene.times) == POINTS
    assert (scene.times[0], scene.times[-1]) == (0, pytest.approx(34.7))
    end = relaxed(setting_of("digits-mlp", steps=347, **changes)).final["hidden1"].detach().numpy()
    assert scene.populations["hidden1"].activities[:, -1] == pytest.approx(end)


def test_another_image_is_another_picture():
    one, other = (pictured(setting_of("digits-mlp", first=first)) for first in (0, 1))
    assert np.abs(one.scene.stimuli - other.scene.stimuli).max() > 0.1
    assert one.source == "digits"


def test_remarks():
    assert pictured(setting_of()).remarks == []
    (held,) = pictured(setting_of(assumptions="continuous")).remarks
    assert held == "continuous plasticity is left out: weights stay constant here."
    (idle,) = pictured(setting_of("digits-mlp", tau_spread_over="populations")).remarks
    assert idle.startswith("--tau-spread-over has no effect: ")
    (warned,) = pictured(setting_of(eta=1.5)).remarks
    assert "above 1" in warned


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"eta": 2.5}, "eta must lie between 0 and 2"),
        ({"integrator": "equilibrium", "steps": None}, 'a relaxation over time is shown, and "equilibrium" takes none'),
        ({"integrator": "nix"}, "unknown integrator 'nix'"),
        ({"integrator": "rk4", "noise": 0.1}, '"rk4" can\'t be used here'),
        ({"delay": 0.15, "dt": 0.1}, "must be a whole number of dt"),
        ({"tau_spread": 0.3}, "eta is dt/tau and needs one tau"),
        ({"steps": 3000, "noise": 0.1}, "without a closed form at most 2,000 steps are taken here, got 3,000"),
        ({"first": 360}, "--first must be between 0 and 359, got 360."),
        ({"eta": 0.1, "dt": 0.1}, "--dt and --eta exclude each other"),
    ],
)
def test_refusals_are_the_librarys_own_sentences(changes, said):
    with pytest.raises(ActrelaxError) as refused:
        pictured(setting_of(**changes))
    assert said in str(refused.value)
    assert str(refused.value).endswith(".")


def test_long_relaxations_have_the_closed_form():
    trajectory = relaxed(setting_of("digits-mlp", steps=100_000, eta=0.001))
    assert (trajectory.evaluation, len(trajectory.times)) == ("closed-form", POINTS)
