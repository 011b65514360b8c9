"""Every page of the site under axe-core: at a phone's width and a desk's, in light and in dark, without one finding."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from chromium import show, until, visit
from everything import SECRET, Served, everything
from fakes import HashEncoder
from mail_fakes import SENDER
from people import papers
from server import serving
from test_browser import browser, find

from installed import need
from nextvec.papers.ingest import ingest
from nextvec.papers.mail.transport import open_mailer
from nextvec.papers.records import Paper
from nextvec.papers.site import Site
from nextvec.papers.sources import moderation
from nextvec.papers.web import create_app

__all__ = ["browser"]  # a fixture

pytestmark = pytest.mark.browser
need("sklearn")
AXE = Path(__file__).parents[1] / "vendor" / "axe-core" / "axe.min.js"
# What stands in a frame is a page of its own here (/digest/preview/mail).
RUN = """
const [only, off, done] = arguments;
const options = {iframes: false, resultTypes: ["violations"], rules: {"target-size": {enabled: true}}};
if (only) Object.assign(options, {runOnly: {type: "rule", values: only}, rules: {}});
for (const rule of off) options.rules[rule] = {enabled: false};
axe.run(document, options).then((found) => done(found.violations.map((one) => [one.impact, one.id, one.help,
  one.nodes.slice(0, 4).map((node) => node.html.slice(0, 160) + " :: " +
    node.failureSummary.split("\\n").slice(1).join(" "))])),
  (error) => done(String(error)));
