"""The first paper's figure 1, on the digits, against the relaxation and its closed form."""

import csv
from dataclasses import replace

import pytest

from actrelax.analysis.reports import suite_report
from actrelax.models.engines import solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import activity_gradients
from actrelax.models.network import build
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import Record
from actrelax.simulations.data import digits, random_stream
from actrelax.simulations.suites import figure1
from actrelax.simulations.suites.suite import varied

TINY = varied(figure1.BASE, {"dataset": "digits", "network": "mlp-4x9", "batch_size": 3, "steps": 40})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradients")
    return folder, figure1.write(folder, TINY, figure1.EXECUTION, 2, "actrelax reproduce gradients")


def test_errors_are_those_of_the_relaxation(written):
    with (written[0] / "errors.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["seed"], row["eta"]) == ("1", "0.2")]
    assert [int(row["step"]) for row in rows] == list(range(0, 41, 5))
    images, labels = (part[:3] for part in digits().test)
    images = images.double()
    network = build(
        "mlp-4x9", input_shape=(1, 8, 8), activation="tanh", weight_std=0.05, generator=random_stream(1, "weights")
    )
    network.double()
    problem = RelaxationProblem.from_batch(network, images, labels, loss="sum-of-squares")
    exact = activity_gradients(network, images, labels, loss="sum-of-squares")
    states = solve(problem, "euler", eta=0.2, steps=40, record=Record(every=5), evaluation="stepped")
    for name in network.hidden:
        squares = (states[name] - exact[name]).square().flatten(2).sum(2).mean(1)
        assert [float(row[f"squared {name}"]) for row in rows] == pytest.approx(squares.tolist(), rel=1e-3)
        assert [float(row[name]) for row in rows] == pytest.approx(states.error(exact)[name].tolist(), rel=1e-3)
        assert squares[0] > 1e3 * squares[-1]


def test_the_table_compares_with_the_law(written):
    folder, text = written
    document = suite_report.read_document(folder)
    assert suite_report.text(document) == text
    (part,) = document["parts"]
    rows = {row["eta"]: [row[f"hidden{n}"] for n in (1, 2, 3)] for row in part["rows"]}
    assert all(cell["measured"] == cell["predicted"] for cell in rows[0.5])
    lowest, highest = (min(cell["measured"]) for cell in (rows[0.5][0], rows[0.5][-1]))
    assert lowest > highest > 3
    (table,) = suite_report.tables(document)
    assert table.rows[-1] == ["0.005", *["- (-)"] * 3]
    assert 0 < part["law_error"] < 1e-12
    assert sorted(path.name for path in folder.iterdir()) == ["errors.csv", "layers.png", "rates.png", "table.json"]


def test_without_a_law(tmp_path):
    """With current gains there is no prediction, and the figure shows none."""
    unfrozen = varied(TINY, {"assumptions": "unfrozen-relaxation"})
    text = figure1.write(tmp_path, unfrozen, figure1.EXECUTION, 1, "")
    assert "(" not in text.split("|--")[-1].split("Steps")[0]
    assert "law" not in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": 0.1}, "--lr has no effect on gradients, which trains nothing: leave it out."),
        ({"normalise": "half"}, "--normalise has no effect on gradients, which trains nothing: leave it out."),
        ({"precision": "bf16"}, "gradients needs --precision fp32 or fp64, got bf16."),
        ({"eta": 0.3}, "--eta sets the step size, which gradients varies itself: leave it out."),
        ({"steps": "auto"}, "gradients needs --steps as a number, got auto."),
    ],
)
def test_what_is_refused(options, said):
    with pytest.raises(ActrelaxError) as raised:
        figure1.check(varied(figure1.BASE, options), figure1.EXECUTION)
    assert str(raised.value) == said


def test_an_option_of_training_is_refused():
    with pytest.raises(ActrelaxError, match=r"^--channels-last has no effect on gradients, which trains nothing"):
        figure1.check(figure1.BASE, replace(figure1.EXECUTION, channels_last=True))
