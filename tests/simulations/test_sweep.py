"""A sweep, and the suite at each condition's best rate, as a user runs them."""

import csv
import re

import pytest

from actrelax.simulations.cli import main


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def places(tmp_path):
    return [
        "--runs",
        str(tmp_path / "runs"),
        "--quiet",
        "--jobs",
        "1",
        "--epochs",
        "1",
        "--seeds",
        "1",
        "--network",
        "digits-mlp",
    ]


def test_a_suite_at_the_rates_that_a_sweep_found(tmp_path, places, capsys):
    out = tmp_path / "rates"
    assert main(["sweep", "smoke", "--rates", "0.001", "0.05", "--out", str(out), *places]) == 0
    assert capsys.readouterr().out.endswith(f"written to {out}\n")
    names = [".lock", "curves.csv", "rates.csv", "runs.csv", "sensitivity.png", "table.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    accuracies = {}
    for row in rows(out / "runs.csv"):
        assert float(row["validation_accuracy"]) != float(row["test_accuracy"])
        accuracies.setdefault(row["condition"], {})[float(row["variant"].split()[-1])] = float(
            row["validation_accuracy"]
        )
    best = {row["condition"]: float(row["lr"]) for row in rows(out / "rates.csv")}
    assert best == {name: max(found, key=found.get) for name, found in accuracies.items()}

    own = tmp_path / "own"
    assert main(["reproduce", "smoke", "--own-rates", str(out), "--out", str(own), *places]) == 0
    said = capsys.readouterr().out
    assert f"actrelax reproduce smoke --seeds 1 --epochs 1 --network digits-mlp --own-rates {out}\n" in said
    assert re.search(rf"\| backprop +\| +{best['backprop']:g} +\| +1 +\|", said)
    assert {row["condition"] for row in rows(own / "runs.csv")} == set(best)
    assert main(["reproduce", "mlp-mnist", "--own-rates", str(out), "--out", str(own)]) == 2
    assert capsys.readouterr().err.endswith(f"{out} is a sweep of smoke: sweep mlp-mnist for its rates.\n")


def test_a_sweep_of_three_seeds_adds_to_one_of_fewer(tmp_path, places, capsys):
    out, usual = tmp_path / "rates", places[: places.index("--seeds")]
    options = ["sweep", "smoke", "--rates", "0.05", "--out", str(out), "--network", "digits-mlp", *usual]
    assert main([*options, "--seeds", "1"]) == 0
    before = rows(out / "runs.csv")
    assert main(options) == 0
    assert "mean over the finished ones of 3 seeds" in capsys.readouterr().out
    assert [row for row in rows(out / "runs.csv") if row["seed"] == "0"] == before
    assert {row["seed"] for row in rows(out / "runs.csv")} == {"0", "1", "2"}
    assert {row["found_by"] for row in rows(out / "rates.csv")} == {
        "actrelax sweep smoke --seeds 3 --epochs 1 --network digits-mlp --rates 0.05"
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep", "nonsense"], "unknown suite 'nonsense'"),
        (["sweep", "smoke", "--rates", "0.1", "0"], "--rates must be positive and at most 1e+30, got 0"),
        (["reproduce", "gradients", "--report-only"], "gradients has no training runs"),
        (["reproduce", "smoke", "--own-rates", "nowhere"], "nowhere has no rates.csv of a sweep"),
    ],
)
def test_what_is_refused(arguments, said, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"actrelax {arguments[0]}: {said}")
