"""The pages are correct: programs run and print the shown output, and named objects exist."""

import ast
import importlib
import importlib.util
import re
import shlex
import warnings
from pathlib import Path

import numpy as np
import pytest
import relaxation_page
import torch

import actrelax
from actrelax.models.assumptions import PRESETS, Knobs
from actrelax.simulations import cli

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NAMES = ("first-figure", "coming-from", "tutorial", "tutorial-loops", "theory", "closed-form", "any-module", "ledger")
TESTED = [*(DOCS / f"{name}.md" for name in NAMES), *sorted((DOCS / "how-to").glob("*.md"))]
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((DOCS / "how-to").glob("*.md"))]
BLOCK = re.compile(r"^```(python|text|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
OPTIONAL = ("skorch", "lightning", "onnx", "bokeh")
"""Packages of the extras `integrations` and `view`: blocks that name one of them are left out where it is missing."""
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@pytest.fixture
def as_users_run(double_precision, tmp_path, monkeypatch):
    """Run in single precision, in a separate folder."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    with np.printoptions():  # restores options that a page changes
        yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("page", TESTED, ids=lambda page: page.stem)
def test_its_programs_print_what_stands_below_them(page, as_users_run, capsys):
    namespace: dict[str, object] = {"__name__": "__main__"}
    blocks = BLOCK.findall(page.read_text())
    assert "text" in dict(blocks)
    run = True
    for kind, block in blocks:
        if kind == "python":
            capsys.readouterr()
            needed = [package for package in OPTIONAL if package in block]
            run = all(importlib.util.find_spec(package) for package in needed)
            with warnings.catch_warnings(action="ignore" if needed else None):  # other packages have deprecations
                if run:
                    exec(compile(block, page.name, "exec"), namespace)
        elif kind == "sh":
            run = cli.main(shlex.split(block)[1:]) == cli.DONE
            assert run
        elif run:
            assert_same(capsys.readouterr().out, block)


def test_the_sites_relaxation_is_small_enough_to_send(tmp_path):
    pytest.importorskip("bokeh", reason="there is no bokeh to draw charts with")
    relaxation_page.write(tmp_path / "page.html", epochs=1)
    text = (tmp_path / "page.html").read_text()
    assert len(text) < 5e6
    assert "A relaxation of 5 images" in text


@pytest.mark.parametrize("package", OPTIONAL)
def test_programs_that_need_an_optional_package_are_run(package):
    """Or are skipped by name where it is missing: the test above leaves them out."""
    assert any(package in block for page in TESTED for kind, block in BLOCK.findall(page.read_text()))
    pytest.importorskip(package)


def test_every_python_block_is_run_by_a_test():
    """On the pages above, in test_readme.py, or, for the standalone program, in test_build.py."""
    others = {ROOT / "README.md", DOCS / "simulation.md"}
    for page in set(PAGES) - {*TESTED} - others:
        assert "```py" not in page.read_text(), page
    shown = [page for page in PAGES if re.search(r"^```py$", page.read_text(), re.MULTILINE)]
    assert shown == [DOCS / "simulation.md"]


def assert_same(printed, promised):
    """Check for the same words, and for numbers that differ only by rounding on another machine."""
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", promised)
    found, expected = ([float(number) for number in NUMBER.findall(text)] for text in (printed, promised))
    assert found == pytest.approx(expected, rel=0.05), printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_links_lead_somewhere(page):
    """Links point to existing files and headings, as on GitHub."""
    lost = []
    for target in re.findall(r"\]\(([^)]+)\)", re.sub(BLOCK, "", page.read_text())):
        place, _, anchor = target.partition("#")
        path = (page.parent / place) if place else page
        if "://" not in target and (not path.exists() or (anchor and anchor not in anchors(path))):
            lost.append(target)
    assert lost == []


def anchors(page):
    """Return GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.M), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_reference_has_every_public_name():
    listed = re.findall(r"^(?:   |\.\. data:: )([\w.]+)$", (DOCS / "reference.rst").read_text(), re.MULTILINE)
    assert sorted(name for name in listed if "." not in name) == sorted(actrelax.__all__)
    for name in listed:
        if "." in name:
            importlib.import_module(f"actrelax.{name}")


