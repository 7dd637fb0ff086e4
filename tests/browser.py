"""A real browser for tests: Chromium without a window, cut off from everything but this machine."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PATIENCE = 20
"""Seconds after which something that should have happened has not."""


@contextmanager
def browser() -> Iterator[Any]:
    """Start Chromium, or skip the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="there is no selenium to drive a browser with")
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    chromium, driver = next(filter(None, found), None), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no chromium with a chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield started
    finally:
        started.quit()


def look(driver: Any, url: str, *, width: int = 1280, dark: bool = False) -> None:
    """Open a page at a width in pixels, by day or by night, and wait until its charts are drawn."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    driver.get_log("browser"), driver.get_log("performance")  # those of the page before
    driver.get(url)
    until(driver, "return document.documentElement.dataset.drawn === 'yes'")


def until(driver: Any, script: str, *arguments: object) -> Any:
    """Wait until a script returns something true, and return that."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = driver.execute_script(script, *arguments)
        if found:
            return found
        time.sleep(0.05)
    pytest.fail(f"still false after {PATIENCE} seconds: {script}\n{complaints(driver)}")


def complaints(driver: Any) -> list[str]:
    """Return the errors and warnings of the browser's console."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def requests(driver: Any) -> list[str]:
    """Return the addresses that were asked for since the page was opened."""
    import json

    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
