"""`actrelax explore` as a user meets it: in a browser, and on the command line."""

import http.client
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import PATIENCE, browser, complaints, look, requests, until

from actrelax.models.results import open_trajectory, relative_error
from actrelax.simulations import cli
from actrelax.simulations.explorer.compute import relaxed
from actrelax.simulations.explorer.setting import Setting
from actrelax.simulations.training.experiment import Model

MODEL = "const m = name => Bokeh.documents.map(d => d.get_model_by_name(name)).find(x => x);"
ALL = "const all = r => [...r.querySelectorAll('*')].flatMap(e => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])]);"
ANSWERS = "return Number(document.documentElement.dataset.answers ?? 0)"


class Page:
    """The explorer's page in a browser.

    said  the program's first lines
    """

    def __init__(self, driver, process, said):
        self.driver, self.process, self.said = driver, process, said
        self.address = re.search(r"http://127\.0\.0\.1:\d+/", said[1]).group()

    def run(self, script, *arguments):
        return self.driver.execute_script(MODEL + script, *arguments)

    def opened(self, **how):
        look(self.driver, self.address, **how)
        return self

    def set(self, **values):
        """Change controls as a user does."""
        for name, value in values.items():
            self.run(
                "const w = m(arguments[0]); w.value = arguments[1]; "
                "if ('value_throttled' in w) w.value_throttled = arguments[1];",
                name.replace("dense_", "dense ").replace("conv_", "conv "),
                value,
            )

    def shows(self, setting, slot="a"):
        """Wait until the page shows a setting, and go to the end."""
        script = "return document.querySelector(`[data-command=${arguments[0]}]`).textContent === arguments[1]"
        until(self.driver, script, slot, setting.command())
        self.run("actrelax.seek(10000)")

    def refuses(self, said):
        """Wait until the page refuses a setting."""
        script = "return document.querySelector('[data-refused=a]').textContent.startsWith(arguments[0])"
        until(self.driver, script, said)

    def text(self, what, slot="a"):
        return self.run(f"return document.querySelector('[data-{what}={slot}]').textContent")

    def values(self, name, slot="a"):
        return np.array(self.run("return actrelax.values(arguments[0], arguments[1]).activity", slot, name))

    def element(self, script):
        """Return an element that stands in a shadow root."""
        return self.run(f"{ALL} return all(document).find(e => {script})")


def start(*options):
    """Start the program; return its process and its first two lines."""
    command = [sys.executable, "-m", "actrelax.simulations.cli", "explore", "--no-browser", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return process, [process.stdout.readline() for _ in range(2)]


@pytest.fixture(scope="module")
def page():
    pytest.importorskip("bokeh", reason="there is no bokeh to serve a page with")
    with browser() as driver:
        process, said = start()
        try:
            yield Page(driver, process, said)
        finally:
            process.kill()
            process.communicate()


def end_of(setting, name):
    return relaxed(setting).final[name].detach().flatten().numpy()


def test_opens_on_this_machine_alone_and_without_complaints(page):
    assert page.said[0] == "exploring digits-cnn\n"
    assert page.said[1] == f"open {page.address}, and end with Ctrl-C\n"
    page.opened()
    assert complaints(page.driver) == []
    assert [url for url in requests(page.driver) if not url.startswith((page.address, "data:", "blob:"))] == []
    port = int(page.address.split(":")[-1].strip("/"))
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if line.split()[3] == "0A"]
    assert [each for each in listening if each.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]
    # the page of another site may not connect
    headers = {"Origin": "http://example.org", "Connection": "Upgrade", "Upgrade": "websocket"}
    headers |= {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version": "13"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", "/ws", headers=headers)
    assert connection.getresponse().status == 403
    connection.close()


def test_recomputes_as_controls_change(page):
    page.opened()
    setting, seen = Setting(), []
    page.shows(setting)
    for change in (
        {"steps": 20},
        {"integrator": "sequential"},
        {"size": 0.2},
        {"conv_gain": "none"},
        {"integrator": "euler"},
        {"noise": 0.2},
        {"preset": "random-feedback"},
    ):
        seen.append(page.values("conv1"))
        page.set(**change)
        said = {"size": "eta", "conv_gain": "assumptions", "preset": "assumptions"}
        options = {said.get(name, name): value for name, value in change.items()}
        if "conv_gain" in change:
            options["assumptions"] = "ar,conv.activity-gain=none"
        setting = replace(setting, relaxation=replace(setting.relaxation, **options))
        page.shows(setting)
        found, expected = page.values("conv1"), end_of(setting, "conv1")
        assert found == pytest.approx(expected, abs=1e-4 * np.abs(expected).max())
        assert np.abs(found - seen[-1]).max() > 1e-6


