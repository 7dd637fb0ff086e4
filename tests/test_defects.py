"""Defects that tests must catch: each is named by a test, and can be applied. `make mutate` applies them."""

import ast
from pathlib import Path

import pytest
from defects import DEFECTS


def named_by_tests():
    """Return the names in all marks ``pytest.mark.catches(NAME)``."""
    trees = [ast.parse(file.read_text()) for file in Path(__file__).parent.rglob("test_*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {call.args[0].value for call in calls if getattr(call.func, "attr", None) == "catches"}


def test_tests_name_every_defect_and_no_other():
    assert named_by_tests() == set(DEFECTS)


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_can_be_made_and_undone(name):
    """It fails if the package no longer has the object that the defect replaces."""
    right = DEFECTS[name].right
    before = dict(vars(right))
    with pytest.MonkeyPatch.context() as patch:
        DEFECTS[name].apply(patch)
    assert vars(right) == before
