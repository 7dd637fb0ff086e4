"""An animation shows activities and gradients, frame by frame."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.studies.animation import Film, contact_sheet, movie, scene, strip

TIMES = (0.0, 1.0, 2.0)


@pytest.fixture
def film():
    """Return an animation of two populations that reach their gradients in two steps."""
    generator = np.random.default_rng(0)
    goals = {"conv1": generator.normal(size=(3, 4, 5)), "hidden1": generator.normal(size=7)}
    first = {name: 5 * generator.normal(size=x.shape) for name, x in goals.items()}
    activities = {n: np.stack([first[n], (first[n] + goals[n]) / 2, goals[n]]) for n in goals}
    errors = {"conv1": [1.0, 0.5, 0.1], "hidden1": [0.5, 0.1, 0.01]}
    return Film(generator.random((1, 6, 6)), TIMES, activities, goals, errors)


def test_contact_sheets_keep_every_map_and_put_nan_between():
    x = np.arange(5 * 2 * 3.0).reshape(5, 2, 3)
    sheet = contact_sheet(x)
    assert sheet.shape == (3 * 2 + 2, 2 * 3 + 1)
    assert np.array_equal(sheet[:2, :3], x[0])
    assert np.array_equal(sheet[3:5, 4:], x[3])
    assert np.isnan(sheet[2]).all()
    assert np.isnan(sheet[:, 3]).all()
    assert sorted(sheet[~np.isnan(sheet)]) == list(range(30))


def test_units_fill_a_sheet():
    assert np.array_equal(contact_sheet(np.arange(6.0)), [[0, 1, 2], [3, 4, 5]])
    assert contact_sheet(np.zeros(120)).shape == (10, 12)
    assert contact_sheet(np.zeros(7)).shape == (3, 3)


def test_the_scene_shows_a_frame(film):
    figure, show = scene(film)
    images = show(0)
    assert [image.norm.vmin for image in images] == [-1, -1]
    for frame in (2, 1):
        for image, name in zip(show(frame), film.activities, strict=True):
            expected = contact_sheet(film.activities[name][frame])
            assert np.array_equal(image.get_array().filled(np.nan), expected, equal_nan=True)
        said = [text.get_text() for ax in figure.axes for text in ax.texts]
        assert f"t = {TIMES[frame]:.1f} tau" in said
    # at the end the upper row equals the lower one
    show(2)
    above, below = ([ax.images[0] for ax in figure.axes if ax.images][i] for i in (1, 3))
    assert np.array_equal(above.get_array().filled(9), below.get_array().filled(9))


def test_a_movie_has_its_frames(film, tmp_path):
    movie(tmp_path / "new" / "movie.gif", film, [0, 1, 2], dpi=40)
    with Image.open(tmp_path / "new" / "movie.gif") as moving:
        assert (moving.format, moving.n_frames, moving.info["loop"]) == ("GIF", 3, 0)
        shown = []
        for i in range(3):
            moving.seek(i)
            shown.append((moving.info["duration"], np.asarray(moving.convert("RGB"), dtype=float)))
    assert [duration for duration, _ in shown] == [100, 100, 2000]
    assert min(np.abs(a - b).max() for (_, a), (_, b) in pairwise(shown)) > 100
    (tmp_path / "file").write_text("")
    with pytest.raises(ActrelaxError, match=r"^can't write to "):
        movie(tmp_path / "file" / "movie.gif", film, [0], dpi=20)


def test_a_strip_is_drawn(film, tmp_path):
    strip(tmp_path / "strip.png", film, [0, 2])
    with Image.open(tmp_path / "strip.png") as still:
        assert still.size == (910, 480)  # 3 columns of 1.15 inches and 1.1, 2 rows of 1.1 and 0.2, at 200 dpi
