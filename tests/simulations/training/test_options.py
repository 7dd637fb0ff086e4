"""Ranges of numbers, and options that determine the defaults of others."""

import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.options import POSITIVE, given_in, require


@pytest.mark.parametrize(
    ("bounds", "good", "bad", "said"),
    [
        ((0, math.inf), 0, -1, "0 or more, got -1"),
        ((POSITIVE, math.inf), 1e-9, 0, "positive, got 0"),
        ((1, math.inf), 1, 0, "1 or more, got 0"),
        ((POSITIVE, 1e38), 1e38, 0, "positive and at most 1e+38, got 0"),
        ((0, 1), 1, 1.5, "between 0 and 1, got 1.5"),
        ((POSITIVE, math.inf), 1e-30, 1e-320, "1e-30 or more, got 9.99989e-321"),
        ((1, math.inf), 1e30, 1e31, "at most 1e+30, got 1e+31"),
        ((1, 1024), 8, 2**31, "between 1 and 1024, got 2.14748e+09"),
        ((1, math.inf), 10**18, 10**400, "at most 1e+30, got 100000000000..."),
        ((0, math.inf), 3, math.nan, "0 or more, got nan"),
        ((POSITIVE, math.inf), 3, math.inf, "a finite number, got inf"),
    ],
)
def test_numbers_out_of_range(bounds, good, bad, said):
    require(batch_size=(good, *bounds))
    require(batch_size=(None, *bounds))
    with pytest.raises(ActrelaxError) as refused:
        require(other=(good, *bounds), batch_size=(bad, *bounds))
    assert str(refused.value) == f"--batch-size must be {said}."


@dataclass(frozen=True)
class Chosen:
    run: Path | None = None


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["--run", "a", "--lr", "1"], Path("a")),
        (["--lr", "1", "--run=a=b"], Path("a=b")),
        (["--run", "a", "--run", "b"], Path("b")),
        (["--runs", "a", "--augment", "--help"], None),
    ],
)
def test_options_that_decide_defaults(arguments, value):
    assert given_in(arguments, Chosen).run == value
