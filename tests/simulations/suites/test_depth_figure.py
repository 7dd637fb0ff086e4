"""The figure of what can be lifted, how deep, from artificial rows."""

import pytest
from outcomes import is_drawn

from actrelax.analysis.reports import comparison, results_table
from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.runs import State
from actrelax.simulations.cli import main
from actrelax.simulations.suites import depth_figure
from actrelax.simulations.suites.definitions import SUITES
from actrelax.simulations.suites.report import conditions_of

ACCURACIES = {
    "ResNet-8 BatchNorm": {
        "backprop": [98.0, 97.0, 98.5],
        "AR": [98.0, 97.0, 98.5],
        "no derivatives": [96.0, 94.0, 97.1],
        "sign feedback": [97.0, None, 97.1],
    },
    "ResNet-20 BatchNorm": {"backprop": [98.0, 98.4, 98.2], "AR, 100 steps": [20.0, 24.0, 16.0]},
    "ResNet-14 GroupNorm": {"backprop": [97.0], "AR": [96.0]},
    "plain-14 GroupNorm": {"backprop": [28.0, 32.0], "AR": [20.0, 21.0]},
    "plain-32 GroupNorm": {"backprop": [60.0, 70.0, 65.0], "no derivatives": [None, None, None]},
}


def write(folder, accuracies):
    """Write rows of runs of one epoch: network -> condition -> accuracies of the seeds, None for a divergence."""
    found = []
    for variant, conditions in accuracies.items():
        for condition, of_seeds in conditions.items():
            for seed, accuracy in enumerate(of_seeds):
                curves = {"epoch": [0, 1], "train_accuracy": [0.1, 0.5], "test_accuracy": [0.1, (accuracy or 0) / 100]}
                state = State.DIVERGED if accuracy is None else State.FINISHED
                found.append(Outcome(variant, condition, seed, f"{variant}{condition}{seed}", state, "", 1.0, curves))
    results_table.write(folder, found)
    return found


def test_costs_and_their_intervals(tmp_path):
    found = write(tmp_path / "depth-digits", ACCURACIES)
    statistics = {"backprop": [98.0, 97.0, 98.5], "AR": [98.0, 97.0, 98.5], "constant statistics": [90.0, 92.0, 94.0]}
    write(tmp_path / "depth-digits-statistics", {"ResNet-8 BatchNorm": statistics})
    costs = depth_figure.costs(tmp_path)
    skips = {
        rule: of_networks["ResNet BatchNorm"]
        for rule, of_networks in costs.items()
        if "ResNet BatchNorm" in of_networks
    }
    assert skips["AR"][8].points == 0
    assert {rule: list(of_layers) for rule, of_layers in skips.items()} == {
        "AR": [8],
        "no derivatives": [8],
        "sign feedback": [8],
        "AR, 100 steps": [20],
        "constant statistics": [8],
    }
    assert skips["no derivatives"][8].points == pytest.approx((2.0 + 3.0 + 1.4) / 3)
    assert skips["AR, 100 steps"][20].points == pytest.approx(98.2 - 20)
    assert skips["constant statistics"][8].points == pytest.approx(97.833 - 92, abs=1e-3)
    # the interval is the table's, with the sign of a cost
    variant = "ResNet-8 BatchNorm"
    part = comparison.compared(
        conditions_of(SUITES["depth-digits"], variant), [o for o in found if o.variant == variant]
    )
    (table,) = [r["against"]["backprop"] for r in part["rows"] if r["condition"] == "no derivatives"]
    cost = skips["no derivatives"][8]
    assert (cost.low, cost.high) == (-table["high"], -table["low"])
    assert cost.low < cost.points < cost.high
    # the two seeds that finished; and a rule that always diverged, at chance
    assert skips["sign feedback"][8].points == pytest.approx(((98 - 97) + (98.5 - 97.1)) / 2)
    assert skips["sign feedback"][8].diverged
    assert costs["no derivatives"]["plain GroupNorm"] == {32: (pytest.approx(55.0), 55.0, 55.0, True)}
    assert not skips["no derivatives"][8].diverged
    # backprop can't train the plain one with 14 layers; a single seed has no interval
    assert costs["AR"] == {"ResNet BatchNorm": {8: skips["AR"][8]}, "ResNet GroupNorm": {14: (1.0, 1.0, 1.0, False)}}


def test_the_map_draws_it_where_there_are_rows(tmp_path, capsys):
    write(tmp_path / "cnn-cifar10", {"": {"backprop": [50.0, 55.0], "AR": [45.0, 55.0]}})
    assert main(["reproduce", "map", "--out", str(tmp_path / "map")]) == 0
    assert not (tmp_path / "map" / "depth.png").exists()
    write(tmp_path / "depth-digits", ACCURACIES)
    assert main(["reproduce", "map", "--out", str(tmp_path / "map")]) == 0
    assert is_drawn(tmp_path / "map" / "depth.png")
    capsys.readouterr()
