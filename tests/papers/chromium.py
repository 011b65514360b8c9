"""Headless Chromium, driven: for the tests of pages and for the pictures of the documentation."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
DRIVER = shutil.which("chromedriver")
MISSING = "chromium and chromedriver are needed: apt-get install chromium chromium-driver"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--window-size=1280,1000",
)  # fmt: skip
WATCH = """
window.__shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.__shift += entry.value;
}).observe({type: "layout-shift", buffered: true});
"""


def start(profile: Path) -> Any:
    """A driver of a new browser whose profile is the folder ``profile``; ``quit`` ends it. In each page
    ``window.__shift`` counts what moves without having been asked to."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
    return driver


def show(browser: Any, width: int, height: int, *, dark: bool = False, still: bool = False) -> None:
    """Set the size of the screen and the system's theme. ``still``: nothing moves; a colour that is still fading has no
    contrast of its own, and no picture twice."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = {"prefers-color-scheme": "dark" if dark else "light"}
    if still:
        features["prefers-reduced-motion"] = "reduce"
    media = [{"name": name, "value": value} for name, value in features.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})


def visit(browser: Any, url: str) -> None:
    """Open ``url``. On a busy machine the driver calls a page loaded whose document is still being exchanged."""
    browser.get(url)
    until(lambda: browser.execute_script("return document.documentElement && document.readyState === 'complete'"))


def until(condition: Any, *, seconds: float = 10) -> None:
    """Wait for ``condition``."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except Exception:  # the page is being exchanged
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "the page did not come"
        time.sleep(0.05)
