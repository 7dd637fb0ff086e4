"""Docstrings are written to be read in the source: plain text, whose stars and bars are no markup.

What becomes reStructuredText here: `names` are code, indented equations and aligned columns keep their shape.
"""

import re
import textwrap

import actrelax


def docstring(app, what, name, thing, options, lines: list[str]) -> None:
    """Turn a docstring into reStructuredText, in place and before its sections are read."""
    lines[:] = as_rst("\n".join(lines)).splitlines()
    if what in ("attribute", "property", "data"):
        lines.insert(0, "\\ ")  # or what stands before a colon in the first line would be taken for its type


def signature(app, what, name, thing, options, text: str | None, returned: str | None):
    """Leave out what a default is made of: RelaxationProblem(..., assumptions=Assumptions(...))."""
    return text and re.sub(r"=(\w+)\((?:[^()]|\([^()]*\))+\)", r"=\1(...)", text), returned


def as_rst(text: str) -> str:
    """Return reStructuredText that shows a docstring's text as it stands; NumPy's sections stay for others to read.

    Parameters
    ----------
    text : str
        Without indentation of its own.
    """
    paragraphs = re.split(r"\n\s*\n", text.strip("\n"))
    section = next((i for i, block in enumerate(paragraphs) if re.search(r"^-{3,}$", block, re.MULTILINE)), None)
    prose, sections = paragraphs[:section], paragraphs[section:] if section is not None else []
    before = ["", *prose]
    return "\n\n".join([*map(_paragraph, prose, before), *map(_escaped, sections)])


def _paragraph(block: str, before: str) -> str:
    if block.startswith("    "):
        marker = "" if before.endswith("::") else ".. code-block:: none\n\n"
        return marker + textwrap.indent(textwrap.dedent(block), "    ")
    return "\n".join(f"{term}\n    {said}" for term, said in _columns(block)) or _escaped(block)


def _columns(block: str) -> list[tuple[str, str]]:
    """Return the rows of a block of two aligned columns; none if it is anything else."""
    lines = block.splitlines()
    match = re.match(r"[\w, ]*?\w {2,}(?=\S)", lines[0])
    if match is None or len(lines) == 1:
        return []
    column, rows = match.end(), list[tuple[str, str]]()
    for line in lines:
        if line[column - 1 : column] != " " or line[column : column + 1] in ("", " "):
            return []
        term, said = line[:column].strip(), _escaped(line[column:])
        rows = [*rows, (term, said)] if term else [*rows[:-1], (rows[-1][0], f"{rows[-1][1]} {said}")]
    return rows


def _escaped(block: str) -> str:
    """Keep what means something else in reStructuredText, stars, bars and a trailing underscore; names are code."""
    prose, prompt, session = re.split(r"(^\s*>>> |\Z)", block, maxsplit=1, flags=re.MULTILINE)
    prose = re.sub(r"\bdocs/([\w-]+)\.md", r":doc:`\1 </\1>`", prose)
    prose = re.sub(r"THEORY(?:\.md)?(?: section)?", ":doc:`theory </theory>`, section", prose)
    pieces = re.split(r"(:doc:`.+?`|``.+?``|`[^`]+`)", prose)
    plain = [re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", piece) for piece in pieces[::2]]
    told = "".join(text for pair in zip(plain, [*map(_name, pieces[1::2]), ""], strict=True) for text in pair)
    return told + prompt + session


def _name(piece: str) -> str:
    """Return a link to `Network`, `closed_form.predict` or a public name; other names could be anybody's."""
    name = piece.strip("`")
    if piece.startswith((":", "``")):
        return piece
    if name in actrelax.__all__:
        return f":py:obj:`~actrelax.{name}`"
    is_one = re.match(r"\w[\w.]*$", name) and ("." in name or name[0].isupper())
    return piece if is_one else f"``{name}``"
