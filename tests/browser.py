"""Headless Chromium for tests of pages; the fixture `browser` in `tests/conftest.py` starts one for the session."""

import base64
import functools
import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

WIDE = (1280, 900)
"""width and height of a desktop's window"""
NARROW = (390, 844)
"""width and height of a phone's"""
_LOCAL = ("data", "blob", "about", "chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    # A page that asks for another host gets no answer, and the request is seen all the same.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Browser:
    """A browser window.

    Attributes:
        driver: Selenium's, for all that has no method here.
    """

    def __init__(self) -> None:
        from selenium.webdriver import Chrome, ChromeOptions
        from selenium.webdriver.chrome.service import Service

        options = ChromeOptions()
        options.binary_location = _program("chromium")
        for flag in _FLAGS:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = Chrome(options=options, service=Service(_program("chromedriver")))
        self.driver.set_script_timeout(120)
        self._origin = ""

    def open(self, url: str, size: tuple[int, int] = WIDE, *, dark: bool = False) -> None:
        """Open a page in a window of a size and a system with light or dark colours; forget all earlier messages.

        Args:
            url: address on loopback, or of a file.
            size: width and height in pixels.
            dark: the system asks for dark colours.
        """
        width, height = size
        phone = width < 600
        self._command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._command("Emulation.setEmulatedMedia", features=[scheme])
        self.driver.get("about:blank")
        self.messages()
        self.requests()
        self._origin = url
        self.driver.get(url)

    def wait(self, script: str, seconds: float = 60) -> Any:
        """Wait until a JavaScript expression is true, and return it."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, seconds, 0.05).until(
            lambda driver: driver.execute_script(f"return {script}")
        )

    def run(self, script: str, *arguments: object) -> Any:
        """Run JavaScript, whose value is that of its `return`."""
        return self.driver.execute_script(script, *arguments)

    def messages(self) -> list[str]:
        """Return the console's errors and warnings since the last call, such as exceptions and refused requests."""
        levels = ("SEVERE", "WARNING")
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in levels]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the last call, those of the browser's own pages left out."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent]

    def foreign_requests(self) -> list[str]:
        """Return those of `requests` that are neither of the page's own host nor the page itself."""
        own = urlsplit(self._origin)
        return [
            url
            for url in self.requests()
            if (parts := urlsplit(url)).scheme not in _LOCAL and parts[:2] != own[:2]
        ]

    def violations(self) -> list[str]:
        """Return what axe-core finds at least serious on the page: rule, help, and the elements."""
        self.run(_axe())
        script = """const done = arguments[0];
            axe.run(document, {resultTypes: ["violations"]}).then(done, (error) => done(String(error)))"""
        found = self.driver.execute_async_script(script)
        assert isinstance(found, dict), found
        return [
            f"{each['id']}: {each['help']}: {[node['html'][:200] for node in each['nodes'][:5]]}"
            for each in found["violations"]
            if each["impact"] in ("serious", "critical")
        ]

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Write a PNG of the page, or of what the window shows of it."""
        taken = self._command(
            "Page.captureScreenshot", captureBeyondViewport=whole, **(self._whole() if whole else {})
        )
        path.write_bytes(base64.b64decode(taken["data"]))

    def close(self) -> None:
        """End the browser."""
        self.driver.quit()

    def _whole(self) -> dict[str, Any]:
        size = self._command("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def _command(self, name: str, **arguments: object) -> Any:
        return self.driver.execute_cdp_cmd(name, arguments)


def start_browser() -> Browser:
    """Return a new browser; skip the test where there is none, except in CI, which installs it."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    missing += [name for name in ("selenium", "axe_core_python") if importlib.util.find_spec(name) is None]
    if missing:
        reason = f"{', '.join(missing)} missing: apt-get install chromium chromium-driver, and extra dev"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return Browser()


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found is not None
    return found


@functools.cache
def _axe() -> str:
    """Return axe-core, which the package brings along."""
    spec = importlib.util.find_spec("axe_core_python")
    assert spec is not None
    assert spec.submodule_search_locations
    (folder,) = spec.submodule_search_locations
    return next(Path(folder).rglob("axe.min.js")).read_text(encoding="utf-8")
