"""A walk through the site in a real browser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from chromium import CHROMIUM, DRIVER, MISSING, show, start, until, visit
from databases import copy_home
from server import serving

from nextvec.papers.site import Site
from nextvec.papers.web import create_app

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(whole: Site) -> Iterator[str]:
    """The site over all bundled papers, served by a thread of this process."""
    with serving(create_app(whole)) as url:
        yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A fresh headless Chromium."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip(MISSING)
    pytest.importorskip("selenium.webdriver")
    driver = start(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


def find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def open_filters(browser: Any) -> None:
    """The driver takes what stands in a closed <details> for hidden, even where the style shows it."""
    browser.execute_script("document.querySelector('.filter-box').open = true")


def overflow(browser: Any) -> int:
    return int(
        browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    )


def check_quiet(browser: Any, address: str) -> None:
    """No complaint in the console, no request to anybody else, nothing that jumped."""
    import json

    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
    hosts = {urlsplit(url).netloc for url in asked if url.startswith("http")}
    assert hosts <= {urlsplit(address).netloc}, hosts
    time.sleep(0.1)
    assert browser.execute_script("return window.__shift") < 0.02


def test_a_walk_from_the_feed_to_markdown(browser: Any, address: str) -> None:
    show(browser, 1280, 900)
    visit(browser, address)
    assert "2026" in find(browser, "h1").text
    titles = browser.find_elements("css selector", ".paper-title a")
    assert len(titles) > 10 and all(title.text for title in titles)
    assert browser.execute_script("return document.fonts.check('16px \"Source Serif 4\"')")
    check_quiet(browser, address)

    wanted = titles[0].text
    titles[0].click()
    assert find(browser, "h1").text == wanted
    assert "Abstract" in find(browser, "main").text and "@misc{" in find(browser, "#bibtex").text
    check_quiet(browser, address)

    similar = browser.find_elements("css selector", "#similar li > div > a")
    scores = [float(score.text) for score in browser.find_elements("css selector", ".likeness b")]
    assert len(similar) == 8 and scores == sorted(scores, reverse=True)
    wanted = similar[0].text
    similar[0].click()
    assert find(browser, "h1").text == wanted

    find(browser, "body").send_keys("/")
    assert browser.switch_to.active_element.get_attribute("id") == "top-q", "/ goes to the search field"
    browser.switch_to.active_element.send_keys("thinking in latent space instead of words\n")
    until(lambda: "/search" in browser.current_url and browser.find_elements("css selector", "#results .paper"))
    before = find(browser, ".found").text
    check_quiet(browser, address)
    open_filters(browser)
    find(browser, "input[name=code]").click()
    until(lambda: "code=1" in browser.current_url and find(browser, ".found").text != before)
    assert len(browser.find_elements("css selector", "#results .badge.code")) == 20, "every result has code"
    why = find(browser, ".why").text
    assert browser.find_elements("css selector", "#results mark") and "Words\n#" in why and "Meaning\n#" in why
    check_quiet(browser, address)

    browser.find_elements("css selector", ".paper-title a")[0].click()
    wanted = find(browser, "h1").text
    find(browser, ".links a[href$='.md']").click()
    text = find(browser, "body").text
    assert text.startswith(f"# {wanted}"[:20]) and "## Abstract" in text and "```bibtex" in text


PAGES = {
    "feed": "/",
    "paper": "/papers/2412.06769",
    "search": "/search?q=thinking+in+latent+space+instead+of+words&votes=5",
    "trending": "/papers/trending",
    "no-hit": "/search?q=robots&org=NVIDIA&from=2026-08-20&votes=100",
    "start": "/search",
    "month": "/papers/month/2025-02",
    "discussed": "/papers/discussed?days=all",
    "new": "/papers/new?topic=robot+learning,+world+models&votes=5&code=1&from=2026-01-01&org=NVIDIA",
    "narrowed": "/papers/trending?half=9.5&votes=100000&topic=language+models&source=daily_papers&to=2026-08-20",
    "about": "/about",
}


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_nothing_is_wider_than_the_screen(browser: Any, address: str, width: int) -> None:
    show(browser, width, 844)
    for name, path in PAGES.items():
        visit(browser, address + path)
        assert overflow(browser) <= 0, (name, width)
        check_quiet(browser, address)
        browser.execute_script("for (const one of document.querySelectorAll('details.narrow')) one.open = true")
        assert overflow(browser) <= 0, (name, width, "with its filters")


def test_letters_twice_as_large_fit(browser: Any, address: str) -> None:
    """Letters alone enlarged, with which no width in the style sheet changes (WCAG 1.4.4)."""
    for width in (768, 1280):
        show(browser, width, 900)
        for name, path in (PAGES | {"programs": "/api"}).items():
            visit(browser, address + path)
            browser.execute_script("document.documentElement.style.fontSize = '200%'")
            assert overflow(browser) <= 0, (name, width)


def test_the_address_of_a_search_says_what_was_asked(browser: Any, address: str) -> None:
    show(browser, 1280, 900)
    visit(browser, f"{address}/search?q=robots&code=1")
    find(browser, "input[name=votes]").send_keys("5")
    until(lambda: browser.current_url == f"{address}/search?q=robots&votes=5&code=1")
    assert browser.switch_to.active_element.get_attribute("name") == "votes", "who types goes on typing"
    chips = [one.get_attribute("href") for one in browser.find_elements("css selector", ".chips a")]
    assert chips == [f"{address}/search?q=robots&code=1", f"{address}/search?q=robots&votes=5"]


def test_categories_are_offered_behind_a_comma_too(browser: Any, address: str) -> None:
    visit(browser, f"{address}/papers/new")
    offered = "return [...document.querySelector('input[name=category]').list.options].map((option) => option.value)"
    first = browser.execute_script(offered)
    assert first[0] == "cs.CV" and "cs.CL" in first
    typed = "const field = document.querySelector('input[name=category]'); field.value = arguments[0];"
    typed += "field.dispatchEvent(new Event('input'));"
    browser.execute_script(typed, "CS.cl, c")
    behind = browser.execute_script(offered)
    assert behind[0] == "CS.cl, cs.CV" and not any(name.endswith("cs.CL") for name in behind)
    browser.execute_script(typed, "")
    assert browser.execute_script(offered) == first


def test_filters_leave_a_phone_its_results(browser: Any, address: str) -> None:
    seen = "return document.querySelector('input[name=org]').checkVisibility({contentVisibilityAuto: true})"
    for width, shown in ((360, False), (430, False), (1280, True)):
        show(browser, width, 844)
        visit(browser, address + "/search?q=robots")
        assert browser.execute_script(seen) == shown
        assert find(browser, "#results .paper").rect["y"] < 500, "the first result is on the first screen"
        if not shown:
            find(browser, ".filter-box summary").click()
            assert browser.execute_script(seen)
            visit(browser, address + "/search?q=robots&votes=5")
            assert browser.execute_script(seen), "a filter that is set is seen"


def test_dark_theme_by_system_and_by_choice(browser: Any, address: str) -> None:
    show(browser, 1280, 900, dark=True)
    ground = "return getComputedStyle(document.body).backgroundColor"
    for name in ("feed", "search"):
        visit(browser, address + PAGES[name])
        assert browser.execute_script(ground) == "rgb(18, 22, 27)"
        check_quiet(browser, address)
    show(browser, 1280, 900)
    visit(browser, address + "/about")
    light = browser.execute_script(ground)
    find(browser, ".theme button").click()
    until(lambda: browser.execute_script(ground) == "rgb(18, 22, 27)" != light)
    assert browser.current_url.endswith("/about")
    browser.delete_all_cookies()


def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser: Any, address: str) -> None:
    from selenium.webdriver import ActionChains, Keys

    show(browser, 1280, 900)
    visit(browser, address)
    seen = []
    for _ in range(14):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        active = browser.switch_to.active_element
        seen.append(active.accessible_name)
        outline = browser.execute_script("return getComputedStyle(arguments[0]).outlineStyle", active)
        assert outline == "solid", f"focus is visible on {active.accessible_name!r}"
    assert seen[0] == "Skip to the content"
    assert [name for name in seen if name in ("Daily", "Trending", "Search", "About")] == [
        "Daily", "Trending", "Search", "About",
    ]  # fmt: skip
    assert "Search papers" in seen and all(seen), "every stop has a name"
    ActionChains(browser).send_keys("j").send_keys("j").perform()
    titles = browser.find_elements("css selector", ".paper-title a")
    assert browser.switch_to.active_element == titles[1], "j walks through the papers"
    ActionChains(browser).send_keys("k").send_keys(Keys.ENTER).perform()
    until(lambda: "/papers/" in browser.current_url)


def test_typing_an_id_goes_there_and_typing_nonsense_explains(browser: Any, address: str) -> None:
    show(browser, 1280, 900)
    visit(browser, address + "/search?q=video")
    browser.execute_script("document.querySelector('input[name=votes]').type = 'text'")
    open_filters(browser)
    find(browser, "input[name=votes]").send_keys("x")
    until(lambda: "expected a whole number" in find(browser, "#results").text)
    find(browser, "input[name=votes]").clear()
    find(browser, "#q").clear()
    find(browser, "#q").send_keys("2412.06769")
    until(lambda: browser.current_url.endswith("/papers/2412.06769"))
    browser.get_log("browser")  # it rightly notes the 400


def test_everything_works_without_javascript(browser: Any, address: str) -> None:
    show(browser, 1280, 900)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(address + "/search")
        _type(browser, "#q", "video generation that obeys physics")
        _type(browser, "input[name=votes]", "10")
        find(browser, ".search-line button").click()
        until(lambda: "votes=10" in browser.current_url)
        until(lambda: len(browser.find_elements("css selector", "#results .paper")) == 20)
        find(browser, ".chips a").click()
        until(lambda: "votes=10" not in browser.current_url)
        until(lambda: find(browser, ".pager a[rel=next]").click() or True)
        until(lambda: "Page 2 of" in find(browser, ".pager").text)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_view_is_narrowed_and_followed_without_javascript(browser: Any, address: str) -> None:
    show(browser, 1280, 900)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(address + "/papers/trending?half=30")
        until(lambda: find(browser, ".narrow summary").click() or True)
        _type(browser, "input[name=topic]", "language model")
        _type(browser, ".narrow input[name=votes]", "3")
        until(lambda: find(browser, ".narrow button").click() or True)
        until(lambda: browser.current_url.endswith("/papers/trending?half=30&topic=language+model&votes=3"))
        chips = [" ".join(chip.text.split()) for chip in browser.find_elements("css selector", ".chips a")]
        assert chips[:2] == ["Remove the filter about language model", "Remove the filter 3+ votes"]
        find(browser, ".pager a[rel=next]").click()
        until(lambda: "votes=3&page=2" in browser.current_url and "Page 2 of" in find(browser, ".pager").text)
        until(lambda: find(browser, ".chips a").click() or True)
        until(lambda: browser.current_url.endswith("/papers/trending?half=30&votes=3"))
        links = [link.get_attribute("href") for link in browser.find_elements("css selector", ".feeds a")]
        assert links == [f"{address}/papers/trending.{end}?half=30&votes=3" for end in ("atom", "rss", "json")]
        _type(browser, ".half input[name=half]", "1")
        until(lambda: find(browser, ".half button").click() or True)
        until(lambda: browser.current_url.endswith("/papers/trending?half=130&votes=3"))
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def _type(browser: Any, selector: str, text: str) -> None:
    """Focus and type through the browser itself: some versions of the driver need the page's scripts for that."""

    def focused() -> bool:
        root = browser.execute_cdp_cmd("DOM.getDocument", {})["root"]["nodeId"]
        node = browser.execute_cdp_cmd("DOM.querySelector", {"nodeId": root, "selector": selector})["nodeId"]
        browser.execute_cdp_cmd("DOM.focus", {"nodeId": node})
        return True

    until(focused)  # on a busy machine the document may still be exchanged after the driver calls it loaded
    browser.execute_cdp_cmd("Input.insertText", {"text": text})


