"""Days and numbers in the reader's language: which one is taken, what changes on a page and what must not."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime

import pytest
from fastapi.testclient import TestClient
from test_web import PATHS, Page

from nextvec.papers import feed, languages, shown

DAY = date(2025, 2, 28)
ELEMENT = re.compile(r"<(time|bdi|th)\b([^>]*)>(.*?)</\1>", re.DOTALL)
PAGES = [path for path in PATHS if "page=2" not in path]


def get(client: TestClient, path: str, language: str | None) -> str:
    response = client.get(path, headers={"accept-language": language} if language is not None else {})
    assert response.headers["content-type"].startswith("text/html")
    return response.text


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, ""), ("", ""), ("*", ""), ("en", ""), ("en;q=0.9, de;q=0.8", ""), ("*;q=0.5, de;q=0.1", ""),
        ("de", "de"), ("DE-de", "de-DE"), ("de-AT, en;q=0.5", "de-AT"), ("fr-CA,fr;q=0.9", "fr-CA"), ("ja", "ja"),
        ("ar-EG", "ar-EG"), ("en-US,en;q=0.5", "en-US"), ("en-GB", "en-GB"), ("zh-TW", "zh-Hant-TW"),
        ("en;q=0.1, fr;q=0.9", "fr"), ("de;q=0, fr;q=0.1", "fr"), ("tlh, xx-YY, sv ; q=0.3", "sv"),
        ("de-QQ", "de"), ("de-1234-5678", "de"),  # a country nobody knows: its language
        ("de;q=2", ""), ("de;q=x", ""), ("de;level=1", ""), ("de_AT", ""), ("../../etc/passwd", ""),
        ("<script>", ""), ("de\x00", ""), (",,;;q=,", ""), ("d" * 5_000, ""), ("de," * 2_000, ""),
        ("en-Latn-US-posix-x-y-z", ""), ("\u00e4\u00f6", ""),
    ],
)  # fmt: skip
def test_the_first_known_language_is_taken_and_anything_else_is_the_sites_own(
    header: str | None, expected: str
) -> None:
    assert languages.negotiated(header) == expected


@pytest.mark.parametrize(
    ("tag", "day", "full", "short", "number"),
    [
        ("", "28 Feb 2025", "Friday, 28 February 2025", "28 Feb", "1,234,567"),
        ("en-GB", "28 Feb 2025", "Friday, 28 February 2025", "28 Feb", "1,234,567"),
        ("en-US", "Feb 28, 2025", "Friday, February 28, 2025", "Feb 28", "1,234,567"),
        ("de", "28. Feb. 2025", "Freitag, 28. Februar 2025", "28. Feb.", "1.234.567"),
        ("fr", "28 févr. 2025", "vendredi 28 février 2025", "28 févr.", "1\u202f234\u202f567"),
        ("ja", "2025年2月28日", "2025年2月28日金曜日", "2月28日", "1,234,567"),
        ("ar-EG", "28 فبراير 2025", "الجمعة، 28 فبراير 2025", "28 فبراير", "1,234,567"),
        ("fa", "28 فوریه 2025", "جمعه 28 فوریه 2025", "28 فوریه", "1,234,567"),  # Gregorian, Latin digits
        ("hi", "28 फ़र॰ 2025", "शुक्रवार, 28 फ़रवरी 2025", "28 फ़र॰", "12,34,567"),
    ],
)
def test_how_a_language_writes(tag: str, day: str, full: str, short: str, number: str) -> None:
    shapes: list[languages.Shape] = ["day", "full", "short"]
    assert [languages.written(tag, DAY, shape) for shape in shapes] == [day, full, short]
    assert languages.grouped(tag, 1_234_567) == number


def test_what_is_written_says_its_language_and_direction() -> None:
    filters = shown.FILTERS
    moment = datetime(2025, 2, 28, 9, 5)
    with languages.speaking("ar"):
        assert filters["day"](DAY) == '<time datetime="2025-02-28" lang="ar" dir="rtl">28 فبراير 2025</time>'
        assert filters["number"](9_877) == "9,877"  # the same as in English, so it is not said to be anything else
    with languages.speaking("de"):
        assert filters["number"](9_877) == '<bdi lang="de">9.877</bdi>'
        assert filters["compact"](12_345) == '<bdi lang="de">12,3k</bdi>'
        assert filters["plural"](1_234, "paper") == '<bdi lang="de">1.234</bdi> papers'
        assert filters["figure"]("0.25") == '<bdi lang="de">0,25</bdi>'
        assert filters["period"](feed.week(DAY)) == '<time datetime="2025-W09">Week 9, 2025</time>'
        assert filters["period"](feed.month(DAY)) == '<time datetime="2025-02" lang="de">Februar 2025</time>'
        assert filters["moment"](moment).endswith('Z" data-moment lang="de">28. Feb. 2025, 09:05 UTC</time>')
        # Where markup cannot say that it is German it is not.
        assert filters["period_said"](feed.day(DAY)) == "Friday, 28 February 2025"
        assert filters["plural_said"](1_234, "paper") == "1,234 papers"
    with languages.speaking("en-US"):
        assert filters["day"](DAY) == '<time datetime="2025-02-28">Feb 28, 2025</time>'
        assert filters["period_said"](feed.day(DAY)) == "Friday, February 28, 2025"
    with pytest.raises(ZeroDivisionError), languages.speaking("de"):
        _ = 1 / 0
    assert languages.current() == ""
    assert filters["day"](DAY) == '<time datetime="2025-02-28">28 Feb 2025</time>'


@pytest.mark.parametrize("path", PAGES)
def test_nothing_but_days_and_numbers_differs(client: TestClient, path: str) -> None:
    english, german = get(client, path, None), get(client, path, "de-DE,de;q=0.9,en;q=0.8")
    Page(german)
    german_names = {
        names[1]: own[1] for names, own in zip(languages.weekdays("de"), languages.weekdays(""), strict=True)
    }

    def back(match: re.Match[str]) -> str:
        tag, attributes, inside = match.groups()
        if tag == "bdi":
            assert attributes == ' lang="de-DE"'
            return german_names.get(inside) or inside.translate({ord("."): ",", ord(","): "."})
        datetime_ = re.search(r'datetime="([^"]*)"', attributes)
        return f"<{tag} {datetime_[1] if datetime_ else ''}>"

    assert ELEMENT.sub(back, german) == ELEMENT.sub(back, english)
    as_before = {inside for _, _, inside in ELEMENT.findall(english)}  # August 2026
    for tag, attributes, inside in ELEMENT.findall(german):
        if tag == "time" and inside not in as_before:
            assert 'lang="de-DE"' in attributes, (attributes, inside)


@pytest.mark.parametrize(
    "path", ["/papers/month/2026-08", "/papers/trending?from=2026-01-01", "/search?q=model&to=2026-08-01"]
)
def test_letters_that_run_the_other_way_stay_in_their_elements(client: TestClient, path: str) -> None:
    page = get(client, path, "ar")
    Page(page)
    arabic = re.compile(r"[\u0600-\u06ff]")
    found = [match for match in ELEMENT.finditer(page) if arabic.search(match[3])]
    assert len(found) > 5
    assert all('lang="ar" dir="rtl"' in match[2] for match in found)
    assert not arabic.search(ELEMENT.sub("", page))


def test_pages_differ_by_language_and_say_so(client: TestClient) -> None:
    for path in PAGES:
        response = client.get(path, headers={"accept-language": "fr"})
        assert "Accept-Language" in re.split(r", *", response.headers["vary"]), path
        # Without a validator nobody is told that the page of another language is still good.
        assert "etag" not in response.headers and "last-modified" not in response.headers
        assert "no-cache" in response.headers["cache-control"]


def test_one_readers_page_is_not_anothers(client: TestClient) -> None:
    wanted = {"de": "21. Aug. 2026", "en-US": "Aug 21, 2026", "ja": "2026年8月21日", "junk;;": "21 Aug 2026"}

    def titles(language: str) -> set[str]:
        texts = {element[2] for element in ELEMENT.findall(get(client, "/papers/month/2026-08", language))}
        return {language for language, text in wanted.items() if text in texts}

    asked = list(wanted) * 8
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(titles, asked)) == [{language} for language in asked]


@pytest.mark.parametrize(
    "path",
    ["/papers/daily.atom", "/papers/trending.rss", "/papers/month/2026-08.json", "/search.atom?q=model",
     "/api/papers/evil%2Fone", "/api/daily_papers?limit=3", "/papers/evil/one.md", "/robots.txt"],
)  # fmt: skip
def test_what_programs_read_is_in_no_language(client: TestClient, path: str) -> None:
    plain, german = client.get(path), client.get(path, headers={"accept-language": "de"})
    assert plain.content == german.content
    assert plain.headers.get("etag") == german.headers.get("etag")
    assert "Accept-Language" not in german.headers.get("vary", "")
    if tag := plain.headers.get("etag"):
        again = client.get(path, headers={"accept-language": "ja", "if-none-match": tag})
        assert again.status_code == 304
