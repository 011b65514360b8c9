"""The bundled papers: what they hold, and that the build script makes them."""

from __future__ import annotations

import datetime as dt
import os
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nextvec.data import build_bundled
from nextvec.data.bundled import DAILY_PAPERS, SCHEMA, daily_papers
from nextvec.data.readers import read_records
from nextvec.types import InputError


def test_counts_schema_and_size() -> None:
    table = daily_papers()
    assert table.schema.equals(SCHEMA)
    assert Counter(table["source"].to_pylist()) == {"daily_papers": 9877, "arxiv": 8}
    assert len(set(table["id"].to_pylist())) == 9885
    assert DAILY_PAPERS.stat().st_size < 6_000_000


def test_rows_are_clean_and_in_order() -> None:
    rows = daily_papers().to_pylist()
    listed = [row for row in rows if row["source"] == "daily_papers"]
    days = [row["daily_date"] for row in listed]
    assert days == sorted(days)
    assert (days[0], days[-1]) == (dt.date(2024, 5, 27), dt.date(2026, 8, 21))
    assert len(set(days)) == 580
    for row in rows:
        assert row["title"] == " ".join(row["title"].split())
        assert len(row["summary"]) > 100
        assert "\n" not in row["summary"]
        assert row["authors"]
        assert row["publishedAt"].tzinfo is not None
        assert row["upvotes"] >= 0
        for field in ("githubRepo", "projectPage"):
            assert row[field] is None or row[field].startswith(("https://", "http://"))
    filed = [row["categories"] for row in rows if row["categories"] is not None]
    assert len(filed) == 3111 and all(filed) and {"cs.CL", "stat.ML"} <= {name for names in filed for name in names}
    assert not any(" " in name or name[0].isdigit() or len(name) < 2 for names in filed for name in names)
    for row in rows[9877:]:
        assert (row["daily_date"], row["upvotes"], row["num_comments"]) == (None, 0, 0)


def test_methods_of_the_library_are_findable() -> None:
    source = dict(
        zip(*(daily_papers(columns=["id", "source"])[name].to_pylist() for name in ("id", "source")), strict=True)
    )
    present = build_bundled.FOUNDATIONS & source.keys()
    assert {identifier for identifier in present if source[identifier] == "daily_papers"} == {
        "2405.17428",
        "2412.09585",
        "2505.22202",
        "2602.06040",
    }
    assert len(present) == 12


def test_columns_are_chosen_and_checked() -> None:
    assert daily_papers(columns=["title", "id"]).column_names == ["title", "id"]
    with pytest.raises(InputError, match="no column 'ai_summary'"):
        daily_papers(columns=["ai_summary"])


def test_tidy_and_dates() -> None:
    assert build_bundled.tidy(" a\n  b\n \n c ") == "a b\n\nc"
    assert build_bundled.tidy(" \n") is None
    assert build_bundled.first_known_day("2510.27350", "2025-11-03") == dt.date(2025, 11, 3)
    assert build_bundled.first_known_day("2412.00001", "2025-01-02") == dt.date(2025, 1, 2)
    assert build_bundled.first_known_day("1812.06145", "2025-10-13") == dt.date(2018, 12, 1)


@pytest.mark.skipif("NEXTVEC_DATA" not in os.environ, reason="needs the data folder: set NEXTVEC_DATA")
def test_build_script_makes_the_bundled_rows(tmp_path: Path) -> None:
    data = Path(os.environ["NEXTVEC_DATA"])
    table = build_bundled.build(read_records(data / build_bundled.DAILY), read_records(data / build_bundled.ARXIV))
    assert table.equals(daily_papers())
    build_bundled.write(table.slice(0, 50), tmp_path / "few.parquet")
    assert pq.read_table(tmp_path / "few.parquet").equals(table.slice(0, 50))
