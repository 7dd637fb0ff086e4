"""The defects that tests must catch: each is named by a test, and each can be made. `make mutate` makes them."""

import ast
from pathlib import Path

import pytest
from defects import DEFECTS


def named_by_tests():
    """The names in all marks ``pytest.mark.catches(NAME)``."""
    trees = [ast.parse(file.read_text()) for file in Path(__file__).parent.rglob("test_*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {call.args[0].value for call in calls if getattr(call.func, "attr", None) == "catches"}


def test_tests_name_every_defect_and_no_other():
    assert named_by_tests() == set(DEFECTS)


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_can_be_made_and_undone(name):
    """It fails where the package no longer has what the defect replaces."""
    right = DEFECTS[name].right
    before = dict(vars(right))
    with pytest.MonkeyPatch.context() as patch:
        DEFECTS[name].apply(patch)
    assert vars(right) == before
