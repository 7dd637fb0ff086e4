"""Relaxation as one self-contained HTML file, to be watched in a browser.

The page shows activities as images beside their gradients, with a slider and a play button for time, a choice of
sample, and the errors against backprop. Bokeh draws the charts, and is included in the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, FunctionLoader, StrictUndefined, Template
from torch import Tensor

from actrelax.analysis.files import write_text
from actrelax.analysis.ledger import Ledger, ledger_of
from actrelax.analysis.view.charts import charts, require_bokeh
from actrelax.analysis.view.pack import packed, text
from actrelax.analysis.view.scene import Scene, scene_of
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import Trajectory

LARGEST = 25_000_000
"""Largest size of a page in bytes; browsers load larger ones slowly, and mail programs reject them."""
FIXED = 1_310_000
"""Size of a page without a relaxation in bytes, mostly Bokeh."""
COLOURS = 255
"""Number of colours of activities and gradients, the middle one for zero: matplotlib's PuOr, readable without colour
vision."""


def to_html(
    trajectory: Trajectory,
    path: str | Path,
    gradients: Mapping[str, Tensor] | None = None,
    *,
    samples: int | None = None,
    source: str = "",
) -> None:
    """Write a recorded relaxation as one HTML file for a browser; needs the package bokeh.

    Parameters
    ----------
    trajectory : Trajectory
        Trajectory with all hidden populations recorded (``solve(..., record=True)``).
    path : str or pathlib.Path
        File to write or replace.
    gradients : mapping, optional
        Population -> (batch, *population.shape). Default: computed from the problem's clamp.
    samples : int, optional
        Number of samples to show, from the first. Default: all.
    source : str, optional
        Origin of the stimuli, shown on the page.

    Raises
    ------
    ActrelaxError
        If bokeh is missing, a hidden population was not recorded, the page would exceed 25 MB, or the file can't be
        written.

    Examples
    --------
    >>> import torch
    >>> from actrelax import RelaxationProblem, build, solve
    >>> network = build("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> problem = RelaxationProblem.from_batch(network, torch.rand(3, 64), torch.tensor([0, 1, 2]))
    >>> to_html(solve(problem, "euler", record=True), "relaxation.html")  # doctest: +SKIP
    """
    require_bokeh("a page")
    shown = samples or len(trajectory.problem.clamped)
    require_size(trajectory.problem, len(trajectory.times), shown)
    problem = trajectory.problem
    ledger = ledger_of(problem.network, problem.assumptions, problem.feedforward)
    write_text(Path(path), html(scene_of(trajectory, gradients, samples=samples), ledger, source=source))


def require_size(problem: RelaxationProblem, points: int, samples: int) -> None:
    """Raise an error if a page would be larger than `LARGEST`.

    Raises
    ------
    ActrelaxError
        If the page would be too large.
    """
    network = problem.network
    units = sum(int(np.prod(network.populations[name].shape)) for name in network.hidden)
    # two bytes per unit, four per error, four per share, in base64
    size = FIXED + 4 / 3 * samples * (2 * units * (points + 1) + 8 * points * len(network.hidden))
    if size > LARGEST:
        raise ActrelaxError(
            f"a page of {points:,} times and {samples:,} samples would have {size / 1e6:,.0f} MB, and "
            f"{LARGEST / 1e6:g} MB are allowed: show fewer times (--every, or Record(every=...)) or fewer samples "
            "(--samples)."
        )


def html(scene: Scene, ledger: Ledger, *, source: str = "") -> str:
    """Return a scene, with what learning there would use, as a complete HTML document."""
    from bokeh.embed import components
    from bokeh.resources import Resources

    script, places = components(charts())
    return template("page.html").render(
        scene=scene,
        ledger=ledger,
        source=source,
        bokeh=Resources(mode="inline", components=["bokeh"]).render_js(),
        script=script,
        places=places,
        data=as_script(packed(scene)),
        **shared(),
    )


def shared() -> dict[str, str]:
    """Return the common parts of page and app, by name: style, program and colours."""
    return {
        "style": read("viewer.css"),
        "program": read("population.js") + read("viewer.js"),
        "colours": as_script(palette()),
    }


def palette() -> str:
    """Return the colour map of activities and gradients, (COLOURS, 3) bytes in base64."""
    from matplotlib import colormaps

    return text((255 * colormaps["PuOr"](np.linspace(0, 1, COLOURS))[:, :3]).round().astype(np.uint8))


def as_script(value: Any) -> str:
    """Return a value as JSON that is safe inside a script element."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


HERE = "actrelax.analysis.view"


@cache
def template(name: str, package: str = HERE) -> Template:
    """Return a template of a package, which may include these; Jinja escapes all text not marked as safe."""
    loader = ChoiceLoader([FunctionLoader(partial(_found, each)) for each in (package, HERE)])
    return Environment(autoescape=True, undefined=StrictUndefined, loader=loader).get_template(name)


def _found(package: str, name: str) -> str | None:
    return read(name, package) if (files(package) / name).is_file() else None


def read(name: str, package: str = HERE) -> str:
    """Return a text file of a package."""
    return (files(package) / name).read_text(encoding="utf-8")