def test_a_bad_setting_is_refused_in_place_and_the_last_good_picture_stays(page):
    page.opened().set(integrator="rk4")
    setting = Setting()
    setting = replace(setting, relaxation=replace(setting.relaxation, integrator="rk4"))
    page.shows(setting)
    shown = page.values("conv2")
    page.set(noise=0.2)
    page.refuses('"rk4" can\'t be used here: ')
    assert page.text("command") == setting.command()
    assert page.values("conv2") == pytest.approx(shown)
    page.set(noise=0)
    until(page.driver, "return document.querySelector('[data-refused=a]').textContent === ''")
    page.shows(setting)
    assert page.values("conv2") == pytest.approx(shown)


def test_copies_what_is_shown(page, tmp_path, capsys):
    permissions = {"origin": page.address.rstrip("/"), "permissions": ["clipboardReadWrite"]}
    page.opened().driver.execute_cdp_cmd("Browser.grantPermissions", permissions)
    page.set(network="digits-skip", image=4, seed=3, preset="random-feedback", size=0.2, steps=60, start="zero")
    usual = Setting()
    setting = Setting(
        replace(usual.problem, model=Model("digits-skip"), first=4, seed=3),
        replace(usual.relaxation, assumptions="random-feedback", eta=0.2, steps=60, start="zero"),
    )
    page.shows(setting)
    copied = {}
    for what in ("command", "python"):
        button = f"document.querySelector('[data-copy=\"{what} a\"]')"
        page.run(f"{button}.parentElement.open = true; {button}.click()")
        until(page.driver, f"return {button}.textContent === 'Copied'")
        copied[what] = page.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert cli.main([*shlex.split(copied["command"])[1:], "--out", str(tmp_path)]) == 0
    names = {}
    exec(copied["python"], names)
    with open_trajectory(tmp_path / "trajectory.nc") as dataset:
        for name in names["problem"].network.hidden:
            final = relaxed(setting).final[name].detach().flatten(1)
            assert relative_error(torch.as_tensor(dataset[name][-1].values), final) < 1e-6
            assert relative_error(names["trajectory"].final[name].detach().flatten(1), final) < 1e-6
            shown = page.values(name)
            assert shown == pytest.approx(final[0].numpy(), abs=1e-4 * float(final.abs().max()))


def test_nothing_queues_up_behind_a_dragged_slider(page):
    page.opened()
    before = page.run(ANSWERS)
    page.run("const w = m('size'); for (let i = 1; i <= 90; i++) { w.value = i / 100; w.value_throttled = i / 100; }")
    until(page.driver, "return document.querySelector('[data-command=a]').textContent.includes('--eta 0.9')")
    assert page.run(ANSWERS) - before < 30
    time.sleep(0.3)
    assert "--eta 0.9" in page.text("command")


