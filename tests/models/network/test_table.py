"""Columns of text, by hand."""

from actrelax.models.network.table import aligned


def test_columns_are_as_wide_as_their_widest_cell():
    rows = [["population", "units"], ["a", "1,000"], ["b", "7"]]
    assert aligned(rows) == ["  population  units", "  a           1,000", "  b           7"]
    assert aligned(rows, right={1}) == ["  population  units", "  a           1,000", "  b               7"]


def test_no_line_ends_in_spaces():
    assert aligned([["a", "long"], ["b", ""]]) == ["  a  long", "  b"]