@pytest.fixture
def local(browser: Any, whole_home: Path, tmp_path: Path) -> Iterator[str]:
    """The same papers in a copy that its local reader may write to; what the browser noted before is forgotten."""
    browser.get_log("browser"), browser.get_log("performance")

    copy_home(whole_home, tmp_path / "site")
    site = Site(tmp_path / "site", must_exist=True)
    with serving(create_app(site, local_reader=True)) as url:
        yield url
    site.close()


def test_a_reader_votes_saves_and_comments(browser: Any, local: str) -> None:
    show(browser, 1280, 900)
    visit(browser, local + "/papers/2412.06769")
    button = find(browser, "#vote-button")
    before = int(find(browser, "#vote-button b").text)
    browser.execute_script("window.__same = true")
    button.click()
    until(lambda: find(browser, "#vote-button span").text == "Voted")
    assert browser.execute_script("return window.__same"), "the button changes, the page stays"
    assert int(find(browser, "#vote-button b").text) == before + 1
    assert find(browser, "#vote-count").text == f"{before + 1:,}"
    check_quiet(browser, local)
    find(browser, "#vote-button").click()
    until(lambda: find(browser, "#vote-button span").text == "Vote")
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        visited = f"{local}/papers/2412.06769"
        browser.get(visited)
        until(lambda: find(browser, "#vote-button").click() or True)
        until(lambda: find(browser, "#vote-button span").text == "Voted")
        until(lambda: find(browser, "#save summary").click() or True)
        _type(browser, "#save input[name=name]", "To read")
        until(lambda: find(browser, "#save form.fields button").click() or True)
        until(lambda: find(browser, "#save summary").text == "Saved")
        _type(browser, ".write textarea", "It *plans*.")
        until(lambda: find(browser, ".write button").click() or True)
        until(lambda: find(browser, ".comment-text em").text == "plans")
        moment = find(browser, ".comment-head time[data-moment]")
        assert moment.text.endswith(" UTC")
        browser.get(f"{local}/for-you")
        until(lambda: "Because you saved" in find(browser, ".because").text)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Kolkata"})
    try:
        visit(browser, visited)
        moment = find(browser, ".comment-head time[data-moment]")
        assert "5:30" in moment.text and moment.get_attribute("title").endswith(" UTC"), "in the reader's own zone"
    finally:
        browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})


