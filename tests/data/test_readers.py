"""Readers: every format, compressed or not, folders, and errors that name file, line and field."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import lzma
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextvec.data import readers, unpacking
from nextvec.data.ehr import read_ehr
from nextvec.data.readers import batched, read_records
from nextvec.types import InputError, NotFoundError

RECORDS = [{"id": "a", "title": "Grüße ∑ 你好", "n": 1}, {"id": "b", "title": 'quote " and, comma', "n": None}]
JSONL = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS).encode()


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def read(path: Path, **options: Any) -> list[dict[str, Any]]:
    return list(read_records(path, **options))


@pytest.mark.parametrize("ending", COMPRESSORS)
@pytest.mark.parametrize("kind", [".jsonl", ".ndjson"])
def test_json_lines(tmp_path: Path, kind: str, ending: str) -> None:
    path = put(tmp_path, f"a{kind}{ending}", COMPRESSORS[ending](JSONL + b"\n  \n"))
    assert read(path) == RECORDS


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_separated_values(tmp_path: Path, ending: str) -> None:
    comma = put(tmp_path, f"a.csv{ending}", COMPRESSORS[ending](b'id,text\n1,"two\nlines, one ""value"""\n\n2,\n'))
    assert read(comma) == [{"id": "1", "text": 'two\nlines, one "value"'}, {"id": "2", "text": ""}]
    tab = put(tmp_path, f"a.tsv{ending}", COMPRESSORS[ending](b"id\ttext\r\n1\ta,b\r\n"))
    assert read(tab) == [{"id": "1", "text": "a,b"}]


