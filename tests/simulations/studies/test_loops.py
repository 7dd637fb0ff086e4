"""Studies of networks with loops confirm docs/findings.md, with small settings."""

import math

import pytest
from outcomes import is_drawn

from actrelax.simulations.studies import equilibrium_propagation, loops, recurrent_stability, two_phases, walks
from actrelax.simulations.suites.suite import varied


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    for module in (loops, recurrent_stability, walks):
        monkeypatch.setattr(module, "HIERARCHY", varied(loops.HIERARCHY, {"train_images": 640}))


def test_both_phases_need_their_time(tmp_path):
    found = two_phases.main(tmp_path, epochs=1, seeds=1, samples=3, forward=(2, 20), backward=(2, 10, 20))
    zero, rates, forward = (found[label]["update"] for label in ("from zero", "from the rates", "forward phase"))
    assert zero[2] > 2 * zero[20]
    assert rates[2] > zero[2] + 10
    assert forward[2] > 2 * forward[20]
    assert found["delays of 1 tau"]["update"][20] > zero[20] + 1
    assert found["abscissa"][2]["most"] > found["abscissa"]["settled"]["most"] + 0.02
    assert found["right"]["digits"] + found["wrong"]["digits"] == 3
    shares = [of["share"] for of in (found["right"], found["wrong"]) if of["digits"]]
    assert sum(shares) == pytest.approx(100)
    assert is_drawn(tmp_path / "two_phases.png")


def test_hops_reach_one_population_after_the_other_as_the_law_of_walks_says(tmp_path):
    controls = {"settled": walks.CONTROLS["settled"]}
    found = walks.main(tmp_path, epochs=1, seeds=1, samples=3, zero=(3,), rates=(), controls=controls)
    assert found["law"] < 1e-13
    assert [min(found["size"][f"hidden{i}"]) for i in (3, 2, 1)] == [1, 2, 3]
    angles = found["angle"]
    assert 90 > angles["from zero"]["update"][1] > angles["from zero"]["update"][3] > angles["from zero"]["update"][10]
    assert angles["from the rates"]["digit"][3] > angles["from zero"]["digit"][3] + 10
    assert min(found["accuracy"][name]["mean"] for name in ("settled", "3 hops from zero")) > 40
    assert is_drawn(tmp_path / "walks.png")


def test_what_decides_whether_a_loop_settles(tmp_path):
    found = recurrent_stability.main(
        tmp_path,
        gains=(1.2,),
        draws=1,
        spreads=(1.2, 4.0),
        tries=3,
        inhibition=(3.0,),
        epochs=1,
        conditions={"no gains": recurrent_stability.CONDITIONS["no gains"]},
    )
    gain = {label: of[1.2] for label, of in found["gain"].items()}
    assert gain["true feedback"] < 1 < gain["current gains"] + 0.05 < gain["no gains"]
    assert gain["random"] == pytest.approx(found["circular law"][1.2], abs=0.1)
    assert found["spread"]["excitatory and inhibitory"][1.2] < 0 < found["spread"]["excitatory and inhibitory"][4.0]
    assert max(found["spread"]["hierarchy"].values()) < 0
    growth = found["growth"][3.0]
    assert growth[0.9] < -0.01 < 0.01 < growth[1.1]
    assert found["learning"]["no gains"]["backward"] > 1.1 > found["learning"]["no gains"]["forward"]
    assert found["learning"]["no gains"]["largest"] >= found["learning"]["no gains"]["backward"]
    assert found["learning"]["no gains"]["above 1 after"] == 1
    assert not math.isnan(found["learning"]["no gains"]["accuracy"])
    assert is_drawn(tmp_path / "recurrent_stability.png")


def test_equilibrium_propagation_finds_the_gradient_and_learns_by_it(tmp_path, monkeypatch):
    monkeypatch.setattr(equilibrium_propagation, "STEPS", 40)
    monkeypatch.setattr(equilibrium_propagation, "HIERARCHY", varied(loops.HIERARCHY, {"train_images": 64}))
    found = equilibrium_propagation.main(tmp_path, epochs=1, seeds=1, samples=3, betas=(1e-6, 1.0), train_with=(0.1,))
    digit = {name: of["digit"] for name, of in found["angle"].items() if name != "AR"}
    relaxed = found["angle"]["AR"]["digit"]
    for name in ("EP", "one phase"):
        assert digit[name][1e-6] == pytest.approx(relaxed, abs=0.01)
        assert digit[name][1.0] > relaxed + 0.5
    assert digit["no correction"][1e-6] > relaxed + 30
    assert found["accuracy"]["EP"][0.1] == pytest.approx(found["accuracy"]["AR"], abs=2)
    assert is_drawn(tmp_path / "equilibrium_propagation.png")
