"""Tables as files and as text."""

from actrelax.analysis.tables import latex, markdown, plain, read_csv, read_markdown, write_csv

HEAD, ROWS = (
    ["condition", "accuracy (%)", "p"],
    [["AR", "97.1 (-0.2 to 1)", "<0.001"], ["a -1", "-3", ""], ["x-1", "", ""]],
)


def test_what_is_written_is_read(tmp_path):
    write_csv(tmp_path / "table.csv", HEAD, ROWS)
    assert (tmp_path / "table.csv").read_bytes().splitlines()[1] == b"AR,97.1 (-0.2 to 1),<0.001"
    assert read_csv(tmp_path / "table.csv") == [dict(zip(HEAD, row, strict=True)) for row in ROWS]


def test_markdown():
    assert markdown(HEAD, ROWS).splitlines()[2] == "| AR | 97.1 (-0.2 to 1) | <0.001 |"


def test_markdown_is_read_as_it_was_written():
    rows = [*ROWS, ["max |x|", "", "|"]]
    assert read_markdown(markdown(HEAD, rows)) == (HEAD, rows)


def test_columns_line_up_on_a_terminal():
    lines = plain(HEAD, ROWS).splitlines()
    assert lines[:2] == ["condition      accuracy (%)       p", "AR         97.1 (-0.2 to 1)  <0.001"]
    assert lines[2] == "a -1                     -3"


def test_latex_escapes_what_it_must():
    lines = latex(HEAD, ROWS).splitlines()
    assert lines[0] == r"\begin{tabular}{lrr}"
    assert lines[2] == r"condition & accuracy (\%) & p \\"
    assert lines[4:6] == [r"AR & 97.1 ($-$0.2 to 1) & $<$0.001 \\", r"a $-$1 & $-$3 &  \\"]
    assert lines[6].startswith("x-1 &")  # a name, no number
    assert lines[-1] == r"\end{tabular}"
    assert latex(["a_b", "c & d"], [["#", "%"]]).splitlines()[2:5:2] == [r"a\_b & c \& d \\", r"\# & \% \\"]
