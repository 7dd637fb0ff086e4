"""Numbers in the pages come from results/, and change with them."""

import json
import re

import fill_numbers
import pytest
from committed import RESULTS, skip_under_way
from scipy import stats

from actrelax.analysis.reports import results_table, suite_report
from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.runs import State
from actrelax.simulations.suites import report
from actrelax.simulations.suites.definitions import SUITES

ACCURACIES = {
    "backprop": [50.0, 52.0, 51.0],
    "AR": [50.1, 52.1, 50.9],
    "simplified": [40.0, 41.5, 41.4],
    "random feedback": [30.0, None, 32.0],
}


def outcome(condition, seed, accuracy, variant=""):
    """Return a run of five epochs, the last four points above the first; None means that it diverged in the second."""
    final = (accuracy or 20) / 100
    curve = [0.1, *[final - 0.02] * 3, final, final + 0.02]
    angles = [90.0, *[20.0] * 4, 10.0 + seed]
    curves = {"epoch": [*range(6)], "train_accuracy": curve, "test_accuracy": curve, "angle": angles}
    if accuracy is None:
        curves = {column: values[:2] for column, values in curves.items()}
    state = State.DIVERGED if accuracy is None else State.FINISHED
    return Outcome(variant, condition, seed, f"{variant}{condition}{seed}", state, "", 90.0, curves)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with results of a suite, of a suite with two variants, and of a study."""
    folder = tmp_path_factory.mktemp("root") / "results"
    for suite, variants in (("smoke", [""]), ("mlp-mnist", ["tanh", "relu"])):
        runs = [outcome(c, n, a, v) for v in variants for c, found in ACCURACIES.items() for n, a in enumerate(found)]
        results_table.write(folder / suite, runs)
        suite_report.write_document(folder / suite, report.document(suite, SUITES[suite], runs, "actrelax reproduce"))
    (folder / "studies").mkdir()
    (folder / "studies" / "noise.json").write_text(json.dumps({"sigma": [0.25, 1500]}))
    return folder


DIFFERENCES = [s - b for s, b in zip(ACCURACIES["simplified"], ACCURACIES["backprop"], strict=True)]
LOW, HIGH = stats.t.interval(1 - 0.05 / 2, 2, sum(DIFFERENCES) / 3, stats.sem(DIFFERENCES))
LEVEL = 2 * stats.ttest_1samp(DIFFERENCES, 0).pvalue  # the smaller of two
EQUIVALENCE, WITHIN_ERRORS = (  # AR minus backprop is tested alone; backprop makes 49 % errors
    stats.ttest_1samp([0.1, 0.1, -0.1], margin, alternative="less").pvalue for margin in (1, 4.9)
)


@pytest.mark.parametrize(
    ("old", "expression", "new"),
    [
        ("9.0", 'accuracy("smoke", "backprop")', "51.0"),
        ("9", 'accuracy("smoke", "backprop")', "51"),
        ("9.00", 'accuracy("smoke", "random feedback")', "31.00"),
        ("9.0", 'accuracy("smoke", "backprop", epoch=-1)', "53.0"),
        ("9.0", 'train("smoke", "backprop")', "51.0"),
        ("9.0", 'train("smoke", "backprop", epoch=1)', "49.0"),
        ("9.0", 'angle("smoke", "AR")', "11.0"),
        ("9.00", 'seed("smoke", "AR", 2)', "50.90"),
        ("9.00", 'seed("smoke", "AR", 2, epoch=-1)', "52.90"),
        ("+9.00", 'gap("smoke", "AR")', "+0.03"),
        ("-9.00", 'gap("smoke", "simplified")', "-10.03"),
        ("9.00", '-gap("smoke", "simplified", "AR")', "10.07"),
        ("+9.00", 'accuracy("smoke", "AR", epoch=0) - accuracy("smoke", "AR", epoch=0)', "+0.00"),
        ("-9.00 to +9.00", None, f"{LOW:+.2f} to {HIGH:+.2f}"),
        ("p = 9.000", 'p("smoke", "simplified")', f"p = {LEVEL:.3f}"),
        ("p < 9.000", 'p("smoke", "simplified")', f"p = {LEVEL:.3f}"),
        ("p = 9.00", 'p("smoke", "simplified")', "p < 0.01"),
        ("9.00", 'p("smoke", "simplified")', "<0.01"),
        ("<9.000", 'p("smoke", "simplified")', f"{LEVEL:.3f}"),
        ("9.0000", 'pe("smoke", "AR")', f"{EQUIVALENCE:.4f}"),
        ("9.00000", 'pr("smoke", "AR")', f"{WITHIN_ERRORS:.5f}"),
        ("9.00", 'margin("smoke")', "4.90"),
        ("9.00", 'margin("mlp-mnist/tanh")', "4.90"),
        ("9", 'runs("mlp-mnist")', "24"),
        ("9", 'runs("mlp-mnist/tanh")', "12"),
        ("9", 'runs("smoke", "AR")', "3"),
        ("9", 'epochs("smoke")', "5"),
        ("9", 'minutes("smoke")', "18"),
        ("9", 'diverged("mlp-mnist", "random feedback")', "2"),
        ("9", 'diverged_in("smoke")[0]', "2"),
        ("9.00", 'study("noise", "sigma", 0)', "0.25"),
        ("9,000", 'study("noise", "sigma", 1)', "1,500"),
        ("9", 'study("noise", "sigma", 1)', "1500"),
        ("9.0e-9", 'study("noise", "sigma", 1) * 1e-18', "1.5e-15"),
        ("1e9", 'study("noise", "sigma", 1)', "2e3"),
    ],
)
def test_a_number_becomes_that_of_the_results_in_the_style_it_had(folder, old, expression, new):
    mark = '{}<!--=gap("smoke", "simplified").{}-->'
    if expression is None:
        old = " to ".join(mark.format(n, side) for n, side in zip(old.split(" to "), ("low", "high"), strict=True))
        new = " to ".join(mark.format(n, side) for n, side in zip(new.split(" to "), ("low", "high"), strict=True))
    else:
        old, new = (f"{number}<!--={expression}-->" for number in (old, new))
    results = fill_numbers.Results(folder)
    filled = fill_numbers.filled(f"# Title\n\nIt is ({old} %), 9.9 times.\n", results)
    assert filled == f"# Title\n\nIt is ({new} %), 9.9 times.\n"
    assert fill_numbers.filled(filled, results) == filled


def test_the_suite_can_be_left_out_up_to_the_next_heading(folder):
    page = """\
