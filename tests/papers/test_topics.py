"""Topics, their map and their trends."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from fakes import HashEncoder
from fastapi.testclient import TestClient
from test_web import Page

from installed import need
from nextvec.papers.ingest import ingest
from nextvec.papers.insight import drawing
from nextvec.papers.insight.lines import sparkline
from nextvec.papers.insight.topics import Topic, Topics, build_topics, load_topics, place_new, topics_path
from nextvec.papers.insight.trends import _z_test, trends
from nextvec.papers.records import Paper
from nextvec.papers.site import Site
from nextvec.papers.web import create_app
from nextvec.types import InputError

need("sklearn")

SUBJECTS = {
    "robots": "robot arms grasp cups with tactile sensors",
    "memory": "language models keep long documents in external memory",
    "video": "video diffusion generates smooth motion frames",
    "proteins": "protein folding predicts amino acid structures",
}


def paper(subject: str, number: int, *, day: date = date(2025, 1, 1)) -> Paper:
    text = SUBJECTS[subject]
    return Paper(
        id=f"{subject}-{number}",
        title=f"{text.title()} {number}",
        summary=f"We study how {text}. Trial {number} works.",
        daily_date=day,
        upvotes=number,
    )


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("topics"), encoder=HashEncoder())
    ingest(site, [paper(subject, i) for subject in SUBJECTS for i in range(12)])
    build_topics(site, count=4)
    yield site
    site.close()


def test_topics_are_what_papers_have_in_common(shelf: Site) -> None:
    topics = load_topics(shelf)
    assert topics is not None and len(topics.topics) == 4 and sum(one.papers for one in topics.topics) == 48
    for topic in topics.topics:
        members = topics.members(topic)
        subject = members[0].split("-")[0]
        assert {one.split("-")[0] for one in members} == {subject} and len(members) == topic.papers == 12
        assert any(word.lower() in SUBJECTS[subject] for word in topic.label.split()), topic.label
    slugs = [topic.slug for topic in topics.topics]
    assert len(set(slugs)) == 4 and all(re.fullmatch(r"[a-z0-9-]+", slug) for slug in slugs)


def test_topics_are_the_same_every_time(shelf: Site) -> None:
    first = load_topics(shelf)
    again = build_topics(shelf, count=4)
    assert first is not None and first.topics == again.topics
    np.testing.assert_allclose(first.places, again.places, atol=1e-4)


def test_near_papers_lie_near_on_the_map(shelf: Site) -> None:
    topics = load_topics(shelf)
    assert topics is not None and topics.places.min() >= 0 and topics.places.max() <= 1
    distance = np.linalg.norm(topics.places[:, None] - topics.places[None], axis=2) + 9 * np.eye(48)
    nearest = topics.of[np.argmin(distance, axis=1)]
    assert np.mean(nearest == topics.of) > 0.9


def test_new_papers_find_their_topic_and_move_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path, encoder=HashEncoder())
    ingest(site, [paper(subject, i) for subject in SUBJECTS for i in range(12)])
    before = build_topics(site, count=4)
    assert place_new(site) is None
    ingest(site, [paper("robots", 50), paper("video", 50)])  # an ingest places them
    after = load_topics(site)
    assert after is not None and len(after.ids) == 50
    assert (
        after.of_paper["robots-50"] == after.of_paper["robots-0"]
        and after.of_paper["video-50"] == after.of_paper["video-3"]
    )
    np.testing.assert_array_equal(after.places[:48], before.places)
    assert [one.slug for one in after.topics] == [one.slug for one in before.topics]
    site.collection.delete(["robots-50"])
    gone = place_new(site)
    assert gone is not None and "robots-50" not in gone.ids and len(gone.ids) == 49
    ingest(site, [paper(subject, i) for subject in SUBJECTS for i in range(60, 70)])
    assert len(build_topics(site).topics) == 4 or load_topics(site) is not None, "many new ones: made anew"
    site.close()


def test_too_few_papers_and_damaged_files(tmp_path: Path) -> None:
    site = Site(tmp_path, encoder=HashEncoder())
    ingest(site, [paper("robots", i) for i in range(3)])
    with pytest.raises(InputError, match="3 papers have embeddings; topics need at least 10"):
        build_topics(site)
    topics_path(site).parent.mkdir(exist_ok=True)
    topics_path(site).write_bytes(b"garbage")
    assert load_topics(site) is None
    assert "nextvec papers insight" in TestClient(create_app(site)).get("/map").text
    site.close()


# -- the drawing ---------------------------------------------------------------------------------------------------
def _many(papers: int, topics: int) -> Topics:
    rng = np.random.default_rng(0)
    of = rng.integers(0, topics, papers).astype(np.int32)
    middles = rng.random((topics, 2))
    places = np.clip(middles[of] + rng.normal(0, 0.06, (papers, 2)), 0, 1).astype(np.float32)
    sizes = np.bincount(of, minlength=topics)
    made = [
        Topic(i, f"topic-{i}", f"A topic called {i}" + " more" * (i % 4), [f"t{i}"], int(sizes[i]))
        for i in range(topics)
    ]
    return Topics(
        "e",
        made,
        [f"p{i}" for i in range(papers)],
        of,
        places,
        np.eye(topics, 8, dtype=np.float32),
        np.ones(papers, bool),
    )


@pytest.mark.parametrize("screen", ["wide", "narrow"])
def test_labels_do_not_touch(screen: str) -> None:
    made = drawing.draw(_many(4_000, 50))
    size = {"wide": 15.0, "narrow": 34.0}[screen]
    shown = [label for label in made.labels[screen] if not label.minor]
    assert len(made.labels[screen]) == 50 and len(shown) >= (25 if screen == "wide" else 4)
    boxes = []
    for label in shown:
        half, tall = len(label.topic.label) * size * 0.55 / 2, size * 0.6
        boxes.append((label.x - half, label.y - tall, label.x + half, label.y + tall))
        assert (
            boxes[-1][0] >= 0 and boxes[-1][2] <= drawing.WIDTH and boxes[-1][1] >= 0 and boxes[-1][3] <= drawing.HEIGHT
        )
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            assert one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]


def test_every_paper_lies_in_a_cell_near_it() -> None:
    radius = 9.0
    rng = np.random.default_rng(1)
    for x, y in rng.random((500, 2)) * [1_000, 640]:
        column, row = drawing._cell(float(x), float(y), radius)
        middle = (column * radius * math.sqrt(3) + (radius * math.sqrt(3) / 2 if row % 2 else 0), row * radius * 1.5)
        assert math.hypot(middle[0] - x, middle[1] - y) <= radius * 1.001


def test_many_papers_are_density_and_few_are_dots() -> None:
    many, few = drawing.draw(_many(5_000, 20)), drawing.draw(_many(200, 5))
    assert not any(region.dots for region in many.regions) and all(
        set(region.paths) <= {1, 2, 3, 4} for region in many.regions
    )
    assert all(region.dots for region in few.regions)
    assert sum(path.count("M") for region in few.regions for path in region.paths.values()) == 200
    assert (
        sum(len(path) for region in drawing.draw(_many(60_000, 60)).regions for path in region.paths.values()) < 70_000
    )
    colours = many.colours
    assert set(colours) == set(range(8)) and colours == drawing.draw(_many(5_000, 20)).colours


# -- trends --------------------------------------------------------------------------------------------------------
def test_shares_and_what_rises(shelf: Site) -> None:
    known = load_topics(shelf)
    assert known is not None
    end, rng = date(2026, 6, 30), np.random.default_rng(2)
    ids, of, days = [], [], {}
    for i in range(4_000):
        day = end - timedelta(days=int(rng.integers(0, 364)))
        late = day > end - timedelta(days=91)
        number = int(rng.choice(4, p=[0.4, 0.1, 0.25, 0.25] if late else [0.25, 0.25, 0.25, 0.25]))
        ids.append(f"x{i}")
        of.append(number)
        days[f"x{i}"] = day
    days["x0"] = end
    topics = replace(known, ids=ids, of=np.array(of, np.int32))
    found = trends(topics, days, "month")
    assert [trend.way for trend in found] == ["rises", "falls", "holds", "holds"]
    assert found[0].late == pytest.approx(0.4, abs=0.05) and found[0].before == pytest.approx(0.25, abs=0.05)
    whole = [sum(trend.counts[i] for trend in found) for i in range(len(found[0].periods))]
    assert sum(whole) == 4_000
    for i, total in enumerate(whole):
        shares = [trend.shares[i] for trend in found]
        assert all(share is None for share in shares) if total < 20 else sum(filter(None, shares)) == pytest.approx(1)
    weeks = trends(topics, days, "week")
    assert [trend.p for trend in weeks] == [trend.p for trend in found], "the test does not depend on the step"
    assert trends(topics, {}, "month") == []


def test_nothing_rises_by_chance(shelf: Site) -> None:
    known = load_topics(shelf)
    assert known is not None
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        days = {
            f"x{i}": date(2026, 6, 30) - timedelta(days=int(age)) for i, age in enumerate(rng.integers(0, 364, 800))
        }
        topics = replace(known, ids=list(days), of=rng.integers(0, 4, 800).astype(np.int32))
        found += any(trend.way != "holds" for trend in trends(topics, days, "month"))
    assert found <= 6, "5 % of 40 are 2"


def test_the_z_test_is_the_pooled_one() -> None:
    # By hand: p = 0.3, spread = sqrt(0.21 * 0.02) = 0.0648, z = 0.2 / 0.0648 = 3.086, p = 0.00203.
    assert _z_test(40, 100, 20, 100) == pytest.approx(0.00203, abs=2e-5)
    assert _z_test(5, 10, 50, 100) == 1.0 and _z_test(0, 0, 1, 2) == 1.0 and _z_test(0, 5, 0, 5) == 1.0


def test_lines_have_gaps_and_an_end() -> None:
    line = str(sparkline([0.1, None, 0.2, 0.4], 0.4, colour=3))
    assert line.count("M") == 4 and 'class="spark c3"' in line and 'cx="220.0" cy="4.0"' in line and "style" not in line
    assert "circle" not in str(sparkline([None], 0.0, colour=0))


# -- pages ---------------------------------------------------------------------------------------------------------
def test_pages(shelf: Site) -> None:
    browser = TestClient(create_app(shelf), follow_redirects=False)
    topics = load_topics(shelf)
    assert topics is not None
    paths = ["/map", "/topics", "/topics?step=week&way=rises", *(f"/topics/{one.slug}" for one in topics.topics)]
    for path in (*paths, f"/topics/{topics.topics[0].slug}?sort=newest"):
        response = browser.get(path)
        assert response.status_code == 200, path
        page = Page(re.sub(r"<(text|title|g|a|svg)\b", r"<\1", response.text))
        assert page.count["h1"] == 1 and len(page.ids) == len(set(page.ids))
        assert all(source.startswith("/static/") for source in page.sources)
        assert len(response.content) < 100_000
    text = browser.get("/map").text
    for topic in topics.topics:
        assert f'href="/topics/{topic.slug}"' in text
    listed = re.findall(
        r'class="paper-title"><a href="/papers/([^"]+)"', browser.get(f"/topics/{topics.topics[0].slug}").text
    )
    assert listed == sorted(topics.members(topics.topics[0]), key=lambda one: -int(one.split("-")[1]))
    one = browser.get(f"/papers/{listed[0]}").text
    assert f'<a href="/topics/{topics.topics[0].slug}">' in one
    for bad in ("/topics?step=year", "/topics?way=up", f"/topics/{topics.topics[0].slug}?sort=x"):
        assert browser.get(bad).status_code == 400
    assert browser.get(f"/topics/{topics.topics[0].slug}?page=9").status_code == 404
