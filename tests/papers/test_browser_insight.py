"""The map of topics and the suggestions of the search field in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from chromium import show, until, visit
from fakes import HashEncoder
from server import serving
from test_browser import browser, check_quiet, find, overflow

from installed import need
from nextvec.papers.ingest import ingest
from nextvec.papers.insight.people import build_people
from nextvec.papers.insight.topics import build_topics
from nextvec.papers.records import Paper
from nextvec.papers.site import Site
from nextvec.papers.web import create_app

__all__ = ["browser"]  # a fixture

pytestmark = pytest.mark.browser
need("sklearn")
VIEW = "return document.querySelector('.map').getAttribute('viewBox')"
ACTIVE = "return document.activeElement.getAttribute('aria-activedescendant')"


@pytest.fixture(scope="module")
def address(few: list[Paper], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A site of about 300 papers whose topics are made, served by a thread of this process."""
    site = Site(tmp_path_factory.mktemp("topics"), encoder=HashEncoder())
    ingest(site, few)
    build_topics(site, count=12)
    build_people(site)
    with serving(create_app(site)) as url:
        yield url
    site.close()


def box(browser: Any) -> list[float]:
    """The part of the map that is seen: x, y, width, height."""
    return [float(part) for part in str(browser.execute_script(VIEW)).split()]


@pytest.mark.parametrize("width", [360, 768, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_pages_fit_and_ask_nobody_else(browser: Any, address: str, few: list[Paper], width: int, dark: bool) -> None:
    show(browser, width, 900, dark=dark)
    for path in ("/map", "/topics", "/topics?step=week", f"/papers/{few[0].id}", f"/search?like={few[0].id}&q=model"):
        visit(browser, address + path)
        assert overflow(browser) <= 0, (path, width)
        check_quiet(browser, address)


def test_the_map_is_walked_with_the_keyboard(browser: Any, address: str) -> None:
    from selenium.webdriver import ActionChains, Keys

    show(browser, 1280, 900)
    visit(browser, address + "/map")
    browser.execute_script("document.querySelector('.map').focus()")
    whole = box(browser)
    ActionChains(browser).send_keys("+").send_keys("+").perform()
    near = box(browser)
    assert near[2] == pytest.approx(whole[2] / 2.25) and near[0] > 0
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).send_keys(Keys.ARROW_DOWN).perform()
    assert box(browser)[0] > near[0] and box(browser)[1] > near[1]
    ActionChains(browser).send_keys("0").perform()
    assert box(browser) == whole
    ActionChains(browser).send_keys(Keys.TAB).perform()
    topic = browser.switch_to.active_element
    assert topic.get_attribute("class") == "label on" and topic.accessible_name
    target = topic.get_attribute("href")
    target = browser.execute_script("return document.activeElement.href.baseVal") or target
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    until(lambda: "/topics/" in browser.current_url and browser.current_url.endswith(target))
    assert find(browser, ".lede").text.endswith("papers.")


def test_the_map_is_moved_with_the_pointer(browser: Any, address: str) -> None:
    from selenium.webdriver import ActionChains

    show(browser, 1280, 900)
    visit(browser, address + "/map")
    find(browser, "[data-zoom=in]").click()
    before = box(browser)
    drawn = find(browser, ".map")
    ActionChains(browser).move_to_element(drawn).click_and_hold().move_by_offset(-60, -40).release().perform()
    after = box(browser)
    assert after[0] > before[0] and after[1] > before[1] and browser.current_url.endswith("/map"), "a drag is no click"
    find(browser, "[data-zoom=all]").click()
    assert box(browser)[:2] == [0, 0]
    turn = "document.querySelector('.map').dispatchEvent(new WheelEvent('wheel', {deltaY: -200, ctrlKey: %s, "
    turn += "bubbles: true, cancelable: true, clientX: 600, clientY: 500}))"
    browser.execute_script("document.activeElement.blur();" + turn % "false")
    assert box(browser)[2] == 1000, "without Ctrl the page scrolls"
    browser.execute_script(turn % "true")
    assert box(browser)[2] < 1000


def test_the_map_is_links_without_javascript(browser: Any, address: str) -> None:
    show(browser, 1280, 900)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(address + "/map")
        assert not find(browser, ".map-tools").is_displayed()
        until(lambda: find(browser, ".topic-list a").click() or True)
        until(lambda: "/topics/" in browser.current_url)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_suggestions_are_chosen_with_the_keyboard(browser: Any, address: str, few: list[Paper]) -> None:
    from selenium.webdriver import Keys

    show(browser, 1280, 900)
    visit(browser, address + "/search")
    field = find(browser, "#q")
    name = next(one for one in few[0].authors if one.isascii())
    field.send_keys(name[:-1])
    until(lambda: field.get_attribute("aria-expanded") == "true")
    assert browser.execute_script(ACTIVE) is None
    field.send_keys(Keys.ARROW_DOWN)
    assert browser.execute_script(ACTIVE) == "suggestion-1"
    chosen = find(browser, "#suggestion-1")
    assert chosen.get_attribute("aria-selected") == "true" and name in chosen.text
    field.send_keys(Keys.ARROW_UP)
    assert browser.execute_script(ACTIVE) is None, "back to what was typed"
    field.send_keys(Keys.ESCAPE)
    assert field.get_attribute("aria-expanded") == "false" and field.get_attribute("value") == name[:-1]
    field.send_keys(Keys.ARROW_DOWN)
    field.send_keys(Keys.ENTER)
    until(lambda: "author=" in browser.current_url)
    assert browser.find_elements("css selector", "#results .paper")
    check_quiet(browser, address)