<!-- numbers: suite = smoke -->
0.0<!--=accuracy("AR")-->, -0.0<!--=gap("simplified", "AR")--> and 0<!--=runs()-->
<!-- numbers: suite = mlp-mnist -->
0.0<!--=seed("/tanh", "AR", 1)-->, 0.0<!--=accuracy("smoke", "AR")--> and 0<!--=runs()-->
## Next
"""
    assert (
        fill_numbers.filled(page, fill_numbers.Results(folder))
        == """\
<!-- numbers: suite = smoke -->
51.0<!--=accuracy("AR")-->, -10.1<!--=gap("simplified", "AR")--> and 12<!--=runs()-->
<!-- numbers: suite = mlp-mnist -->
52.1<!--=seed("/tanh", "AR", 1)-->, 51.0<!--=accuracy("smoke", "AR")--> and 24<!--=runs()-->
## Next
"""
    )
    with pytest.raises(fill_numbers.PageError, match=r"p\.md:6: runs\(\): PageError: no suite"):
        fill_numbers.filled(f"{page}1<!--=runs()-->", fill_numbers.Results(folder), "p.md")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('+1.00<!--=gap("smoke", "simplified")-->', "+1.00 becomes -10: read the sentence, and give it that sign"),
        ('1.00<!--=gap("smoke", "simplified")-->', "1.00 becomes -10: read the sentence, and give it that sign"),
        ('1<!--=accuracy("smok", "AR")-->', 'p.md:3: accuracy("smok", "AR"): PageError: no suite smok'),
        ('1<!--=accuracy("smoke", "ARR")-->', "PageError: smoke has no ARR, but backprop, AR, simplified, "),
        ('1<!--=accuracy("mlp-mnist", "AR")-->', "PageError: name one of relu AR, tanh AR"),
        ('1<!--=gap("mlp-mnist", "AR")-->', "PageError: name one of relu AR, tanh AR"),
        (
            '1<!--=gap("smoke", "AR", "simplified")-->',
            "AR is not compared with simplified, but with backprop.",
        ),
        ('1<!--=p("smoke", "backprop")-->', "backprop is not compared with backprop, but with none"),
        ('1<!--=study("nois", "sigma")-->', "FileNotFoundError: "),
        ('1<!--=study("noise", "eta")-->', "KeyError: 'eta'"),
        ('about <!--=runs("smoke")-->', 'p.md:3: runs("smoke"): stands behind no number'),
        ('1<!--=float("nan")-->', "NameError"),
        ("1<!--=1e999-->", "PageError: the value is inf"),
    ],
)
def test_what_can_not_be_computed_is_named_with_its_page_and_line(folder, text, message):
    with pytest.raises(fill_numbers.PageError) as caught:
        fill_numbers.filled(f"# Title\n\n{text}\n", fill_numbers.Results(folder), "p.md")
    assert message in str(caught.value)
    assert str(caught.value).startswith("p.md:3: ")


def test_tables_are_those_of_the_suite(folder):
    page = "## mlp-mnist\n\n<!-- table: mlp-mnist -->\nold\n## old\n<!-- end -->\n\n<!-- table: {} -->\n<!-- end -->\n"
    results = fill_numbers.Results(folder)
    filled = fill_numbers.filled(page.format("mlp-mnist/relu"), results)
    assert re.findall("^#.*|^<!.*|^ +act.*", filled, re.MULTILINE) == [
        "## mlp-mnist",
        "<!-- table: mlp-mnist -->",
        "    actrelax reproduce",
        "### tanh",
        "### relu",
        "<!-- end -->",
        "<!-- table: mlp-mnist/relu -->",
        "<!-- end -->",
    ]
    assert len(re.findall(r"^\| backprop .*51\.0 \(", filled, re.MULTILINE)) == 3
    assert fill_numbers.filled(filled, results) == filled
    with pytest.raises(fill_numbers.PageError, match=r"p\.md:8: smok: ActrelaxError: .*smok holds no suite's results"):
        fill_numbers.filled(page.format("smok"), results, "p.md")


def test_the_program_rewrites_the_pages(folder, monkeypatch, capsys):
    pages = [folder.parent / name for name in ("old.md", "new.md")]
    for page, number in zip(pages, (12, 7), strict=True):
        page.write_text(f'{number}<!--=runs("smoke")--> runs')
    monkeypatch.setattr(fill_numbers, "ROOT", folder.parent)
    monkeypatch.setattr(fill_numbers, "PAGES", pages)
    fill_numbers.main()
    assert [page.read_text() for page in pages] == ['12<!--=runs("smoke")--> runs'] * 2
    assert capsys.readouterr().out == "new.md has new numbers\n"


COMMITTED = fill_numbers.Results(RESULTS)


@pytest.mark.parametrize("page", fill_numbers.PAGES, ids=lambda page: page.stem)
def test_the_pages_have_the_numbers_of_the_results(page):
    skip_under_way()
    text = page.read_text(encoding="utf-8")
    assert fill_numbers.filled(text, COMMITTED, page.name) == text


PAGES = {page.stem: page.read_text(encoding="utf-8") for page in fill_numbers.PAGES}
BY_HAND = {
    "reproduction": {"0.4", "0.5", "24.8", "0.05"},
    "assumptions": {"96.3", "98.7", "0.1", "0.5"},
    "training": set(),
    "findings": {
        "0.0001",
        "0.00025",
        "0.0003",
        "0.0005",
        "0.003",
        "0.01",
        "0.02",
        "0.05",
        "0.1",
        "0.3",
        "0.4",
        "0.5",
        "0.9",
        "0.99",
        "1.1",
        "1.2",
        "1.4",
        "1.5",
        "1.6",
    },
}
"""Page -> decimals that are not results of suites, such as settings, test levels and others' results."""


@pytest.mark.parametrize(
    ("page", "after", "least"),
    [
        ("reproduction", "## What can be lifted", 200),
        ("findings", "", 70),
        ("assumptions", "", 40),
        ("training", "## Results", 25),
    ],
)
def test_no_number_of_a_result_is_written_by_hand(page, after, least):
    text = PAGES[page].partition(after)[2] if after else PAGES[page]
    assert text.count("<!--=") > least
    text = fill_numbers.PART.sub("#", text)
    prose = re.sub(r"^    .*$|\]\([^)]*\)", "", text, flags=re.MULTILINE)  # without commands and links
    assert set(re.findall(r"\d+\.\d+", prose)) == BY_HAND[page]


def test_every_suite_has_its_tables():
    suites = {path.parent.name for path in RESULTS.glob("*/table.json")}
    assert set(re.findall(r"^## (.+)\n\n<!-- table: \1 -->$", PAGES["tables"], re.MULTILINE)) == suites
    assert set(re.findall(r"tables\.md#([\w-]+)", PAGES["reproduction"])) == suites