def test_two_settings_on_one_axis_of_time(page):
    page.opened()
    page.run("m('views').active = 1")
    until(page.driver, "return document.documentElement.dataset.shown === '2'")
    page.set(steps=200)
    page.shows(replace(Setting(), relaxation=replace(Setting().relaxation, steps=200)), "b")
    page.run("actrelax.seek(60)")
    linked = page.run("return [m('errors-a').x_range === m('errors-b').x_range, m('errors-b').x_range.end]")
    assert linked == [True, pytest.approx(20)]
    times = page.run("return ['a', 'b'].map(slot => actrelax.values(slot, 'conv1').time)")
    assert times[0] == pytest.approx(times[1], abs=0.2)
    assert times[0] > 5
    assert page.text("command", "a") != page.text("command", "b")
    overflow = page.run("return document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0
    page.run("m('turns').active = 0")
    until(page.driver, MODEL + "return m('steps').value === 100")
    page.run("m('views').active = 0")
    until(page.driver, "return document.documentElement.dataset.shown === '1'")


def test_a_drawing(page):
    from selenium.webdriver.common.action_chains import ActionChains

    page.opened()
    pad = page.driver.find_element("id", "pad")
    actions = ActionChains(page.driver).move_to_element_with_offset(pad, 0, -60)
    actions.click_and_hold().move_by_offset(0, 110).release().perform()
    until(page.driver, "return document.querySelector('[data-command=a]').textContent.includes('--drawing')")
    drawing = re.search(r"--drawing (\w+)", page.text("command")).group(1)
    pixels = np.array([int(digit, 16) for digit in drawing]).reshape(8, 8)
    assert pixels[2:6, 3:5].min() > 0
    assert pixels[:, :2].max() == pixels[:, 6:].max() == 0
    found = page.values("conv1")
    usual = Setting()
    setting = replace(usual, problem=replace(usual.problem, drawing=drawing))
    start = relaxed(setting).recorded["conv1"][0].detach().flatten().numpy()
    page.run("actrelax.seek(0)")
    assert page.values("conv1") == pytest.approx(start, abs=1e-3)
    assert found.shape == start.shape
    page.set(network="mlp-figure1")
    until(
        page.driver, "return document.querySelector('[data-command=a]').textContent.includes('--network mlp-figure1')"
    )
    assert page.run("return [pad.width, m('drawing').value.length]") == [28, 784]
    assert page.text("refused") == ""


def test_learning(page):
    page.opened()
    page.driver.find_element("id", "tab-learning").click()
    page.run("m('lesson network').value = 'digits-mlp'; m('epochs').value = 30")
    page.element("e.tagName === 'BUTTON' && e.textContent.trim() === 'Learn'").click()
    rows = "const rows = m('learning-a').renderers.filter(r => r.glyph.type === 'Line').map(r => r.data_source.data);"
    until(page.driver, MODEL + rows + "return rows.every(r => r.epoch.length > 2)")
    page.element("e.tagName === 'BUTTON' && e.textContent.trim() === 'Stop'").click()
    until(page.driver, MODEL + "return m('lesson said').text.startsWith('<p>stopped.')")
    found = page.run(rows + "return rows.map(r => [[...r.epoch], [...r.accuracy], [...r.angle]])")
    for epochs, accuracies, _ in found:
        assert epochs == list(range(len(epochs)))
        assert len(epochs) < 30
        assert accuracies[0] < 40 < accuracies[-1]
    assert 0 <= found[1][2][1] < 20
    assert "actrelax train --rule backprop" in page.run("return m('lesson said').text")


@pytest.mark.parametrize("width", [1280, 390])
def test_readable_at_both_widths(page, width):
    page.opened(width=width, dark=width == 390)
    overflow = page.run("return document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0
    page.run("document.querySelector('.controls').open = true")
    time.sleep(0.3)
    cut = page.run(
        ALL + "const box = document.querySelector('.controls').getBoundingClientRect();"
        "return all(document.querySelector('.controls')).filter(e => e.getBoundingClientRect().right > box.right + 2)"
        ".map(e => e.tagName + e.className + e.textContent)"
    )
    assert cut == []


def test_ends_with_ctrl_c(page):
    page.opened()
    # while it is busy, in both tabs
    page.driver.find_element("id", "tab-learning").click()
    page.run("m('epochs').value = 30")
    page.element("e.tagName === 'BUTTON' && e.textContent.trim() === 'Learn'").click()
    page.run("const w = m('size'); for (let i = 1; i <= 90; i++) { w.value = i / 100; w.value_throttled = i / 100; }")
    page.process.send_signal(signal.SIGINT)
    assert page.process.wait(60) == 0
    assert "Traceback" not in page.process.stderr.read()
    assert page.process.stdout.read().endswith("ended.\n")
    with pytest.raises(ConnectionRefusedError), socket.socket() as probe:
        probe.connect(("127.0.0.1", int(page.address.split(":")[-1].strip("/"))))


def test_refusals(tmp_path, capsys, monkeypatch):
    def refused(*options):
        assert cli.main(["explore", "--no-browser", *map(str, options)]) == 2
        return capsys.readouterr().err.removeprefix("actrelax explore: ").strip()

    pytest.importorskip("bokeh", reason="there is no bokeh to serve a page with")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = f"can't serve on port {port}: Address already in use; give another --port, or leave --port out."
        assert refused("--port", port) == said
    assert refused("--port", 70000) == "--port must be between 1 and 65535, got 70000."
    assert refused("--network", "nix").startswith("unknown network 'nix'; known: digits-mlp, ")
    assert refused("--trust") == "--trust and --accept-changes are for the network of a run: leave them out."
    both = refused("--run", tmp_path, "--network", "mlp")
    assert both == "--run has a network of its own: leave --network out, or leave --run out."
    assert str(tmp_path / "none") in refused("--run", tmp_path / "none")
    monkeypatch.setitem(sys.modules, "bokeh", None)
    assert refused() == 'actrelax explore needs the package bokeh: pip install "bokeh>=3.6".'
    assert list(tmp_path.iterdir()) == []
