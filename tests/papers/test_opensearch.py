from __future__ import annotations

import re
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

import pytest
from fastapi.testclient import TestClient

from nextvec.papers.site import Site
from nextvec.papers.web import create_app

pytestmark = pytest.mark.both

SPACE = "{http://a9.com/-/spec/opensearch/1.1/}"


def test_browsers_find_the_description_on_every_page_and_all_it_says_works(small: Site) -> None:
    client = TestClient(create_app(small, base="https://papers.example.org"), follow_redirects=False)
    for path in ("/", "/search", "/papers/trending", "/about", "/nowhere"):
        found = re.search(r'<link rel="search" type="([^"]+)" title="[^"]+" href="([^"]+)"', client.get(path).text)
        assert found and found[1] == "application/opensearchdescription+xml"
    response = client.get(found[2])
    assert response.headers["content-type"].startswith("application/opensearchdescription+xml")
    assert "public" in response.headers["cache-control"]
    root = ElementTree.fromstring(response.content)
    assert root.tag == f"{SPACE}OpenSearchDescription"
    assert 0 < len(root.findtext(f"{SPACE}ShortName") or "") <= 16 and root.findtext(f"{SPACE}Description")
    urls = {url.get("type"): url.get("template") or "" for url in root.findall(f"{SPACE}Url")}
    assert set(urls) == {
        "text/html", "application/atom+xml", "application/x-suggestions+json", "application/opensearchdescription+xml",
    }  # fmt: skip
    for kind, template in urls.items():
        assert template.startswith("https://papers.example.org/")
        target = urlsplit(template.replace("{searchTerms}", quote("language model")))
        answer = client.get(f"{target.path}?{target.query}")
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind or "?")


def test_the_description_follows_the_host_that_asked(client: TestClient) -> None:
    body = client.get("/opensearch.xml", headers={"host": "papers.lan:8000"})
    assert b'template="http://papers.lan:8000/search?q={searchTerms}"' in body.content
    assert "private" in body.headers["cache-control"]
    assert client.get("/opensearch.xml", headers={"host": '"><x'}).status_code == 400


def test_suggestions_are_the_four_lists_that_browsers_read(client: TestClient) -> None:
    typed, texts, told, addresses = client.get("/search/suggest.json?q=lang").json()
    assert typed == "lang" and len(texts) == len(told) == len(addresses) > 0
    assert any("lang" in text.lower() for text in texts)
    for address in addresses:
        target = urlsplit(address)
        assert target.netloc == "testserver"
        assert client.get(f"{target.path}?{target.query}").status_code == 200
    assert client.get("/search/suggest.json?q=l").json() == ["l", [], [], []]
    assert client.get("/search/suggest.json").json() == ["", [], [], []]
    assert client.get("/search/suggest.json?q=" + "a" * 300).status_code == 400
