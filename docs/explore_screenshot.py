"""The picture on docs/how-to/explore.md: a trained network, AR beside AR without derivatives, in headless Chromium.

python docs/explore_screenshot.py RUN        # made by: actrelax train --epochs 5 --out RUN
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from browser import browser, look, until

FILE = Path(__file__).resolve().parent / "figures" / "explore.png"
WIDTH, HEIGHT, CUT = 1280, 2100, 1580
MODEL = "const m = name => Bokeh.documents.map(d => d.get_model_by_name(name)).find(x => x);"
SHOWS = "return document.querySelector('[data-command=b]').textContent.includes('no-derivatives')"


def main(run: str) -> None:
    """Start the explorer on a run, set B's gains to none, and take the picture."""
    command = [sys.executable, "-m", "actrelax.simulations.cli", "explore", "--no-browser", "--run", run]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program, browser() as driver:
        assert program.stdout is not None
        try:
            program.stdout.readline()
            look(driver, program.stdout.readline().split()[1].rstrip(","), width=WIDTH)
            driver.execute_script(MODEL + "m('views').active = 1")
            until(driver, "return document.documentElement.dataset.shown === '2'")
            driver.execute_script(MODEL + "m('preset').value = 'no-derivatives'")
            until(driver, SHOWS)
            size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            driver.execute_script("actrelax.seek(30)")
            time.sleep(2)  # the charts take their new widths
            clip = {"x": 0, "y": 0, "width": WIDTH, "height": CUT, "scale": 1}
            taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip})
            save(taken["data"])
        finally:
            program.terminate()


def save(picture: str) -> None:
    """Write a picture in base64 with 256 colours, a quarter of its size."""
    import base64
    from io import BytesIO

    from PIL import Image

    image = Image.open(BytesIO(base64.b64decode(picture))).convert("RGB")
    image.quantize(256).save(FILE, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
