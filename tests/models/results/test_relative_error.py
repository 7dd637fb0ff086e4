"""The relative error, on which all other tests rely."""

import math

import pytest
import torch

from actrelax.models.results import relative_error


def test_relative_to_the_largest_of_the_reference():
    reference = torch.tensor([1e-5, -4e-5])
    assert relative_error(reference + torch.tensor([0.0, 1e-7]), reference) == pytest.approx(1e-7 / 4e-5)


def test_relative_to_the_terms_of_a_cancelling_sum():
    assert relative_error(torch.tensor([1e-12]), torch.tensor([0.0]), magnitude=torch.tensor([10.0])) == 1e-13


def test_silent_populations_agree_with_silence_only():
    silence = torch.zeros(3)
    assert relative_error(silence, silence) == 0
    assert relative_error(silence + 1e-20, silence) > 1e9


def test_non_finite_values_never_agree():
    reference = torch.ones(2)
    assert not relative_error(torch.tensor([1.0, math.nan]), reference) < 1
    assert not relative_error(torch.tensor([1.0, math.inf]), reference) < 1
    assert not relative_error(reference, torch.tensor([1.0, math.nan])) < 1
    assert not relative_error(reference, torch.tensor([1.0, math.inf])) < 1


def test_shapes_must_be_equal():
    with pytest.raises(ValueError, match=r"^can't compare shapes \(2,\) and \(2, 1\)\.$"):
        relative_error(torch.ones(2), torch.ones(2, 1))