"""
STRANGER = [
    "/", "/?sort=newest", "/papers/date/1999-01-01", "/papers/trending", "/papers/rising",
    "/papers/discussed?days=all", "/papers/new?topic=language+model&votes=1&author=Nobody+Known", "{paper}",
    "/search", "/search?q=language+model",
    "/search?q=zzzz&mode=keyword", "/search?q=model&org=Nobody&votes=900", "/map", "/topics", "/topics/{topic}",
    "/about", "/api", "/nowhere", "/papers/new?from=soon", "/submit", "/submit/2405.13729",
    "/sign-in", "/sign-in/sent", "{link}",
    "{shared}", "/subscribe", "/subscribe?kind=search&q=planning&every=week", "/digest/preview",
    "/digest/preview?kind=topic", "{confirm}", "{manage}", "{unsubscribe}",
]  # fmt: skip
READER = ["/", "{paper}", "/search?q=language+model", "/account", "/account?saved=name", "/lists", "{list}",
          "/following", "/for-you", "/moderation", "{reply}", "{edit}"]  # fmt: skip
BARE = ["{paper}", "/sign-in", "/subscribe"]
EMPTY = ["/", "/search", "/search?q=plan", "/map", "/topics", "/papers/trending"]


@pytest.fixture(scope="module")
def served(few: list[Paper], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with everything(few, tmp_path_factory.mktemp("everything")) as made:
        yield made


def still(browser: Any, width: int, *, dark: bool = False) -> None:
    show(browser, width, 900, dark=dark, still=True)


def findings(browser: Any, only: list[str] | None = None, off: Sequence[str] = ()) -> list[str]:
    """What axe has against the page as it stands, one line each."""
    if not browser.execute_script("return 'axe' in window"):
        browser.execute_script(AXE.read_text(encoding="utf-8"))
    found = browser.execute_async_script(RUN, only, list(off))
    assert isinstance(found, list), found
    return [f"{impact}: {rule}: {said}\n    " + "\n    ".join(nodes) for impact, rule, said, nodes in found]


WAYS = [(1280, False), (360, True)]
"""Each width and each theme once; with ``--thorough`` the other pairs too, for contrast alone: only colours differ."""
OTHER_WAYS = [(1280, True), (360, False)]


def check(browser: Any, name: str, *, off: Sequence[str] = ()) -> None:
    """The page that is open, opened up, at both widths and in both themes."""
    browser.execute_script(OPEN)
    for width, dark in WAYS:
        look(browser, name, width, dark, None, off)


def look(browser: Any, name: str, width: int, dark: bool, only: list[str] | None, off: Sequence[str] = ()) -> None:
    still(browser, width, dark=dark)
    found = findings(browser, only, off)
    assert not found, f"{name} at {width} px{', dark' if dark else ''}:\n" + "\n".join(found)


CAME = """
const done = arguments[arguments.length - 1];
requestAnimationFrame(() => requestAnimationFrame(() => {
  const [page, ...rest] = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
  done([window.__shift, page.encodedBodySize + rest.reduce((sum, one) => sum + one.encodedBodySize, 0),
    rest.map((one) => one.name).filter((name) => !name.startsWith(location.origin + "/"))]);
}));
"""


def check_first_paint(browser: Any, name: str) -> None:
    """Nothing jumped, nothing was asked of anybody else, and all that came is light, as it came over the wire."""
    shift, size, elsewhere = browser.execute_async_script(CAME)
    assert shift < 0.02, (name, shift)
    assert elsewhere == [], name
    assert 0 < size < 100_000, (name, size)


OPEN = "for (const one of document.querySelectorAll('details')) one.open = true;"


PAGES = [
    (who, path)
    for who, paths in [("stranger", STRANGER), ("reader", READER), ("bare", BARE), ("empty", EMPTY)]
    for path in paths
]


@pytest.mark.parametrize(("who", "path"), PAGES)
def test_no_page_has_a_fault(browser: Any, served: Served, who: str, path: str) -> None:
    still(browser, 1280)
    visit(browser, getattr(served, who) + path.format(**vars(served)))
    assert find(browser, "main"), "and it came"
    check_first_paint(browser, f"{who} {path}")
    check(browser, f"{who} {path}")


@pytest.mark.thorough
@pytest.mark.parametrize(("who", "path"), PAGES)
def test_no_page_lacks_contrast_otherwise(browser: Any, served: Served, who: str, path: str) -> None:
    visit(browser, getattr(served, who) + path.format(**vars(served)))
    browser.execute_script(OPEN)
    for width, dark in OTHER_WAYS:
        look(browser, f"{who} {path}", width, dark, ["color-contrast"])


def test_a_token_just_made_has_no_fault(browser: Any, served: Served) -> None:
    still(browser, 1280)
    visit(browser, served.reader + "/account")
    form = find(browser, 'form[action="/account/tokens#tokens"]')
    form.find_element("css selector", '[name="name"]').send_keys("A program")
    form.find_element("css selector", "button").click()
    assert find(browser, ".token code").text.startswith("nvp_")
    check(browser, "a token just made")


def test_no_mail_has_a_fault(browser: Any, served: Served) -> None:
    """The mail's own document allows no script, not even axe: its text is looked at outside of its sandbox."""
    html = httpx.get(served.stranger + "/digest/preview/mail").content
    still(browser, 1280)
    visit(browser, "data:text/html;base64," + base64.b64encode(html).decode())
    check(browser, "the mail", off=("landmark-one-main", "region"))  # a mail is a part of its reader's page


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A site where things go wrong, for its local reader and for a stranger: no vectors, a page that crashes, a paper
    that was taken away."""
    folder = tmp_path_factory.mktemp("broken")
    site = Site(folder / "site", encoder=HashEncoder())
    ingest(site, papers())
    moderation.hide(site.db, papers()[0].id, reason="posted twice", actor="ada")
    mail: dict[str, Any] = {"mailer": open_mailer(f"file://{folder}/out", sender=SENDER), "secret": SECRET}
    without = Site(folder / "site", encoder=HashEncoder())  # opens the vectors when they are gone
    shutil.rmtree(site.vectors_path)
    reader, stranger = create_app(without, local_reader=True, **mail), create_app(site, base="http://127.0.0.1", **mail)
    reader.add_api_route("/crash", _crash)
    with serving(reader) as one, serving(stranger) as other:
        stranger.state.base = other  # forms come from the site's own address, which has a port only now
        yield one, other
    site.close()
    without.close()


def _crash() -> None:
    raise RuntimeError("a fault of the tests")


SEND = """
const form = document.createElement("form");
form.method = "post";
form.action = arguments[0];
for (const [name, value] of Object.entries(arguments[1])) {
  form.append(Object.assign(document.createElement("input"), {type: "hidden", name, value}));
}
document.body.append(form);
form.submit();
"""


@pytest.mark.parametrize(
    ("status", "path"),
    [
        ("400", "/papers/new?from=soon"),
        ("404", "/papers/1999.00001"),
        ("405", "/theme"),
        ("410", f"/papers/{papers()[0].id}"),
        ("500", "/crash"),
        ("503", "/search?q=plan"),
    ],
)
def test_no_error_page_has_a_fault(browser: Any, broken: tuple[str, str], status: str, path: str) -> None:
    still(browser, 1280)
    visit(browser, broken[0] + path)
    assert find(browser, ".status").text == status and find(browser, "h1").text
    check(browser, f"error {status}")


@pytest.mark.parametrize(
    ("status", "path", "fields"),
    [
        ("403", "/account/name", {"token": "another session's", "name": "Ada"}),
        ("413", "/account/name", {"name": "a" * 70_000}),
        ("404", "/save", {"token": "{own}", "paper": "1999.00001", "name": "To read"}),
        ("400", "/comments", {"token": "{own}", "paper": "p1", "text": "a" * 60_000}),
    ],
)
def test_no_refusal_of_a_form_has_a_fault(
    browser: Any, broken: tuple[str, str], status: str, path: str, fields: dict[str, str]
) -> None:
    still(browser, 1280)
    visit(browser, broken[0] + "/account")
    own = find(browser, 'form[action="/account/name"] [name="token"]').get_attribute("value")
    browser.execute_script(SEND, path, {name: own if value == "{own}" else value for name, value in fields.items()})
    until(lambda: find(browser, ".status").text == status)
    assert "way back leads to the form" in find(browser, "main").text
    check(browser, f"{status} of {path}")


@pytest.mark.parametrize(
    ("path", "selector", "typed"),
    [
        ("/submit", "#link", "my paper"),
        ("/subscribe?kind=search&q=planning", "[name=address]", "nobody"),
        ("/sign-in", "[name=email]", "nobody"),
    ],
)
def test_a_form_that_is_sent_back_has_no_fault(
    browser: Any, broken: tuple[str, str], path: str, selector: str, typed: str
) -> None:
    """The server's own complaint, as a browser without checks of its own sees it."""
    still(browser, 1280)
    visit(browser, broken[1] + path)
    find(browser, selector).send_keys(typed)
    browser.execute_script(
        "const form = arguments[0].form; form.noValidate = true; form.submit()", find(browser, selector)
    )
    until(lambda: find(browser, "#problem").text)
    field = find(browser, selector)
    assert field.get_attribute("value") == typed, "nothing has to be typed again"
    assert field.get_attribute("aria-invalid") == "true" and field.get_attribute("aria-describedby") == "problem"
    check(browser, f"{path}, sent back")


