"""A headless Chromium, driven by Selenium; reads files of this machine and nothing else."""

import os
import re
import shutil
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

NAMES = ("chromium", "chromium-browser")


@contextmanager
def open_browser(profile: Path) -> Iterator["Browser"]:
    """Start a browser with a profile of its own; it ends with the block."""
    options = ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, NAMES)))
    for argument in (
        "--headless=new", "--lang=en", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--hide-scrollbars", "--force-color-profile=srgb", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-default-apps",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(shutil.which("chromedriver")))
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

    def pages_on_paper(self) -> int:
        """Return how many pages of A4 it prints on."""
        printed = self.driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
        return len(re.findall(rb"/Type\s*/Page\b", b64decode(printed["data"])))

    def complaints(self) -> list[str]:
        """Return what the browser has logged since the last call: errors, refused content."""
        log = self.driver.execute("getLog", {"type": "browser"})["value"]
        return [entry["message"] for entry in log]

    def _say(self, command: str, **parameters: Any) -> None:
        self.driver.execute_cdp_cmd(command, parameters)
