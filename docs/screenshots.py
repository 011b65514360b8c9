"""The pictures of the documentation: pages of the site over the bundled papers, in headless Chromium, as WebP.

    python docs/screenshots.py                       # builds a site in a temporary folder: some minutes
    python docs/screenshots.py --home FOLDER         # or in a folder, where it is found the next time
    python docs/screenshots.py --only paper map-dark

Writes docs/images/NAME.webp. The same papers, the same reader and the same browser give the same pictures, but for the
day on which the reader wrote. Needs Debian's ``chromium`` and ``chromium-driver``, and the extras of development.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "papers"))  # the driver is the tests'

import chromium

from nextvec.papers.accounts import comments, interests, lists, votes
from nextvec.papers.accounts.readers import local_reader
from nextvec.papers.ingest import prepare
from nextvec.papers.insight.build import update
from nextvec.papers.insight.people import build_people
from nextvec.papers.insight.topics import build_topics
from nextvec.papers.site import Site

IMAGES = Path(__file__).parent / "images"
LARGEST = 120_000  # bytes of one picture
PAPER = "2412.06769"
COMMENT = """\
The **curriculum** seems to matter more than the architecture:

> Without it, most of the gain is gone.

Has anybody tried longer chains?"""
NOTES = {
    PAPER: "Start here.",
    "2502.03275": "The same idea with discrete latent tokens.",
    "2507.06203": "The survey; section 4 compares training schemes.",
}
FOLLOWED = (("topic", "world models"), ("org", "NVIDIA"), ("search", "/search?q=latent+reasoning"))


@dataclass(frozen=True, slots=True)
class Picture:
    """A page as a screen of ``size`` shows it, after ``script``."""

    name: str
    path: str
    size: tuple[int, int] = (1200, 760)
    dark: bool = False
    script: str = ""


PHONE = (390, 780)
SEARCH = "/search?q=thinking+in+latent+space+instead+of+words"
OPEN = "document.querySelector('details.narrow').open = true"
PICTURES = (
    Picture("feed", "/"),
    Picture("feed-dark", "/", dark=True),
    Picture("feed-phone", "/", PHONE),
    Picture("filters", "/papers/trending?half=7&topic=world+models,+robots&code=1&votes=5", script=OPEN),
    Picture("search", SEARCH + "&votes=5"),
    Picture("search-phone-dark", SEARCH, PHONE, dark=True),
    Picture("example", f"/search?like={PAPER}&unlike=2501.12948"),
    Picture("paper", f"/papers/{PAPER}"),
    Picture("paper-phone-dark", f"/papers/{PAPER}", PHONE, dark=True),
    Picture("similar", f"/papers/{PAPER}", (900, 700), script="document.querySelector('#similar').scrollIntoView()"),
    Picture("map-dark", "/map", (1200, 860), dark=True),
    Picture("topics", "/topics"),
    Picture("list", "/lists/{list}"),
    Picture("for-you", "/for-you"),
    Picture("digest", "/digest/preview", (1000, 760)),
)


def fill(home: Path) -> str:
    """The bundled papers, what is worked out about them, and what a reader has done; the id of the reader's list."""
    site = Site(home)
    try:
        prepare(site)
        with site.writing():
            update(site)
            build_topics(site)
            build_people(site)
        reader = local_reader(site.db).id
        known = lists.of_reader(site.db, reader)
        return known[0].id if known else _act(site, reader)
    finally:
        site.close()


def _act(site: Site, reader: str) -> str:
    """What the reader does, once."""
    votes.give(site.db, reader, PAPER)
    comments.write(site.db, reader, PAPER, COMMENT)
    kept = ""
    for paper, note in NOTES.items():
        kept = lists.add(site.db, reader, kept or None, paper, name="Thinking in latents", note=note)
    for kind, said in FOLLOWED:
        interests.choose(site.db, reader, kind, said, "follow")
    return kept


@contextlib.contextmanager
def served(home: Path, mails: Path) -> Iterator[str]:
    """The address of the site, for its local reader."""
    command = [sys.executable, "-m", "nextvec.cli.main", "papers", "serve", "--home", str(home), "--port", "8460"]
    command += ["--local-reader", "--mail", mails.as_uri(), "--mail-from", "papers@example.org"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        found = re.search(r"http://\S+:\d+", server.stdout.readline() if server.stdout else "")
        if found is None:
            raise SystemExit("the site did not start")
        yield found.group(0)
    finally:
        server.terminate()
        server.wait(timeout=30)


def take(browser: Any, picture: Picture, address: str) -> int:
    """Bytes of the picture that was written."""
    chromium.show(browser, *picture.size, dark=picture.dark, still=True)
    chromium.visit(browser, address)
    browser.execute_script(f"document.activeElement.blur(); {picture.script}")
    browser.execute_async_script("document.fonts.ready.then(() => requestAnimationFrame(arguments[0]))")
    for quality in (85, 75, 65, 50):
        shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "webp", "quality": quality})
        body = base64.b64decode(shot["data"])
        if len(body) <= LARGEST:
            break
    (IMAGES / f"{picture.name}.webp").write_bytes(body)
    return len(body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="a folder of a site for this alone")
    parser.add_argument("--only", nargs="+", choices=[one.name for one in PICTURES], help="only these pictures")
    arguments = parser.parse_args()
    if chromium.CHROMIUM is None or chromium.DRIVER is None:
        raise SystemExit(chromium.MISSING)
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        home = arguments.home or Path(folder) / "site"
        kept = fill(home)
        browser = chromium.start(Path(folder) / "profile")
        try:
            with served(home, Path(folder) / "mails") as address:
                for picture in PICTURES:
                    if not arguments.only or picture.name in arguments.only:
                        size = take(browser, picture, address + picture.path.format(list=kept))
                        print(f"{picture.name}.webp {size / 1000:.0f} kB", flush=True)
        finally:
            browser.quit()


if __name__ == "__main__":
    main()
