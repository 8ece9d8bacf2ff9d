"""Take docs/images/screenshots.png: three pages of the demo, composed into one picture."""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs/images/screenshots.png"
CHROMIUM = "/usr/bin/chromium"
CANVAS = {"width": 1600, "height": 1000}
MAX_SIZE = 250_000
"""Bytes. The README has to load fast."""

STYLE = """
<!doctype html>
<style>
  body { margin: 0; background: #dfe7f1; font: 14px/40px system-ui, sans-serif; }
  figure { position: absolute; margin: 0; border-radius: 12px; overflow: hidden;
           box-shadow: 0 0 0 1px #17212b26, 0 12px 32px #17212b2e; }
  figcaption { position: relative; height: 40px; background: #f6f8fb; color: #4a5866;
               border-bottom: 1px solid #d4dce6; box-sizing: border-box; text-align: center; }
  figcaption::before { content: ""; position: absolute; left: 18px; top: 14px; width: 12px;
                       height: 12px; border-radius: 50%; background: #c3cedb;
                       box-shadow: 20px 0 #c3cedb, 40px 0 #c3cedb; }
  img { display: block; width: 100%; height: calc(100% - 40px); }
</style>
"""


class Window(NamedTuple):
    """A browser window in the picture, in pixels. Its top 40 pixels are the title bar."""

    left: int
    top: int
    width: int
    height: int
    zoom: float

    def show(self, page: Page) -> str:
        """Return HTML that shows the page in this window."""
        metrics = {
            "width": round(self.width / self.zoom),
            "height": round((self.height - 40) / self.zoom),
            "deviceScaleFactor": self.zoom,
            "mobile": False,
        }
        # Playwright itself cannot change the scale of a page that is open.
        devtools = page.context.new_cdp_session(page)
        devtools.send("Emulation.setDeviceMetricsOverride", metrics)
        image = devtools.send("Page.captureScreenshot")["data"]
        address = page.url.partition("://")[2].partition("?")[0]
        place = f"left: {self.left}px; top: {self.top}px"
        size = f"width: {self.width}px; height: {self.height}px"
        return (
            f'<figure style="{place}; {size}"><figcaption>{escape(address)}</figcaption>'
            f'<img alt="" src="data:image/png;base64,{image}"></figure>'
        )


SIGN_IN = Window(40, 40, 600, 920, zoom=1)
SIGNED_IN = Window(680, 40, 880, 424, zoom=0.85)
FAILURE = Window(680, 504, 880, 456, zoom=0.75)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--app-port", type=int, default=5000)
    parser.add_argument("--sandbox-port", type=int, default=9000)
    options = parser.parse_args()
    with (
        demo(options.app_port, options.sandbox_port) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        windows = take(page, address)
        page = browser.new_page(viewport=CANVAS)  # type: ignore[arg-type]
        page.set_content(STYLE + windows)
        picture = page.screenshot()
        browser.close()
    if len(picture) > MAX_SIZE:
        sys.exit(f"The picture has {len(picture)} bytes, more than {MAX_SIZE}.")
    PICTURE.write_bytes(picture)
    print(f"Written: {PICTURE.relative_to(ROOT)}, {len(picture)} bytes.")


@contextmanager
def demo(app_port: int, sandbox_port: int) -> Iterator[str]:
    """Run the demo; yield the address of its application."""
    ports = ["--app-port", str(app_port), "--sandbox-port", str(sandbox_port)]
    command = [sys.executable, "-m", "tools.demo", *ports]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            if not any(line.startswith("Press Ctrl-C") for line in process.stdout or ()):
                sys.exit("The demo did not start.")
            yield f"http://127.0.0.1:{app_port}"
        finally:
            process.terminate()


def take(page: Page, address: str) -> str:
    """Sign in, then open a page that fails; return the three windows as HTML."""
    page.goto(f"{address}/reports")
    windows = SIGN_IN.show(page)
    page.get_by_role("button", name="ada").click()
    page.get_by_role("heading", name="Reports").wait_for()
    windows += SIGNED_IN.show(page)
    page.goto(f"{address}/sso/callback?code=1&state=2")
    return windows + FAILURE.show(page)


if __name__ == "__main__":
    main()
