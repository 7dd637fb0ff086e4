"""The page of a relaxation: the file by itself, and in a browser that has no network."""

import base64
import re
import sys

import numpy as np
import pytest
from browser import browser, complaints, look, requests, until

from actrelax import RelaxationProblem, build, digits, solve
from actrelax.analysis.view import page
from actrelax.analysis.view.page import palette, require_size, to_html
from actrelax.models.errors import ActrelaxError

SHOWN = ("conv1", "conv2", "hidden1")


@pytest.fixture(scope="module")
def trajectory():
    network, test = build("digits-cnn", generator=0).double(), digits().test
    problem = RelaxationProblem.from_batch(network, test.images[:3].double(), test.labels[:3])
    return solve(problem, "euler", 100, eta=0.1, record=True)


@pytest.fixture(scope="module")
def file(trajectory, tmp_path_factory):
    pytest.importorskip("bokeh", reason="there is no bokeh to draw charts with")
    path = tmp_path_factory.mktemp("page") / "new folder" / "a page.html"
    to_html(trajectory, path, source="</script><b>digits")
    return path


def test_one_small_file_without_addresses(file):
    text = file.read_text()
    assert len(text) < 5e6
    assert [file] == list(file.parent.iterdir())
    assert re.findall(r"<(?:script|link|img)[^>]*(?:src|href)\s*=\s*[\"'](?!data:)[^>]*", text) == []
    assert "&lt;/script&gt;&lt;b&gt;digits" in text
    assert "</script><b>" not in text


def test_the_page_says_what_a_weight_update_would_use(file):
    text = file.read_text()
    assert "under assumptions &#39;ar&#39;</summary>" in text
    assert "<th scope=row>conv1-&gt;conv2</th><td>no: weight transport, weight sharing</td><td>W</td>" in text
    assert "<dt>hops</dt><dd>3, from the output to conv1</dd>" in text


def test_samples_can_be_left_out(file, trajectory, tmp_path):
    trajectory.to_html(tmp_path / "one.html", samples=1)
    assert "relaxation of 1 image<" in (tmp_path / "one.html").read_text()
    assert (tmp_path / "one.html").stat().st_size < file.stat().st_size - 300_000


def test_refusals(trajectory, tmp_path, monkeypatch):
    with pytest.raises(ActrelaxError) as refused:
        require_size(trajectory.problem, 10_000, 3)
    assert str(refused.value) == (
        "a page of 10,000 times and 3 samples would have 69 MB, and 25 MB are allowed: show fewer times (--every, or "
        "Record(every=...)) or fewer samples (--samples)."
    )
    monkeypatch.setitem(sys.modules, "bokeh", None)
    with pytest.raises(ActrelaxError) as refused:
        to_html(trajectory, tmp_path / "page.html")
    assert str(refused.value) == 'a page needs the package bokeh: pip install "bokeh>=3.6".'
    assert list(tmp_path.iterdir()) == []


def test_the_size_is_known_beforehand(file, trajectory, monkeypatch):
    size = file.stat().st_size
    monkeypatch.setattr(page, "LARGEST", 1.03 * size)
    require_size(trajectory.problem, 101, 3)
    monkeypatch.setattr(page, "LARGEST", 0.97 * size)
    with pytest.raises(ActrelaxError, match="fewer samples"):
        require_size(trajectory.problem, 101, 3)


def test_colours_are_symmetric_in_lightness_and_all_different():
    colours = np.frombuffer(base64.b64decode(palette()), np.uint8).reshape(-1, 3).astype(int)
    assert len({*map(tuple, colours.tolist())}) == len(colours) == 255
    assert colours[127].min() > 240  # zero is white
    lightness = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness[:128]) >= -1).all()
    assert (np.diff(lightness[127:]) <= 1).all()


# ---- in a browser


@pytest.fixture(scope="module")
def driver(file):
    with browser() as started:
        yield started


def pixels(driver, population, what):
    """Return the values that the colours of an image stand for, relative to the scale, in the places of its units."""
    colours, columns = driver.execute_script(
        "const c = document.querySelector(`[data-population=${arguments[0]}] [data-what=${arguments[1]}]`);"
        "return [[...c.getContext('2d').getImageData(0, 0, c.width, c.height).data], c.width]",
        population,
        what,
    )
    image = np.array(colours).reshape(-1, columns, 4)
    table = np.frombuffer(base64.b64decode(palette()), np.uint8).reshape(-1, 3).astype(int)
    nearest = np.abs(image[..., None, :3] - table).sum(-1).argmin(-1)
    return (nearest - 127) / 127, image[..., 3] > 0