def test_parquet_keeps_types(tmp_path: Path) -> None:
    moment = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    rows = [{"id": "a", "at": moment, "tags": ["x", "y"]}, {"id": "b", "at": None, "tags": []}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == rows


def test_text_file_is_one_record_per_line(tmp_path: Path) -> None:
    path = put(tmp_path, "a.txt", b"\xef\xbb\xbffirst\n\n  second \n")
    assert read(path) == [{"text": "first"}, {"text": "second"}]


def test_markdown_file_is_one_record(tmp_path: Path) -> None:
    assert read(put(tmp_path, "a.md", b"# T\n\ntext\n")) == [{"id": "a.md", "text": "# T\n\ntext\n"}]


def test_folder_is_sorted_recursive_and_stays_inside(tmp_path: Path) -> None:
    outside = put(tmp_path, "outside/secret.txt", b"secret")
    folder = tmp_path / "in"
    put(folder, "b.txt", b"one\n\ntwo\n")
    put(folder, "a/z.jsonl.gz", gzip.compress(b'{"id": "z"}\n'))
    put(folder, "c.md", b"# c")
    put(folder, ".hidden.txt", b"hidden")
    put(folder, "picture.png", b"\x89PNG")
    (folder / "link.txt").symlink_to(outside)
    (folder / "linked").symlink_to(outside.parent)
    assert read(folder) == [{"id": "z"}, {"id": "b.txt", "text": "one\n\ntwo\n"}, {"id": "c.md", "text": "# c"}]


def test_empty_folder_says_what_is_supported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no file that can be read; supported: \.jsonl"):
        read(tmp_path)


def test_empty_files_give_nothing(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.csv", "a.tsv", "a.txt"):
        assert read(put(tmp_path, name, b"")) == []


def test_reading_is_lazy(tmp_path: Path) -> None:
    stream = iter(read_records(put(tmp_path, "a.jsonl", JSONL + b"broken\n")))
    assert [next(stream), next(stream)] == RECORDS
    with pytest.raises(InputError, match=r"a\.jsonl:3: invalid JSON at column 1"):
        next(stream)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "p.jsonl",
            b'{"title": "x"}\n{"titel": "x"}\n',
            r"p\.jsonl:2: field 'title' is missing .*did you mean 'titel'",
        ),
        ("p.jsonl", b'{"title": null}\n', r"p\.jsonl:1: field 'title' is null"),
        ("p.csv", b"id\n7\n", r"p\.csv:2: field 'title' is missing \(fields found: id\)"),
        ("p.jsonl", b"[1]\n", r"p\.jsonl:1: expected a JSON object per line, got list"),
        ("p.jsonl", b"[" * 100_000, r"p\.jsonl:1: JSON that cannot be read"),
        ("p.jsonl", b'{"n": ' + b"9" * 5000 + b"}\n", r"p\.jsonl:1: JSON that cannot be read"),
        ("p.jsonl", b'{"title": "ok"}\n{"title": "\xff"}\n', r"p\.jsonl:2: not UTF-8 \(byte 0xff\)"),
        ("p.csv", b'title,b\n1,"open\n', r"p\.csv:2: invalid CSV"),
        ("p.csv", b"title,b\n1,2,3\n", r"p\.csv:2: 3 values for the header's 2 columns"),
        ("p.jsonl", b'{"title": "a", "title": "b"}\n', r"p\.jsonl:1: .*the field 'title' comes twice"),
        ("p.csv", b"title,title\n", r"p\.csv:1: the header names a column twice"),
        ("p.md", b"fine\n\xe9\n", r"p\.md:2: not UTF-8"),
        ("p.parquet", b"PAR1 nothing of the kind", r"p\.parquet: not a readable Parquet file"),
        ("p.parquet.gz", b"", r"a Parquet file compresses its own columns"),
        ("p.docx", b"", r"cannot tell the format from the ending '\.docx'; supported: \.jsonl"),
        ("p", b"", r"cannot tell the format from the ending 'none'"),
        ("p.xz", b"", r"cannot tell the format"),
    ],
)
def test_bad_input_is_told_in_one_line(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(put(tmp_path, name, data), fields=("title",))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("damage", ["truncated", "nonsense"])
def test_damaged_compression(tmp_path: Path, ending: str, damage: str) -> None:
    whole = COMPRESSORS[ending](JSONL * 2000)
    data = whole[: len(whole) // 2] if damage == "truncated" else b"no such stream" * 8
    with pytest.raises(InputError, match=r"damaged or truncated compressed file") as caught:
        read(put(tmp_path, f"a.jsonl{ending}", data))
    assert "\n" not in str(caught.value)


def test_truncated_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": list(range(10_000))}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    middle = bytearray(whole)
    middle[100:600] = b"\0" * 500
    for data in (whole[:-50], bytes(middle)):
        with pytest.raises(InputError, match=r"a\.parquet: .*Parquet file"):
            read(put(tmp_path, "a.parquet", data))


def test_a_line_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 64)
    good = put(tmp_path, "a.txt", b"x" * 64 + b"\n")
    assert read(put(tmp_path, "b.txt", b"short\n" * 100)) == [{"text": "short"}] * 100
    with pytest.raises(InputError, match=r"a\.txt:1: longer than"):
        read(good)
    with pytest.raises(InputError, match=r"c\.md:1: longer than"):
        read(put(tmp_path, "c.md", b"y" * 65))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([("t", pa.array([2**62], pa.timestamp("us")))], r"row 1 holds a value that cannot be read"),
        ([("t", pa.array(["a"])), ("t", pa.array(["b"]))], r"names a column twice: t, t"),
    ],
)
def test_parquet_that_python_cannot_hold(tmp_path: Path, columns: list[tuple[str, pa.Array]], message: str) -> None:
    table = pa.table([array for _, array in columns], names=[name for name, _ in columns])
    pq.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(InputError, match=message):
        read(tmp_path / "p.parquet")


def test_parquet_nanoseconds_are_cut(tmp_path: Path) -> None:
    pq.write_table(pa.table({"t": pa.array([1_234_567_891], pa.timestamp("ns"))}), tmp_path / "p.parquet")
    assert read(tmp_path / "p.parquet")[0]["t"].microsecond == 234_567


