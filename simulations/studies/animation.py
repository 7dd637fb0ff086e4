"""Animation of a relaxation for `feature_maps`: a strip of frames, or a GIF.

Activities are relative to the largest gradient of their population, so at equilibrium the upper row equals the lower
one. Colours saturate at 1: feedforward activities may be much larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from actrelax.analysis import figures
from actrelax.analysis.files import replacing
from actrelax.analysis.style import styled, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase
    from matplotlib.image import AxesImage


Array = NDArray[np.floating]

FRAME, PAUSE = 100, 2000
"""Durations of a frame and of the last frame, in milliseconds."""


@dataclass(frozen=True)
class Film:
    """Relaxation of one sample.

    stimulus    (channels, height, width) or (features,)
    times       (n,), times of the frames, in units of tau
    activities  hidden population -> (n, *population.shape), relative to its largest gradient, from the input up
    gradients   hidden population -> population.shape, relative to its largest gradient
    errors      population -> max |x - gradient| / max |gradient| at each time
    predicted   times and predicted errors, or None
    """

    stimulus: Array
    times: Sequence[float]
    activities: Mapping[str, Array]
    gradients: Mapping[str, Array]
    errors: Mapping[str, Sequence[float]]
    predicted: tuple[Sequence[float], Mapping[str, Sequence[float]]] | None = None


def contact_sheet(x: Array) -> Array:
    """Arrange channels in a nearly square sheet, separated by nan; (units,) become single pixels without gaps.

    Examples
    --------
    >>> contact_sheet(np.arange(6.0)).shape, contact_sheet(np.zeros((6, 14, 14))).shape
    ((2, 3), (29, 44))
    """
    maps, gap = (x[:, None, None], 0) if x.ndim == 1 else (x, 1)
    channels, height, width = maps.shape
    square = min(channels, math.ceil(math.sqrt(channels * height / width)))
    columns = next((c for c in range(square, 3 * square // 2) if channels % c == 0), square)  # full rows if possible
    rows = math.ceil(channels / columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    for i, one in enumerate(maps):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        sheet[top : top + height, left : left + width] = one
    return sheet


def strip(path: Path, film: Film, frames: Sequence[int]) -> None:
    """Draw frames side by side, followed by the gradients: one row per population, from the top down."""
    names = list(film.activities)[::-1]
    with written(path, (1.15 * (len(frames) + 1) + 1.1, 1.1 * len(names) + 0.2)) as figure:
        axes = figure.subplots(len(names), len(frames) + 1, squeeze=False)
        for row, name in zip(axes, names, strict=True):
            for ax, frame in zip(row, frames, strict=False):
                image = _sheet(ax, film.activities[name][frame])
            _sheet(row[-1], film.gradients[name])
            row[0].set_ylabel(name)
        for ax, frame in zip(axes[0], frames, strict=False):
            ax.set_title(f"t = {film.times[frame]:g} tau", fontsize="medium")
        axes[0][-1].set_title("gradient", fontsize="medium")
        _bar(figure, image, list(axes.flat))


def movie(path: Path, film: Film, frames: Sequence[int], *, dpi: int = 100) -> None:
    """Write frames as a looping GIF: activities above, gradients below them, errors at the bottom.

    The picture is about 7 inches wide. The file is written atomically.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: see actrelax.analysis

    with styled():
        figure, show = scene(film)
        figure.set_dpi(dpi)
        canvas = FigureCanvasAgg(figure)
        pictures = []
        for frame in frames:
            show(frame)
            canvas.draw()  # type: ignore[no-untyped-call]
            pictures.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())  # type: ignore[no-untyped-call]
    # one palette without dithering, so that unchanged pixels take no space
    palette = Image.fromarray(np.concatenate(pictures)).quantize(256, dither=Image.Dither.NONE)
    first, *others = [Image.fromarray(x).quantize(palette=palette, dither=Image.Dither.NONE) for x in pictures]
    lasting = [FRAME] * len(others) + [PAUSE]
    with replacing(path) as file:
        first.save(file, "GIF", save_all=True, append_images=others, duration=lasting, loop=0)


def scene(film: Film) -> tuple[Figure, Callable[[int], list[AxesImage]]]:
    """Return the figure of the animation, and a function that shows a frame in it."""
    from matplotlib.figure import Figure

    names = list(film.activities)
    figure = Figure(figsize=(1.25 * (len(names) + 1) + 0.8, 5.4))
    (upper,), (lower,) = figure.subfigures(2, 1, height_ratios=[1.15, 1], squeeze=False)
    axes = upper.subplots(2, len(names) + 1, squeeze=False)
    still = axes[0][0].imshow(contact_sheet(film.stimulus), cmap="gray_r", interpolation="nearest")
    still.axes.set_title("stimulus", fontsize="medium")
    _bare(axes[0][0])
    axes[1][0].axis("off")
    clock = axes[1][0].text(0.5, 0.5, "", ha="center", va="center", transform=axes[1][0].transAxes)
    images = {}
    for above, below, name in zip(axes[0][1:], axes[1][1:], names, strict=True):
        images[name] = _sheet(above, film.activities[name][0])
        _sheet(below, film.gradients[name])
        above.set_title(name, fontsize="medium")
    axes[0][1].set_ylabel("activity")
    axes[1][1].set_ylabel("gradient")
    _bar(upper, images[names[0]], list(axes.flat))
    curve = lower.subplots()
    figures.approach(curve, film.times, film.errors, film.predicted, unit="units of tau")
    now = curve.axvline(film.times[0], color="0.2", linewidth=1, linestyle="-")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # keep one layout for all frames

    def show(frame: int) -> list[AxesImage]:
        for name, image in images.items():
            image.set_data(contact_sheet(film.activities[name][frame]))
        now.set_xdata([film.times[frame]] * 2)
        clock.set_text(f"t = {film.times[frame]:.1f} tau")
        return list(images.values())

    show(0)
    return figure, show


def _sheet(ax: Axes, x: Array) -> AxesImage:
    image = ax.imshow(contact_sheet(x), cmap="PuOr", vmin=-1, vmax=1, interpolation="nearest")
    _bare(ax)
    return image


def _bare(ax: Axes) -> None:
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(False)


def _bar(figure: FigureBase, image: AxesImage, axes: Sequence[Axes]) -> None:
    bar = figure.colorbar(image, ax=axes, ticks=[-1, 0, 1], extend="both", shrink=0.7, aspect=25)
    bar.set_label("relative to the population's\nlargest gradient")
