"""Keys of one letter: what they do, and that they can be switched off without an account (WCAG 2.1.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from chromium import show, visit
from server import serving
from test_browser import browser, check_quiet, find

from nextvec.papers.site import Site
from nextvec.papers.web import create_app

webdriver = pytest.importorskip("selenium.webdriver")
ActionChains, Keys = webdriver.ActionChains, webdriver.Keys
__all__ = ["browser"]  # a fixture

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(small: Site) -> Iterator[str]:
    with serving(create_app(small)) as url:
        yield url


@pytest.fixture(autouse=True)
def forgotten(browser: Any, address: str) -> Iterator[None]:
    """What a test leaves in the browser is not the next one's."""
    show(browser, 1280, 900)
    yield
    visit(browser, address + "/about")
    browser.execute_script("localStorage.clear()")


def focus_after(browser: Any, *keys: str) -> Any:
    """What has the focus after ``keys`` on a page where nothing had it."""
    browser.execute_script("document.activeElement.blur()")
    for key in keys:
        ActionChains(browser).send_keys(key).perform()
    return browser.switch_to.active_element


def test_they_are_switched_off_and_on_by_keyboard_and_stay_so(browser: Any, address: str) -> None:
    visit(browser, address + "/")
    assert find(browser, ".top-search kbd").is_displayed()
    assert focus_after(browser, "/").get_attribute("id") == "top-q"
    assert focus_after(browser, "j", "j").get_attribute("href") == _title(browser, 1)

    find(browser, 'footer a[href="/about#keys"]').send_keys(Keys.ENTER)
    box = find(browser, "[data-keys]")
    assert box.is_displayed() and box.is_selected() and box.accessible_name == "Use these keys"
    _tab_to(browser, box)
    ActionChains(browser).send_keys(Keys.SPACE).perform()
    assert not box.is_selected()
    assert not find(browser, ".top-search kbd").is_displayed(), "no key is offered that does nothing"
    assert focus_after(browser, "/", "j").tag_name == "body", "at once"

    visit(browser, address + "/")
    assert not find(browser, ".top-search kbd").is_displayed()
    assert focus_after(browser, "/", "j", "k").tag_name == "body", "on other pages, and later"
    check_quiet(browser, address)

    visit(browser, address + "/about#keys")
    box = find(browser, "[data-keys]")
    assert not box.is_selected(), "the box tells how it is"
    box.click()
    visit(browser, address + "/")
    assert focus_after(browser, "j").get_attribute("href") == _title(browser, 0)


def test_a_browser_that_keeps_nothing_can_switch_them_off_for_a_page(browser: Any, address: str) -> None:
    closed = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": closed})
    try:
        visit(browser, address + "/about")
        assert focus_after(browser, "/").get_attribute("id") == "top-q"
        find(browser, "[data-keys]").click()
        assert focus_after(browser, "/").tag_name == "body"
        check_quiet(browser, address)
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_without_scripts_none_is_offered_and_nothing_is_lost(browser: Any, address: str) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        visit(browser, address + "/about")
        assert "They need scripts" in find(browser, "main").text
        for selector in (".keys-switch", ".top-search kbd"):
            assert find(browser, selector).get_attribute("hidden") is not None, selector
        assert find(browser, "[data-keys]").value_of_css_property("visibility") == "hidden"
        assert focus_after(browser, Keys.TAB).accessible_name == "Skip to the content"
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def _title(browser: Any, place: int) -> str:
    return str(browser.find_elements("css selector", ".paper-title a")[place].get_attribute("href"))


def _tab_to(browser: Any, element: Any) -> None:
    """Reach ``element`` with the tabulator alone."""
    for _ in range(40):
        if browser.switch_to.active_element == element:
            return
        ActionChains(browser).send_keys(Keys.TAB).perform()
    raise AssertionError("the tabulator does not reach it")