def test_parquet_with_large_cells_is_decoded_in_few_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One stored cell stands in every row: 400 kB in the file's dictionary would be 800 MB as rows.
    cell = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000, pa.int32()), pa.array(["x" * 400_000]))
    pq.write_table(pa.table({"text": cell}), tmp_path / "p.parquet")
    monkeypatch.setattr(readers, "_BATCH_BYTES", 20 * 400_000)
    metadata = pq.ParquetFile(tmp_path / "p.parquet").metadata
    assert 16 <= readers._parquet_rows(metadata) <= 20
    assert len(next(iter(read_records(tmp_path / "p.parquet")))["text"]) == 400_000


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst"])
def test_a_bomb_is_refused_while_it_unpacks(tmp_path: Path, ending: str) -> None:
    """Two GiB of blank lines in a file of some hundred kB: members one behind the other, as each format allows."""
    member = COMPRESSORS[ending]((b" " * ((1 << 20) - 1) + b"\n") * 16)
    path = put(tmp_path, f"papers.jsonl{ending}", member * 128)
    assert path.stat().st_size < 3 << 20
    tracemalloc.start()
    try:
        message = r"^papers\.jsonl\.\w+: unpacks to more than [\d,]+ bytes from [\d,]+, over 200 times its size: .*"
        with pytest.raises(InputError, match=message + "give the unpacked file$"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("archive", [False, True])
def test_a_bomb_among_the_tables_of_records_is_refused(tmp_path: Path, archive: bool) -> None:
    table = gzip.compress(b"person_id\n") + gzip.compress(b" " * (16 << 20)) * 64  # a line without an end
    path = put(tmp_path, "tables/person.csv.gz", table).parent
    put(tmp_path, "tables/visit_occurrence.csv", b"visit_occurrence_id,person_id,visit_start_date\n")
    if archive:
        path = tmp_path / "tables.zip"
        with zipfile.ZipFile(path, "w") as packed:
            for file in sorted((tmp_path / "tables").iterdir()):
                packed.write(file, file.name)
    with pytest.raises(InputError, match=r"^person\.csv\.gz: unpacks to more than"):
        read_ehr(path)


def test_what_compresses_well_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = b'{"id": "a", "text": "' + b"word " * 10_000 + b'"}\n'
    path = put(tmp_path, "a.jsonl.xz", lzma.compress(line * 40))
    assert path.stat().st_size * unpacking.MAX_RATIO < len(line) * 40
    assert len(read(path)) == 40, "little unpacks to little, whatever the ratio"
    monkeypatch.setattr(unpacking, "ALWAYS_UNPACKED", 1 << 20)
    with pytest.raises(InputError, match="refused"):
        read(path)
    monkeypatch.setattr(unpacking, "MAX_RATIO", 10_000)
    assert len(read(path)) == 40


def test_a_row_of_many_lines_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 64)
    row = b'"a\nb","c\nd"\n'
    assert len(read(put(tmp_path, "a.csv", b"x,y\n" + row * 100))) == 100
    with pytest.raises(InputError, match=r"b\.csv:\d+: a row longer than"):
        read(put(tmp_path, "b.csv", b"x,y\n" + b'"a\n",' * 100))


def test_devices_and_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.jsonl")
    for path in (tmp_path / "p.jsonl", Path(os.devnull)):
        with pytest.raises(InputError, match="is a device or pipe"):
            read(path)


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        read(tmp_path / "none.jsonl")


def test_batched() -> None:
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched([], 3)) == []
    with pytest.raises(InputError):
        list(batched([1], 0))


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


@settings(max_examples=40, deadline=None)
@given(records=st.lists(st.dictionaries(TEXT, st.one_of(TEXT, st.integers(), st.none())), max_size=8))
def test_json_lines_round_trip(tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("lines")
    lines = "".join(json.dumps(record) + "\n" for record in records)
    assert read(put(folder, "a.jsonl.zst", zstd(lines.encode()))) == records