def test_what_is_printed_has_a_title_and_dark_ink(browser: Any, address: str) -> None:
    show(browser, 768, 1000, dark=True)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    try:
        for path in ("/search?q=latent+reasoning", "/papers/trending", "/papers/2412.06769"):
            visit(browser, address + path)
            title = find(browser, "h1")
            assert title.is_displayed() and title.size["height"] > 15, path
            colour = title.value_of_css_property("color")
            red, green, blue = (int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3])
            assert max(red, green, blue) < 110, f"{path}: {colour} on white paper"
            for hidden in (
                ".top",
                ".search-line button",
                ".tools",
                ".steer",
                ".result-head",
                ".by-example",
                ".more-like",
            ):
                assert not any(one.is_displayed() for one in browser.find_elements("css selector", hidden)), (
                    path,
                    hidden,
                )
            if path.startswith("/search"):
                assert find(browser, "#q").is_displayed(), "what was asked"
            target = "return getComputedStyle(document.querySelector('.badge[href^=http]'), '::after').content"
            assert "http" in browser.execute_script(target), "where a link leads"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_the_readers_menu_closes_by_escape_and_when_it_is_left(browser: Any, local: str) -> None:
    from selenium.webdriver import Keys

    show(browser, 1280, 900)
    visit(browser, local + "/about")
    opened = "return document.querySelector('details.me').open"
    summary = find(browser, ".me summary")
    summary.click()
    find(browser, ".me nav a").send_keys(Keys.ESCAPE)
    assert not browser.execute_script(opened) and browser.switch_to.active_element == summary
    for leave in (lambda: find(browser, "h1").click(), lambda: find(browser, "main a").send_keys(Keys.SHIFT)):
        summary.click()
        assert browser.execute_script(opened)
        leave()
        assert not browser.execute_script(opened)


@pytest.mark.parametrize("dark", [False, True])
def test_the_pages_of_a_reader_fit_every_screen(browser: Any, local: str, dark: bool) -> None:
    for width in (360, 768, 1440):
        show(browser, width, 900, dark=dark)
        for path in ("/papers/2412.06769", "/account", "/lists", "/following", "/for-you"):
            visit(browser, local + path)
            assert overflow(browser) == 0, (path, width)
    check_quiet(browser, local)
