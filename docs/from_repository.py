"""What the site takes from the rest of the repository: scripts as a gallery, and what stands beside the README.

The scripts stay as they are. sphinx-gallery wants a docstring in reStructuredText that begins with a title, and draws
by pyplot; ours begin with a line "Title: more.", and save their figures under runs/.
"""

import ast
import re
import shutil
from collections.abc import Container
from pathlib import Path

import plain_text

COPIES = "_build/scripts"
"""Where the gallery finds the scripts, in docs/."""

GALLERIES = {
    "examples": (
        "Examples",
        "Short scripts to copy from. Each takes seconds and prints what it measured; most draw it.",
    ),
    "studies": (
        "Studies",
        "Questions about relaxation, each answered by a script and its figure. :doc:`/findings` says what they found.",
    ),
}
"""Folder of simulations/ -> title and introduction of its gallery."""

IMAGES = (".png", ".gif")

FIRST_CELL = """\
# The script reads its options from the command line: in a notebook there are none.
import sys
import time

sys.argv[1:] = []
started = time.time()"""

LAST_CELL = """\
# The figures that it wrote.
from pathlib import Path

from IPython.display import Image, display

for figure in sorted(Path("runs").rglob("*.*")):
    if figure.suffix in (".png", ".gif") and figure.stat().st_mtime >= started:
        display(Image(figure))"""


LONG = re.compile(r"\b\d+ (?:minutes|hours)\b|\bRun .+ first\b")
"""What the docstring of a script says that is too long for every build, or needs what others leave."""


def copy_scripts(docs: Path, which: str) -> str:
    """Copy the scripts of each gallery, with a docstring that sphinx-gallery reads.

    Pages of scripts that won't be run show what they promise to print, and the figures that are committed.

    Parameters
    ----------
    docs : pathlib.Path
        The folder docs/.
    which : {"quick", "all", "none"}
        Which of them will be run: quick leaves those out whose docstring says that they take minutes or hours.

    Returns
    -------
    str
        A regular expression that finds their paths.
    """
    run = []
    for name, (title, text) in GALLERIES.items():
        target = docs / COPIES / name
        scripts = {f.name: f.read_text() for f in sorted((docs.parent / "simulations" / name).glob("*.py"))}
        scripts = {file: source for file, source in scripts.items() if '__name__ == "__main__"' in source}
        _forget_others(target, docs / "generated" / "gallery" / name, scripts)
        _write(target / "GALLERY_HEADER.rst", f"{title}\n{'=' * len(title)}\n\n{text}\n")
        for file, source in scripts.items():
            if is_run(source, which):
                run.append(f"/{name}/{file}")
                found = []
            else:
                # sphinx-gallery remembers that it ran the script, not that the page has been another since
                (docs / "generated" / "gallery" / name / f"{file}.md5").unlink(missing_ok=True)
                found = sorted((docs / "figures").glob(f"*/{Path(file).stem}.*"))
            shown = [f"/{figure.relative_to(docs).as_posix()}" for figure in found if figure.suffix in IMAGES]
            _write(target / file, with_title(source, is_run(source, which), shown))
    return f"({'|'.join(map(re.escape, run))})$" if run else "(?!)"


def reading_order(file: str | Path) -> tuple[bool, str]:
    """Sort the scripts of a gallery: what to read first, then by name."""
    name = Path(file).name
    return name != "from_scratch.py", name


def is_run(source: str, which: str) -> bool:
    """Whether a script will be run; `which` as for `copy_scripts`."""
    said = ast.get_docstring(ast.parse(source)) or ""
    return which == "all" or (which == "quick" and not LONG.search(said))


def _forget_others(copies: Path, pages: Path, scripts: Container[str]) -> None:
    """Remove what earlier builds made of scripts that are no more."""
    for old in [*copies.glob("*.py"), *pages.glob("*.*"), *pages.glob("images/**/*.*")]:
        stem = re.sub(r"^sphx_glr_|_(\d+|thumb)\.\w+$|\..*", "", old.name)
        if f"{stem}.py" not in scripts and stem not in ("index", "sg_execution_times"):
            old.unlink()


def with_title(source: str, run: bool, shown: list[str]) -> str:
    """Return a script whose docstring is a page with a title, and with these figures."""
    statement = ast.parse(source).body[0]
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Constant)
    page = as_page(statement.value.value, promise=not run) + "".join(f"\n.. image:: {path}\n" for path in shown)
    thumbnail = "".join(f"\n# sphinx_gallery_thumbnail_path = '{path[1:]}'\n" for path in shown[:1])
    rest = source.splitlines(keepends=True)[statement.end_lineno :]
    return f'r"""{page}"""\n{thumbnail}{"".join(rest)}'


def as_page(docstring: str, promise: bool) -> str:
    """Turn "Title: more.", prose and indented equations into a page with a title.

    Parameters
    ----------
    docstring : str
    promise : bool
        Keep the paragraph about the last line on screen.
    """
    first, _, others = docstring.strip("\n").partition("\n\n")
    title, colon, more = " ".join(first.split()).partition(": ")
    title = title if colon else title.removesuffix(".")
    text = f"{more[:1].upper()}{more[1:]}\n\n{others}" if more else others
    text = re.sub(r"^The last line on screen:\s+(.*)", r"It prints\n\n    \1" if promise else "", text, flags=re.M)
    return f"{title}\n{'=' * len(title)}\n\n{plain_text.as_rst(text)}\n"


def figures_written(block, variables, conf) -> str:
    """Take the figures that a script has written under runs/ into its page: an image scraper of sphinx-gallery."""
    from sphinx_gallery.scrapers import figure_rst  # all else is tested without it

    paths = []
    found = (Path(variables["src_file"]).parent / "runs").rglob("*.*")
    figures = [path for path in found if path.suffix in IMAGES]
    for written in sorted(figures, key=lambda path: (IMAGES.index(path.suffix), path)):  # what moves comes last
        path = Path(next(variables["image_path_iterator"])).with_suffix(written.suffix)
        shutil.move(written, path)
        paths.append(str(path))
    return "".join(figure_rst([path], conf["src_dir"]) for path in paths)  # one below the other


def copy_pages(docs: Path) -> None:
    """Copy what stands beside the README to generated/."""
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        _write(docs / "generated" / name, (docs.parent / name).read_text())


def _write(path: Path, text: str) -> None:
    """Write a file unless that is what it holds: Sphinx reads again what is newer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


UP = r"\]\((?:\.\./)+"
"""The beginning of a link that leaves its folder."""


def links_inside(app, name: str, source: list[str]) -> None:
    """Point links that leave docs/ on GitHub to what the site has in their place."""
    text = re.sub(UP + r"simulations/(examples|studies)\)", r"](/generated/gallery/\1/index)", source[0])
    text = re.sub(UP + r"simulations/(examples|studies)/(\w+)\.py\)", r"](/generated/gallery/\1/\2)", text)
    source[0] = re.sub(UP + r"(CONTRIBUTING|CHANGELOG)\.md", r"](/generated/\1.md", text)
