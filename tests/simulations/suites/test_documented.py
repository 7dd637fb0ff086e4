"""What docs/reproduction.md says in numbers stands in the tables that its sections link."""

import re

import pytest
from committed import RESULTS, skip_under_way

from actrelax.analysis.reports import results_table, suite_report
from actrelax.analysis.runs import State

PAGE = (RESULTS.parent / "docs" / "reproduction.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^#{2,3} ", PAGE, flags=re.MULTILINE)[1:]}
LINKED = {title: re.findall(r"\.\./results/([\w-]+)/table\.md", part) for title, part in SECTIONS.items()}
ELSEWHERE = {"85.8", "83.8", "53.3"}
"""biotorch's published accuracies."""

NUMBER = r"[+-]?\d+\.\d+"
P = re.compile(r"p (?:=|<|at most) (0\.\d+)")
INTERVAL = re.compile(rf"({NUMBER}) to ({NUMBER})")
MEAN = re.compile(rf"(?<![\d.])({NUMBER})(?= (?:points|%))")


def agrees(said, found):
    """Whether a number is another one, rounded to as many digits; losses are told without their sign."""
    return abs(abs(float(said)) - abs(found)) <= 0.5001 * 10.0 ** -len(said.partition(".")[2])


def cells(suites):
    tables = [table for suite in suites for table in suite_report.tables(suite_report.read_document(RESULTS / suite))]
    return [cell.strip("* ") for table in tables for row in table.rows for cell in row]


def accuracies(suites):
    """Of single runs, in percent."""
    found = [o for suite in suites for o in results_table.read(RESULTS / suite).values() if o.state is State.FINISHED]
    return [100 * o.curves[name][-1] for o in found for name in ("test_accuracy", "train_accuracy")]


@pytest.mark.parametrize("title", [title for title, suites in LINKED.items() if suites and "map" not in suites])
def test_numbers_stand_in_the_tables(title):
    skip_under_way()
    text, found = SECTIONS[title], cells(LINKED[title])
    levels = {cell.removeprefix("<") for cell in found if re.fullmatch(r"<?[01]\.\d{3}", cell)}
    intervals = [tuple(map(float, pair)) for cell in found for pair in INTERVAL.findall(cell)]
    means = [float(match[0]) for cell in found if (match := re.match(NUMBER, cell))] + accuracies(
        suite for suite in LINKED[title] if suite != "gradients"
    )
    strange = [f"p {p}" for p in P.findall(text) if not any(agrees(p, float(level)) for level in levels)]
    strange += [
        f"{low} to {high}"
        for low, high in INTERVAL.findall(text)
        if not any((agrees(low, a) and agrees(high, b)) or (agrees(low, b) and agrees(high, a)) for a, b in intervals)
    ]
    strange += [
        said for said in MEAN.findall(text) if said not in ELSEWHERE and not any(agrees(said, m) for m in means)
    ]
    assert not strange


def test_most_sections_link_tables():
    assert sum(bool(suites) for suites in LINKED.values()) >= 12