def test_every_assumption_is_explained():
    page = (DOCS / "assumptions.md").read_text()
    headings = re.findall(r"^## `(\w+)`", page, re.MULTILINE)
    assert headings == list(vars(Knobs()))
    assert set(PRESETS) - {"ar"} <= presets_named(page)
    rows = re.findall(r"^\| (`.+?) \| .+ \|$", page.partition("## The knobs and the presets")[2], re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == set(PRESETS) | set(vars(Knobs()))


def presets_named(page):
    """Return the presets that lines list; "`learned-feedback` (`-dense`, `-conv`)" means three."""
    named: set[str] = set()
    for line in re.findall(r"^\*Presets? (.+?)\*$", page, re.MULTILINE | re.DOTALL):
        for name, endings in re.findall(r"`([a-z][\w-]*)`(?: \([^)]*?((?:`-\w+`(?:, )?)+)\))?", line):
            named |= {name, *(name + ending for ending in re.findall(r"`(-\w+)`", endings))}
    return named


def test_every_message_that_is_explained_is_one_of_ours():
    lines = re.findall(r"^> (.+)$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    quoted = [re.sub(r"^(`+) ?(.*?) ?\1$", r"\2", line) for line in lines]
    assert len(quoted) > 30
    files = [file for folder in ("models", "simulations", "analysis") for file in (ROOT / folder).rglob("*.py")]
    ours = {text for file in files for node in ast.walk(ast.parse(file.read_text())) if (text := message(node))}
    assert [sentence for sentence in quoted if sentence not in ours] == []


def message(node):
    """Return a message, with an ellipsis for each inserted value."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


SCRIPTS = [
    script
    for folder in ("examples", "studies")
    for script in (ROOT / "simulations" / folder).glob("*.py")
    if "__main__" in script.read_text()
]


@pytest.fixture
def site(monkeypatch):
    """Return the modules that docs/conf.py uses."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("from_repository"), importlib.import_module("plain_text")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_script_is_a_page_of_the_gallery(script, site):
    """The page begins with a title, the code of the script is unchanged, and options come from sys.argv."""
    source = script.read_text()
    page = site[0].with_title(source, run=True, shown=[])
    title, line, empty, text = ast.get_docstring(ast.parse(page)).split("\n", 3)
    assert source.startswith(f'"""{title}')
    assert line == "=" * len(title) > ""
    assert (empty, bool(text)) == ("", True)
    assert page.endswith(source.split('"""', 2)[2])
    assert source.endswith('if __name__ == "__main__":\n    import tyro\n\n    tyro.cli(main)\n')


LONG = '''"""A title: and more |x|.

    x' = -x

Takes 20 minutes.

The last line on screen:  a * b
"""

import x
'''


def test_a_script_that_is_not_run_shows_what_it_promises(site):
    from_repository, _ = site
    assert [from_repository.is_run(LONG, which) for which in ("none", "quick", "all")] == [False, False, True]
    assert from_repository.is_run(LONG.replace("20 minutes", "a minute"), "quick")
    page = from_repository.with_title(LONG, run=False, shown=["/figures/findings/x.png"])
    assert page == (
        'r"""A title\n=======\n\nAnd more \\|x\\|.\n\n.. code-block:: none\n\n    x\' = -x\n\nTakes 20 minutes.\n\n'
        "It prints\n\n.. code-block:: none\n\n    a * b\n\n.. image:: /figures/findings/x.png\n"
        '"""\n\n# sphinx_gallery_thumbnail_path = \'figures/findings/x.png\'\n\nimport x\n'
    )
    assert "a * b" not in from_repository.with_title(LONG, run=True, shown=[])


def test_the_gallery_begins_with_what_to_read_first(site):
    files = ["delays.py", "unfrozen.py", "from_scratch.py"]
    assert sorted(files, key=site[0].reading_order) == ["from_scratch.py", "delays.py", "unfrozen.py"]
    assert site[0].reading_order(Path("folder/from_scratch.py")) == site[0].reading_order("from_scratch.py")


def test_docstrings_keep_their_shape(site):
    _, plain_text = site
    assert plain_text.as_rst("|x| of `solve` and `step_`, (batch, *shape) (THEORY.md 1)") == (
        r"\|x\| of :py:obj:`~actrelax.solve` and ``step_``, (batch, \*shape) (:doc:`theory </theory>`, section 1)"
    )
    assert plain_text.as_rst("Steps (docs/theory.md).") == "Steps (:doc:`theory </theory>`)."
    assert plain_text.as_rst("name   its *key*\nother  `x`,\n       and y") == (
        "name\n    its \\*key\\*\nother\n    ``x``, and y"
    )
    assert plain_text.as_rst("The ODE  dx/dt = -x") == "The ODE  dx/dt = -x"
    text = "(a=1, b=Assumptions(dense=Knobs(x='y'), conv=Knobs()), c=f(), d=<factory>)"
    short = "(a=1, b=Assumptions(...), c=f(), d=<factory>)"
    assert plain_text.signature(None, "class", "", None, None, text, None) == (short, None)
    sections = "Title.\n\nExamples\n--------\n>>> 2 * x_\n'|*|'"
    assert plain_text.as_rst(sections) == sections


def test_links_that_leave_the_folder_lead_to_pages_of_the_site(site):
    source = ["[b](../../simulations/examples) [s](../simulations/studies/x.py) [c](../CONTRIBUTING.md#x) [d](e.md)"]
    site[0].links_inside(None, "page", source)
    assert source == [
        "[b](/generated/gallery/examples/index) "
        "[s](/generated/gallery/studies/x) [c](/generated/CONTRIBUTING.md#x) [d](e.md)"
    ]


PLACEHOLDERS = {"SEED": "0", "RULE": "backprop", "DATASET": "mnist", "SUITE": "smoke", "$SLURM_ARRAY_TASK_ID": "0"}


def commands(page):
    """Return the `actrelax` commands of a page, without comments and redirections."""
    lines = re.sub(r"\\\n\s+", "", page.read_text()).splitlines()
    shown = [re.split(r" +[#>] ", line)[0].split() for line in lines if re.match(r"(    |\w+ )*actrelax [a-z]", line)]
    return [words[words.index("actrelax") + 1 :] for words in shown if words[0] == "actrelax"]


def test_its_commands_are_understood(monkeypatch):
    """Commands are parsed, but not run."""
    understood = []
    for name in cli.SIMULATIONS:
        module = importlib.import_module(f"actrelax.simulations.{name}")
        monkeypatch.setattr(module, "main", understood.append)
    shown = [command for page in PAGES for command in commands(page)]
    shown = [command for command in shown if not {"--help", "--resume"} & {*command}]  # these runs don't exist
    filled = [[PLACEHOLDERS.get(word, word) for word in command] for command in shown]
    assert len(shown) > 40
    assert [command for command in filled if not is_understood(command)] == []
    assert len(understood) == len(filled)


def is_understood(command):
    try:
        return cli.main(command) == cli.DONE
    except SystemExit:
        return False


def test_its_targets_scripts_and_modules_are_there():
    """Of `make TARGET`, `python FILE` and `python -m MODULE`, in lines of their own and within sentences."""
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shown = "\n".join(page.read_text() for page in [*PAGES, ROOT / "CONTRIBUTING.md"])
    made = set(re.findall(r"(?:^    |`)make ([a-z]+)", shown, re.MULTILINE))
    assert {"demo", "test", "docs"} <= made <= set(targets)
    scripts = set(re.findall(r"python ((?:simulations|benchmarks|docs|tests)/[\w/]+\.py)", shown)) - {
        "simulations/NAME.py"
    }
    assert len(scripts) > 20
    assert [script for script in scripts if not (ROOT / script).is_file()] == []
    for module in set(re.findall(r"-m (actrelax[\w.]+\w)", shown)) - {"actrelax.simulations.NAME"}:
        assert importlib.util.find_spec(module), module