def test_too_many_forms_have_no_fault(browser: Any, broken: tuple[str, str]) -> None:
    from selenium.common.exceptions import WebDriverException

    again = """
    const [path, times, done] = arguments;
    const send = () => fetch(path, {method: "POST", body: new URLSearchParams()});
    // On a slow machine some are allowed again meanwhile: until one is refused.
    (async () => { for (let i = 0; i < times && (await send()).status !== 429; i++); })().then(done);
    """
    still(browser, 1280)
    visit(browser, broken[1] + "/submit")
    for path, times, told in (("/submit", 70, ".notice"), ("/sign-in", 1_250, ".lede")):

        def refused(path: str = path, times: int = times, told: str = told) -> bool:
            browser.execute_async_script(again, path, times)
            browser.execute_script(SEND, path, {})
            try:
                until(lambda: "try again in" in find(browser, told).text, seconds=3)
            except (AssertionError, WebDriverException):
                return False
            return True

        # A form is allowed again when the oldest one is a minute old, which may be between the two.
        assert any(refused() for _ in range(6)), f"{path} takes any number of forms"
        check(browser, f"429 of {path}")


@pytest.mark.parametrize("language", ["ar", "de", "ja", "en-US"])
def test_days_and_numbers_of_other_languages_break_nothing(browser: Any, served: Served, language: str) -> None:
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"Accept-Language": language}})
    try:
        for path in (
            "/",
            "/papers/new?from=2020-01-01&votes=1",
            "/search?q=language+model&to=2026-08-30",
            served.paper,
        ):
            visit(browser, served.stranger + path)
            for width in (1440, 360):
                still(browser, width)
                assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth"), path
            assert findings(browser, off=["color-contrast"]) == [], (language, path)  # words change no colour
        text = browser.execute_script("return document.querySelector('.facts time').textContent")
        assert ("202" in text) and text != browser.execute_script(
            "return document.querySelector('.facts time').dateTime"
        )
    finally:
        browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {}})
