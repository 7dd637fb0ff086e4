"""The numbers in the pages, computed from results/: `make numbers` rewrites them, and the tests allow no difference.

A number in prose is followed directly by a comment with a Python expression, which no reader of the page sees:

    backprop comes to 54.8<!--=accuracy("cnn-cifar10", "backprop")--> %

The number keeps its style: its decimals, a sign (one that is written with + or - always has one), commas, "1e-15".
Levels of tests are written "p = 0.013" or "p < 0.001". Expressions call the public methods of `Results` below.
A suite is "SUITE", "SUITE/VARIANT" or, of the default suite, "/VARIANT". It can be left out below

    <!-- numbers: suite = cnn-cifar10 -->

up to the next heading or such line. Tables of a suite, or of a variant, stand between `<!-- table: SUITE -->` and
`<!-- end -->`, those of the ledger between `<!-- ledger: NETWORK -->` and `<!-- end -->` (docs/ledger_page.py).
"""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import ledger_page

from actrelax.analysis.reports import suite_report
from actrelax.analysis.reports.results_table import Outcome, read
from actrelax.analysis.runs import State
from actrelax.analysis.statistics import interval

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "how-to").glob("*.md"))]

PART = re.compile(
    r"^(?P<heading>\#+\ )"
    r"|<!--\ numbers:\ suite\ =\ (?P<default>\S+)\ -->"
    r"|(?P<begin><!--\ (?P<kind>table|ledger):\ (?P<table>[^>]+?)\ -->\n).*?(?P<end><!--\ end\ -->)"
    r"|(?:(?P<relation>[=<]\ )?(?<![\w.,])(?P<number><?[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?))?"
    r"<!--=(?P<expression>.*?)-->",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)


class PageError(ValueError):
    """An expression asks for something that the results don't have."""


class P(float):
    """The level of a test."""


class Estimate(float):
    """A mean over seeds; low and high are its 95 % interval."""

    low: float
    high: float

    def __new__(cls, mean: float, low: float, high: float) -> Estimate:
        """Return a mean with an interval."""
        estimate = super().__new__(cls, mean)
        estimate.low, estimate.high = low, high
        return estimate


