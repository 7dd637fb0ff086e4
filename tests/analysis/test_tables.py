"""Tables as files and as text."""

import pytest

from actrelax.analysis.tables import Table, read_csv, write_csv
from actrelax.models.errors import ActrelaxError

HEAD, ROWS = (
    ["condition", "accuracy (%)", "p"],
    [["AR", "97.1 (-0.2 to 1)", "<0.001"], ["a -1", "-3", ""], ["x-1", "", ""]],
)


def test_what_is_written_is_read(tmp_path):
    write_csv(tmp_path / "table.csv", HEAD, ROWS)
    assert (tmp_path / "table.csv").read_bytes().splitlines()[1] == b"AR,97.1 (-0.2 to 1),<0.001"
    assert read_csv(tmp_path / "table.csv", HEAD, "") == [dict(zip(HEAD, row, strict=True)) for row in ROWS]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("before", ["", "\ufeff"])
def test_tables_of_spreadsheet_programs(tmp_path, delimiter, before):
    (tmp_path / "t.csv").write_text(f'{before}a{delimiter}b\r\n1{delimiter}"x,y;z"\r\n\r\n', encoding="utf-8")
    assert read_csv(tmp_path / "t.csv", ["a", "b"], "") == [{"a": "1", "b": "x,y;z"}]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no table: t.csv has no head of columns."),
        (b"a,a\n1,2\n", "no table: t.csv has no head of columns."),
        (b"b\n1\n", "no table: t.csv lacks a."),
        (b"a,b\n1\n", "no table: t.csv has 1 cells in row 1, not 2."),
        (b'a,b\n1,"2\n', "no table: t.csv can't be read."),
        (b"a\xff\n", "no table: t.csv can't be read."),
        (b"\xff\xfea\0", "no table: t.csv can't be read."),
        (b"a\n" + b"1" * 200_000, "no table: t.csv can't be read."),
    ],
)
def test_damaged_tables(tmp_path, content, sentence):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ActrelaxError) as refused:
        read_csv(tmp_path / "t.csv", ["a"], "no table")
    assert str(refused.value) == sentence


TABLE = Table("t", HEAD, ROWS, [False, True, True])


def test_markdown():
    assert TABLE.text().splitlines()[:3] == [
        "| condition   |     accuracy (%) |      p |",
        "|:------------|-----------------:|-------:|",
        "| AR          | 97.1 (-0.2 to 1) | <0.001 |",
    ]
    assert Table("", ["max |x|"], [["|"]], [False]).text().splitlines()[::2] == [r"| max \|x\|   |", r"| \|          |"]


def test_latex_escapes_what_it_must():
    lines = TABLE.text("latex").splitlines()
    assert lines[0] == r"\begin{tabular}{lrr}"
    assert lines[2] == r"condition & accuracy (\%) & p \\"
    assert lines[4:6] == [r"AR & 97.1 ($-$0.2 to 1) & $<$0.001 \\", r"a $-$1 & $-$3 &  \\"]
    assert lines[6].startswith("x-1 &")  # a name, not a number
    assert lines[-1] == r"\end{tabular}"
    special = Table("", ["a_b", "c & d"], [["#", "**5 %**"]], [False, True]).text("latex").splitlines()
    assert special[2:5:2] == [r"a\_b & c \& d \\", r"\# & \textbf{5 \%} \\"]


def test_html():
    lines = [line.strip() for line in Table("", ["a"], [["<b>"], ["**1**"]], [False]).text("html").splitlines()]
    assert {"<td>&lt;b&gt;</td>", "<td><strong>1</strong></td>"} <= set(lines)


def test_columns_of_numbers_are_known_from_their_values():
    columns = [("run", ""), ("accuracy", ".1f"), ("mixed", ""), ("empty", ""), ("span", lambda ends: f"to {max(ends)}")]
    table = Table.of("t", columns, [["1", 97.25, 3, None, [1, 5]], ["2", None, "auto", None, None]])
    assert table.rows == [["1", "97.2", "3", "", "to 5"], ["2", "", "auto", "", ""]]
    assert table.numeric == [False, True, False, False, True]
