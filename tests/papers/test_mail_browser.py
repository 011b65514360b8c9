"""The pages of mail in a real browser: the form, a preview in its frame, a whole subscription without JavaScript."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from chromium import show, until, visit
from mail_fakes import SENDER, link, made_post, made_site, parsed, week
from test_browser import browser, check_quiet, find, overflow

from nextvec.papers.mail.transport import open_mailer
from nextvec.papers.signing import Signer, load_secret
from nextvec.papers.site import Site
from nextvec.papers.web import create_app

pytestmark = pytest.mark.browser
__all__ = ["browser"]  # the fixture


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Site, Path]]:
    """(address, site, folder of its mails) of a site with mail, served by a thread of this process."""
    import uvicorn

    folder = tmp_path_factory.mktemp("browser")
    site = made_site(folder / "site", week(days=7))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    application = create_app(site, base=base, mailer=open_mailer(f"file://{folder}/out", sender=SENDER))
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", site, folder / "out"
    server.should_exit = True
    thread.join(timeout=20)
    site.close()


def shown(browser: Any, selector: str) -> bool:
    return bool(browser.execute_script("return document.querySelector(arguments[0]).offsetParent !== null", selector))


@pytest.mark.parametrize(("width", "dark"), [(360, False), (768, True), (1440, False)])
def test_the_form_shows_what_a_choice_needs(
    browser: Any, served: tuple[str, Site, Path], width: int, dark: bool
) -> None:
    address, _, _ = served
    show(browser, width, 900, dark=dark)
    visit(browser, f"{address}/subscribe?topic=agents")
    assert overflow(browser) == 0 and find(browser, "select.kind").get_attribute("value") == "topic"
    assert (shown(browser, ".if-search"), shown(browser, ".if-week"), shown(browser, ".if-day")) == (False, False, True)
    check_quiet(browser, address)
    find(browser, "select.kind option[value=search]").click()
    find(browser, "select.every option[value=week]").click()
    assert (shown(browser, ".if-search"), shown(browser, ".if-week"), shown(browser, ".if-day")) == (True, True, False)
    for path in ("/digest/preview", "/digest/preview?kind=topic&topic=agents&every=week"):
        visit(browser, address + path)
        assert overflow(browser) == 0
        browser.switch_to.frame(find(browser, "iframe.mail"))
        assert find(browser, "h1").text and overflow(browser) == 0
        browser.switch_to.default_content()


def test_a_subscription_without_javascript(browser: Any, served: tuple[str, Site, Path]) -> None:
    address, site, out = served
    show(browser, 1000, 900)
    visit(browser, f"{address}/papers/trending")
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        find(browser, ".inbox a").click()
        until(lambda: find(browser, "input[name=address]").send_keys("ada@example.org") or True)
        find(browser, ".send button").click()
        until(lambda: find(browser, "h1").text == "Look into your mailbox")
        post = made_post(site)
        post.composer.base, post.composer.signer = address, Signer(load_secret(site.home))
        post.send(open_mailer(f"file://{out}", sender=SENDER), datetime.now(UTC).replace(tzinfo=None))
        (path,) = out.glob("confirm*.eml")
        browser.get(address + link(parsed(path.read_bytes()), "/subscribe/confirm/"))
        until(lambda: find(browser, ".send button").click() or True)
        until(lambda: find(browser, "h1").text == "You are subscribed")
        find(browser, ".aside a").click()
        until(lambda: find(browser, ".subscribed h2").text == "Daily trending papers")
        find(browser, "button[value=end]").click()
        until(lambda: find(browser, "h1").text == "You are unsubscribed")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