class Results:
    """The functions for expressions.

    Accuracies are in percent, and differences in points, of the seeds that finished; conditions are compared as in the
    suite's table. Without an epoch an accuracy is the final one (`Outcome.final_accuracy`), an angle that of the last
    epoch; 0 is the untrained network.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._default = folder, ""
        self._read = cache(lambda suite: list(read(folder / suite).values()))
        self._document = cache(lambda suite: suite_report.read_document(folder / suite))

    def accuracy(self, *names: str, epoch: int | None = None) -> Estimate:
        """Return a condition's test accuracy: accuracy("SUITE", "CONDITION"), likewise below."""
        return self._mean("test", names, epoch)

    def train(self, *names: str, epoch: int | None = None) -> Estimate:
        """Return its training accuracy."""
        return self._mean("train", names, epoch)

    def validation(self, *names: str, epoch: int | None = None) -> Estimate:
        """Return its accuracy of images that a sweep held out, the suite being "SUITE-rates/lr 0.001"."""
        return self._mean("validation", names, epoch)

    def angle(self, *names: str, epoch: int = -1) -> Estimate:
        """Return the angle between its updates and backprop's, in degrees."""
        return _estimate([o.curves["angle"][epoch] for o in self._one(names)])

    def seed(self, *names: Any, epoch: int | None = None) -> float:
        """Return one seed's test accuracy: seed("SUITE", "CONDITION", 3)."""
        return _accuracy({o.seed: o for o in self._one(names[:-1])}[names[-1]], "test", epoch)

    def gap(self, *names: str) -> Estimate:
        """Return its test accuracy minus backprop's, or minus that of one named last; the interval is tested."""
        return Estimate(*map(self._compared(names).get, ("difference", "low", "high")))

    def p(self, *names: str) -> P:
        """Return the level at which the two differ, corrected as in the table."""
        return P(self._compared(names)["p_difference"])

    def pe(self, *names: str) -> P:
        """Return the level at which they are equivalent within a point, likewise."""
        return P(self._compared(names)["p_equivalence"])

    def pr(self, *names: str) -> P:
        """Return the level at which they are equivalent within 10 % of backprop's errors, likewise."""
        return P(self._compared(names)["p_equivalence_errors"])

    def margin(self, *names: str) -> float:
        """Return 10 % of backprop's errors in points: margin("SUITE")."""
        suite, variant, _ = self._place(names)
        return float({part["variant"]: part for part in self._document(suite)["parts"]}[variant]["margins"]["errors"])

    def runs(self, *names: str) -> int:
        """Return the number of runs of a suite, of a variant or of a condition, likewise below."""
        return len(self._runs(names))

    def seeds(self, *names: str) -> int:
        """Return the number of seeds."""
        return len({o.seed for o in self._runs(names)})

    def epochs(self, *names: str) -> int:
        """Return the number of epochs."""
        return max(o.epochs for o in self._runs(names))

    def minutes(self, *names: str) -> float:
        """Return the wall time in all."""
        return sum(o.wall_seconds for o in self._runs(names)) / 60

    def diverged(self, *names: str) -> int:
        """Return the number of runs that diverged."""
        return len(self.diverged_in(*names))

    def diverged_in(self, *names: str) -> list[int]:
        """Return the epochs in which they did."""
        return sorted(o.epochs + 1 for o in self._runs(names) if o.state is State.DIVERGED)

    def study(self, name: str, *keys: Any) -> Any:
        """Return what a study wrote: study("NAME", "key", 0) is ["key"][0] in results/studies/NAME.json."""
        found = json.loads((self._folder / "studies" / f"{name}.json").read_text(encoding="utf-8"))
        for key in keys:
            found = found[key]
        return found

    def _tables(self, place: str) -> str:
        """Return a suite's tables with all that is said of them, headings one level down, or one variant's table."""
        suite, _, variant = place.partition("/")
        if variant:
            return suite_report.markdown_table(self._folder / suite, variant).strip()
        text = suite_report.text(suite_report.read_document(self._folder / suite)).partition("\n")[2]
        return re.sub(r"^#", "##", text.strip(), flags=re.MULTILINE)

    def _place(self, names: Sequence[str]) -> tuple[str, str, Sequence[str]]:
        """Return suite, variant ("" for all), and the names that follow."""
        first = names[0] if names else self._default
        given = "/" in first or (self._folder / first / "runs.csv").is_file()
        suite, _, variant = (first if given else self._default).partition("/")
        suite = suite or self._default.partition("/")[0]
        if not suite or not (self._folder / suite / "runs.csv").is_file():
            raise PageError(f"no suite {suite or first}")
        return suite, variant, names[given:]

    def _runs(self, names: Sequence[str]) -> list[Outcome]:
        suite, variant, others = self._place(names)
        of = self._read(suite)
        mine = [o for o in of if variant in ("", o.variant) and o.condition in (others[:1] or [o.condition])]
        if not mine:
            known = ", ".join(dict.fromkeys(f"{o.variant} {o.condition}".strip() for o in of))
            raise PageError(f"{suite} has no {' '.join((variant, *others)).strip()}, but {known}")
        return mine

    def _one(self, names: Sequence[str]) -> list[Outcome]:
        """Return the runs of one condition that finished."""
        mine = self._runs(names)
        if len(several := {f"{o.variant} {o.condition}" for o in mine}) > 1:
            raise PageError(f"name one of {', '.join(sorted(several))}")
        return [o for o in mine if o.state is State.FINISHED]

    def _mean(self, of: str, names: Sequence[str], epoch: int | None) -> Estimate:
        return _estimate([_accuracy(o, of, epoch) for o in self._one(names)])

    def _compared(self, names: Sequence[str]) -> Mapping[str, Any]:
        """Return how a condition compares with another, from table.json."""
        suite, variant, (condition, *others) = self._place(names)
        self._one((f"{suite}/{variant}", condition))
        parts = {part["variant"]: part for part in self._document(suite)["parts"]}
        against = {row["condition"]: row["against"] for row in parts[variant]["rows"]}[condition]
        (other,) = others or ["backprop"]
        if other not in against:
            raise PageError(f"{condition} is not compared with {other}, but with {', '.join(against) or 'none'}")
        return against[other]


