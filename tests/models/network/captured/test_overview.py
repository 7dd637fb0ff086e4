"""The repr of captured networks."""

from modules import MODULES

from actrelax.models.network import Network
from actrelax.models.network.captured.overview import functions_of, locality


def text(name):
    case = MODULES[name]
    return repr(Network.from_module(case.make(), case.stimuli()))


def test_a_transformer_in_words():
    title, *rows = text("transformer").splitlines()
    assert title.startswith("CapturedNetwork of Sequential: ")
    assert "relays" in title
    assert any("relay" in row and "NativeLayerNorm" in row and "population" in row for row in rows)
    assert rows[0].split() == ["population", "shape", "units", "hops", "local", "to", "phi"]


def test_the_share_of_parameters_in_projections():
    """All parameters but those of pieces: an LSTM's are a piece's own."""
    assert "2 projections with 22% of 226 parameters" in text("lstm")  # 35 of stem, 15 of head
    assert "with 100% of" in text("low-rank")


def test_locality():
    assert locality(["NativeBatchNormBackward0", "TanhBackward0"]) == "batch"
    assert locality(["SoftmaxBackward0"]) == "population"
    assert locality(["TanhBackward0", "AddBackward0"]) == "unit"
    assert functions_of(["TanhBackward0", "ViewBackward0", "MulBackward0", "MulBackward0"]) == ["Mul", "Tanh"]
