"""Tables as files and as text."""

from actrelax.analysis.tables import Table, read_csv, write_csv

HEAD, ROWS = (
    ["condition", "accuracy (%)", "p"],
    [["AR", "97.1 (-0.2 to 1)", "<0.001"], ["a -1", "-3", ""], ["x-1", "", ""]],
)


def test_what_is_written_is_read(tmp_path):
    write_csv(tmp_path / "table.csv", HEAD, ROWS)
    assert (tmp_path / "table.csv").read_bytes().splitlines()[1] == b"AR,97.1 (-0.2 to 1),<0.001"
    assert read_csv(tmp_path / "table.csv") == [dict(zip(HEAD, row, strict=True)) for row in ROWS]


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
    assert lines[6].startswith("x-1 &")  # a name, no number
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
