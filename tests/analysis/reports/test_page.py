"""A report is a valid HTML file for any content."""

import base64

import pytest
from pages import Read

from actrelax.analysis import figures
from actrelax.analysis.reports import page as pages
from actrelax.analysis.reports.page import Page, Picture, Section
from actrelax.analysis.tables import Table
from actrelax.models.errors import ActrelaxError

NASTY = "<script>alert('&amp;')</script> \"a\" & b"
"""Text that must be shown unchanged, and not executed."""


@pytest.fixture
def png(tmp_path):
    with figures.saved(tmp_path / "figure.png", columns=2) as (_, (ax, _)):
        ax.plot([0, 1])
    return tmp_path / "figure.png"


def test_everything_is_escaped(png):
    table = Table(NASTY, ["run", NASTY], [[NASTY, NASTY]], [False, False])
    section = Section(NASTY, [NASTY], [table], [NASTY], [Picture.read(png, NASTY, NASTY)], NASTY)
    page = Read(pages.html(Page(NASTY, [NASTY], [section])))
    assert page.needs_nothing_else()
    assert "script" not in page.tags
    assert page.words.count(NASTY) == 12  # title twice, lead, heading, paragraph, table 4, note, caption, code
    assert page.tables == {NASTY: {NASTY: {"run": NASTY, NASTY: NASTY}}}
    assert page.images[0]["alt"] == NASTY
    assert ("div", "aria-label", NASTY) in page.attributes


def test_a_picture_is_in_the_page(png):
    picture = Picture.read(png, "a line", "A line.")
    page = Read(pages.html(Page("t", [], [Section("s", pictures=[picture])])))
    (image,) = page.images
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == png.read_bytes()
    assert (image["width"], image["height"]) == ("1680", "640")  # 8.4 x 3.2 inches at 200 dpi
    assert ("figure", "class", "wide") in page.attributes


def test_what_is_no_picture(tmp_path):
    with pytest.raises(ActrelaxError, match=r"^can't read .*nix\.png: No such file or directory\.$"):
        Picture.read(tmp_path / "nix.png", "", "")
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(
        ActrelaxError, match=r"text\.png is not a PNG file, or is damaged: give a file that ends in \.png\.$"
    ):
        Picture.read(tmp_path / "text.png", "", "")


def test_folded_sections_are_opened_without_a_script():
    page = Read(pages.html(Page("t", [], [Section("more", code="x < y", folded=True), Section("plain")])))
    assert (page.tags.count("details"), page.tags.count("summary"), page.tags.count("h2")) == (1, 1, 1)
    assert "x < y" in page.words


def test_numbers_stand_to_the_right_and_the_best_are_bold():
    rows = [["a", "1.5", "yes", "", "2"], ["b", "<0.001", "3", "", "**+3**"]]
    table = Table("t", ["run", "number", "mixed", "empty", "best"], rows, [False, True, False, False, True])
    text = pages.html(Page("t", [], [Section("s", tables=[table])]))
    assert '<td class="number"><strong>+3</strong></td>' in text
    assert '<td class="number">&lt;0.001</td>' in text
    assert text.count('class="number"') == 6  # two heads, four cells


def test_a_report_reads_everywhere():
    """A report declares its language, and has styles for phones, dark mode and print."""
    text = pages.html(Page("t", [], []))
    page = Read(text)
    assert text.startswith("<!doctype html>")
    assert ("html", "lang", "en") in page.attributes
    assert ("meta", "content", "width=device-width, initial-scale=1") in page.attributes
    for wanted in ("prefers-color-scheme: dark", "@media print", "overflow-x: auto", "max-width: 100%"):
        assert wanted in text


def test_an_old_report_stays_where_a_new_one_can_not_be_written(tmp_path):
    pages.write(tmp_path / "new" / "report.html", Page("first", [], []))
    assert "<h1>first</h1>" in (tmp_path / "new" / "report.html").read_text()
    with pytest.raises(ActrelaxError, match=r"^can't write to "):
        pages.write(tmp_path / "new" / "report.html" / "report.html", Page("second", [], []))
    assert "<h1>first</h1>" in (tmp_path / "new" / "report.html").read_text()
