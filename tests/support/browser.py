"""A headless Chromium, driven by Selenium; reads files of this machine and nothing else."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

DRIVER = Path("/usr/bin/chromedriver")
BROWSER = Path("/usr/bin/chromium")


@contextmanager
def open_browser(profile: Path) -> Iterator["Browser"]:
    """Start a browser with a profile of its own; it ends with the block."""
    options = ChromeOptions()
    options.binary_location = os.fspath(BROWSER)
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--hide-scrollbars", "--force-color-profile=srgb", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-default-apps",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(argument)
    driver = Chrome(options=options, service=ChromeService(os.fspath(DRIVER)))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


class Browser:
    """One window."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def show(self, page: Path, *, width: int, height: int = 900, scheme: str = "light") -> None:
        """Load a page into a window of that size, for a light or a dark screen."""
        self._say("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": scheme}
        ])  # fmt: skip
        self._say(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self.driver.get(page.as_uri())

    def run(self, script: str) -> Any:
        """Return what a script returns, which is the body of a function."""
        return self.driver.execute_script(script)

    def picture(self, file: Path, *, height: int | None = None) -> None:
        """Write a picture of the whole page, or of its upper part."""
        width, whole = self.run(
            "return [document.documentElement.clientWidth, document.documentElement.scrollHeight]"
        )
        self._say(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height or whole, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        assert self.driver.save_screenshot(os.fspath(file))

    def print(self) -> bytes:
        """Return the page as a PDF."""
        return bytes.fromhex(self.driver.print_page().encode().hex())

    def _say(self, command: str, **parameters: Any) -> None:
        self.driver.execute_cdp_cmd(command, parameters)
