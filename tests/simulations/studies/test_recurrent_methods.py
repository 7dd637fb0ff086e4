"""The comparison of ways to the gradient of networks with cycles confirms docs/findings.md, with small settings."""

import pytest
from outcomes import is_drawn

from actrelax.analysis.stability import stability
from actrelax.models.engines import Settle, Steps, settle
from actrelax.models.problem import RelaxationProblem
from actrelax.simulations.studies import recurrent_methods
from actrelax.simulations.studies.recurrent_methods import FAMILIES, products, scaled


def test_gmres_needs_fewest_products_and_a_single_step_is_not_enough(tmp_path):
    found = recurrent_methods.main(tmp_path, families=("dense",), abscissae=(0.9,), counts=(1, 5, 20, 60, 200))
    rows = found["dense"][0.9]
    needed = {method: products(rows, method) for method in recurrent_methods.METHODS}
    assert needed["one step"] is None
    assert needed["GMRES"] < needed["AR"] == needed["k steps"] < needed["BPTT"]
    assert is_drawn(tmp_path / "recurrent_methods.png")


@pytest.mark.parametrize("family", FAMILIES)
def test_networks_have_the_abscissa(family):
    network, x, y, eta = scaled(family, 0.5)
    assert len(network.graph.cycles) == 1
    passed = settle(network, x, Settle(Steps.until(1e-9, eta=eta, most=10_000)))
    problem = RelaxationProblem.from_batch(network, passed, y)
    parts = [slice(i, i + 1) for i in range(len(x))]
    found = [stability(problem.of_batch(network, passed.of_samples(i), problem.clamped[i])) for i in parts]
    assert max(each.abscissa for each in found) == pytest.approx(0.5, abs=1e-3)
    assert eta <= 0.5 * min(each.largest_eta for each in found) * (1 + 1e-3)