def _accuracy(outcome: Outcome, of: str, epoch: int | None) -> float:
    return outcome.final_accuracy(of) if epoch is None else 100 * outcome.curves[f"{of}_accuracy"][epoch]


def _estimate(values: Sequence[float]) -> Estimate:
    return Estimate(statistics.fmean(values), *interval(values))


def styled(value: float, old: str, relation: str = "") -> str:
    """Return a number in the style of another."""
    sign, comma = "+" * (old[0] in "+-"), "," * ("," in old)
    mantissa, exponent, _ = old.partition("e")
    decimals = len(mantissa.partition(".")[2])
    if isinstance(value, P):
        least = 10.0**-decimals
        equal, below = ("= ", "< ") if relation else ("", "<")
        return f"{below}{least:.{decimals}f}" if value < least else f"{equal}{value:.{decimals}f}"
    if exponent:
        return relation + re.sub(r"e([+-])0", r"e\1", f"{value:{sign}.{decimals}e}").replace("e+", "e")
    return f"{relation}{round(value, decimals) + 0.0:{sign}{comma}.{decimals}f}"  # never -0.0


def filled(text: str, results: Results, page: str = "page") -> str:
    """Return a page with its numbers computed anew.

    Raises
    ------
    PageError
        Where one can't be.
    """
    functions = {name: getattr(results, name) for name in dir(results) if not name.startswith("_")}
    usual = {f.__name__: f for f in (abs, len, max, min, range, round, sum, statistics.fmean)}
    namespace = {"__builtins__": {}, **usual, **functions}

    def written(part: re.Match[str]) -> str:
        if part["heading"] or part["default"]:
            results._default = part["default"] or ""
            return part[0]
        asked = part["table"] or part["expression"].strip()
        at = part.start("table" if part["table"] else "expression")
        place = f"{page}:{text.count(chr(10), 0, at) + 1}: {asked}"
        if not (part["table"] or part["number"]):
            raise PageError(f"{place}: stands behind no number.")
        try:
            if part["table"]:
                found = ledger_page.tables(asked) if part["kind"] == "ledger" else results._tables(asked)
                return f"{part['begin']}\n{found}\n\n{part['end']}"
            value = eval(asked, namespace)
            if not math.isfinite(value):
                raise PageError(f"the value is {value}")
            changed = value * (-1 if part["number"][0] == "-" else 1) < -0.05
            if changed and not asked.endswith((".low", ".high")):
                raise PageError(f"{part['number']} becomes {value:+.3g}: read the sentence, and give it that sign")
        except Exception as error:  # whatever an expression raises
            raise PageError(f"{place}: {type(error).__name__}: {error}.") from error
        return f"{styled(value, part['number'], part['relation'] or '')}<!--={part['expression']}-->"

    results._default = ""
    return PART.sub(written, text)


def main() -> None:
    """Rewrite the pages."""
    results = Results(ROOT / "results")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        new = filled(text, results, str(page.relative_to(ROOT)))
        if new != text:
            page.write_text(new, encoding="utf-8")
            print(f"{page.relative_to(ROOT)} has new numbers")


if __name__ == "__main__":
    try:
        main()
    except PageError as error:
        sys.exit(str(error))