def test_opens_without_a_network_or_a_complaint(driver, file):
    look(driver, file.as_uri())
    assert complaints(driver) == []
    assert [url for url in requests(driver) if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_slider_moves_images_and_cursors_through_the_trajectory(driver, file, trajectory):
    from selenium.webdriver.common.keys import Keys

    look(driver, file.as_uri())
    slider = driver.find_element("id", "time")
    for presses in (0, 7, 20):
        slider.send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * presses)
        for name in SHOWN:
            found = driver.execute_script("return actrelax.values('a', arguments[0])", name)
            states = trajectory[name][:, 0].flatten(1).numpy()
            assert found["time"] == pytest.approx(0.1 * presses)
            assert found["activity"] == pytest.approx(states[presses], abs=0.001 * np.abs(states).max())
        cursor = driver.execute_script(
            "return ['errors', 'arrived'].map(c => Bokeh.documents.map(d => d.get_model_by_name(`${c}-a-cursor`))"
            ".find(m => m).location)"
        )
        assert cursor == pytest.approx([0.1 * presses] * 2)
    assert "2 units of tau" in driver.find_element("id", "clock").text
    before = driver.execute_script("return actrelax.values('a', 'conv1').activity")
    assert np.ptp(before) > 0.1


def test_colours_are_the_values(driver, file, trajectory):
    look(driver, file.as_uri())
    driver.execute_script("actrelax.seek(40)")
    gradient = page.scene_of(trajectory).populations["conv1"].gradient[0]
    scale = np.abs(gradient).max()
    maps = trajectory["conv1"][40, 0].numpy()
    for what, expected in (("activity", maps), ("gradient", gradient.reshape(32, 4, 4))):
        found, inside = pixels(driver, "conv1", what)
        for each in (0, 9, 31):
            y, x = each // 8 * 5, each % 8 * 5
            assert inside[y : y + 4, x : x + 4].all()
            assert found[y : y + 4, x : x + 4] == pytest.approx(np.clip(expected[each] / scale, -1, 1), abs=0.01)
        assert not inside[4].any()
    found, _ = pixels(driver, "hidden1", "gradient")
    assert (np.diff(found[0]) >= 0).all()  # sorted
    state = trajectory["hidden1"][40, 0].numpy()
    goal = page.scene_of(trajectory).populations["hidden1"].gradient[0]
    shown, _ = pixels(driver, "hidden1", "activity")
    assert shown[0] == pytest.approx(np.clip(state[goal.argsort()] / np.abs(goal).max(), -1, 1), abs=0.01)


def test_another_sample_and_other_colours(driver, file, trajectory):
    from selenium.webdriver.support.ui import Select

    look(driver, file.as_uri())
    driver.execute_script("actrelax.seek(5)")
    sample = Select(driver.find_element("id", "sample"))
    assert [option.text for option in sample.options] == [
        f"{i + 1} of 3: label {y}" for i, y in enumerate(trajectory.problem.target.tolist())
    ]
    sample.select_by_index(2)
    found = driver.execute_script("return actrelax.values('a', 'conv2').activity")
    states = trajectory["conv2"][5, 2].flatten().numpy()
    assert found == pytest.approx(states, abs=1e-3 * np.abs(states).max())
    errors = driver.execute_script(
        "return Bokeh.documents.map(d => d.get_model_by_name('errors-a-lines')).find(m => m).data.ys"
    )
    shown = page.scene_of(trajectory).populations
    assert np.array(errors) == pytest.approx(np.array([shown[name].errors[2] for name in SHOWN]), rel=1e-5)
    Select(driver.find_element("id", "scale")).select_by_value("asinh")
    conv1 = shown["conv1"]
    scale, most = (np.abs(x[2]).max() for x in (conv1.gradient, conv1.activities))
    colours, inside = pixels(driver, "conv1", "activity")
    expected = np.arcsinh(conv1.activities[2, 5] / scale) / np.arcsinh(most / scale)
    assert np.sort(colours[inside]) == pytest.approx(np.sort(expected), abs=0.01)


def test_plays_to_the_end(driver, file):
    look(driver, file.as_uri())
    driver.execute_script("actrelax.seek(97)")
    driver.find_element("id", "play").click()
    assert until(driver, "return document.getElementById('clock').textContent").startswith(("9.7", "9.8"))
    until(driver, "return document.getElementById('time').value === '100' && /Play/.test(play.textContent)")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_readable_at_both_widths_by_day_and_by_night(driver, file, width, dark):
    look(driver, file.as_uri(), width=width, dark=dark)
    overflow, paper, ink, axis = driver.execute_script(
        "const style = getComputedStyle(document.body), chart = Bokeh.documents.map(d => d.get_model_by_name("
        "'errors-a')).find(m => m);"
        "return [document.documentElement.scrollWidth - innerWidth, style.backgroundColor, style.color, "
        "chart.left[0].axis_label_text_color]"
    )
    assert overflow <= 0
    light = {name: np.mean([int(x) for x in re.findall(r"\d+", text)]) for name, text in (("p", paper), ("i", ink))}
    assert (light["p"] < 60 and light["i"] > 200) if dark else (light["p"] > 240 and light["i"] < 60)
    assert axis == ("#e8e8e8" if dark else "#1a1a1a")
    cut = driver.execute_script(
        "return [...document.querySelectorAll('h1, h3, figcaption, .bar *')].filter(e => e.scrollWidth > "
        "e.clientWidth + 1 && e.clientWidth > 0 && !['SELECT', 'INPUT'].includes(e.tagName)).map(e => e.textContent)"
    )
    assert cut == []
