"""The site: `make docs` builds it into docs/_build/html. Needs the extra `docs`, and nothing from the network."""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))

import from_repository  # noqa: E402  (beside this file)
import plain_text  # noqa: E402
import relaxation_page  # noqa: E402

import actrelax  # noqa: E402

project = "actrelax"
copyright = "The actrelax developers. MIT license"  # noqa: A001
version = release = actrelax.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline",
]
# examples.md shows on GitHub what the gallery shows here
exclude_patterns = ["_build", "examples.md"]

html_theme = "furo"
html_title = f"actrelax {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
# docs/how-to/explore.md links to it
relaxation_page.write(DOCS / "generated" / "pages" / "relaxation.html")
html_extra_path = ["generated/pages"]
html_theme_options = {"navigation_with_keys": True}
highlight_language = "none"  # what is Python says so
copybutton_exclude = ".linenos, .gp, .go"
suppress_warnings = ["config.cache"]  # the gallery's options hold no functions that matter between builds

# pages
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_fence_as_directive = ["math"]  # as GitHub has it
myst_heading_anchors = 3

# reference: references within actrelax must be found; types of arguments in words are no references
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!actrelax\.).*")]
autodoc_typehints = "none"  # in the docstrings
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
autosummary_generate = True
autosummary_context = {"public": actrelax.__all__}  # those have pages of their own
templates_path = ["_templates"]
napoleon_google_docstring = False
napoleon_use_param = False  # "dt, eta : float" is one entry
napoleon_use_rtype = False

# gallery: every script that takes a minute at most is run; with GALLERY=all all are, with GALLERY=none none
to_run = from_repository.copy_scripts(DOCS, os.environ.get("GALLERY", "quick"))
sphinx_gallery_conf = {
    "examples_dirs": [str(DOCS / from_repository.COPIES / name) for name in from_repository.GALLERIES],
    "gallery_dirs": [f"generated/gallery/{name}" for name in from_repository.GALLERIES],
    "filename_pattern": to_run,
    "image_scrapers": ("from_repository.figures_written",),
    "reset_modules": (),
    "within_subsection_order": "from_repository.reading_order",
    "download_all_examples": False,
    "thumbnail_size": (800, 320),
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
    "show_signature": False,
    "first_notebook_cell": from_repository.FIRST_CELL,
    "last_notebook_cell": from_repository.LAST_CELL,
    "only_warn_on_example_error": False,
    "abort_on_example_error": False,
}


def setup(app):
    """Bring in what else lies outside docs/, and read docstrings as they are written."""
    from_repository.copy_pages(DOCS)
    app.connect("source-read", from_repository.links_inside)
    app.connect("autodoc-process-docstring", plain_text.docstring, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", plain_text.signature)
