"""Style and files of all figures, readable in print and without colour vision."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Literal

from cycler import cycler
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from actrelax.analysis.files import replacing
from actrelax.models._names import known

# Okabe and Ito's palette (jfly.uni-koeln.de/color); the line styles distinguish curves in greyscale
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
STYLES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]

_STYLE = {
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=COLOURS, linestyle=STYLES),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.dpi": 200,
}


LEGEND = 1.8
"""Width of a legend beside the panels, in inches."""

ROW = 0.2
"""Height of one row of a legend below the panels, in inches."""


class NotebookFigure(Figure):
    """Figure that a notebook displays as a cell's last value, without pyplot."""

    def _repr_png_(self) -> bytes:
        with styled(), BytesIO() as file:
            self.savefig(file, format="png")
            return file.getvalue()


@contextmanager
def saved(
    path: str | Path, columns: int = 1, legend: bool | Literal["below"] = False, also: Sequence[str] = ()
) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    """Open a figure with a row of panels, in the project's style, and write it to `path` after the `with` block.

    Yields the figure, which a notebook displays as a cell's last value, and its panels.

    `legend` adds one legend for all panels, beside them or below, with the lines of the last panel. The suffix of
    `path` decides the format; `also` lists the suffixes of further files of the figure, such as ".pdf".

    Raises
    ------
    ActrelaxError
        For a suffix that is no format, before the `with` block runs, and if a file can't be written.
    """
    with written(path, (4.2 * columns + (LEGEND if legend is True else 0), 3.2), also) as figure:
        axes = figure.subplots(1, columns, squeeze=False)[0]
        yield figure, list(axes)
        if legend:
            _add_legend(figure, axes[-1], below=legend == "below")


@contextmanager
def written(path: str | Path, size: tuple[float, float], also: Sequence[str] = ()) -> Iterator[Figure]:
    """Open an empty figure with a size in inches, and write it after the `with` block, as `saved` does."""
    path = Path(path)
    formats = [f".{name}" for name in sorted(FigureCanvasBase.get_supported_filetypes())]
    for suffix in (path.suffix, *also):  # now, before anything is drawn or written
        known("suffix of a figure", suffix.lower(), formats)
    with styled():
        figure = NotebookFigure(figsize=size)
        yield figure
        for place in (path, *(path.with_suffix(suffix) for suffix in also)):
            with replacing(place) as file:
                figure.savefig(file, format=place.suffix[1:])


@contextmanager
def styled() -> Iterator[None]:
    """Use the project's style inside the `with` block."""
    with rc_context(_STYLE):  # type: ignore[arg-type]
        yield


def _add_legend(figure: Figure, ax: Axes, *, below: bool) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if not below:
        figure.legend(handles, labels, loc="outside right center")
        return
    columns = 1 if max(map(len, labels), default=0) > 28 else 2
    figure.set_figheight(figure.get_figheight() + ROW * math.ceil(len(labels) / columns))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
