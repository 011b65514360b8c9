"""Readers: files and folders of records become a stream of dicts, in little memory.

What is read, by ending: ``.jsonl`` and ``.ndjson`` (one JSON object per line), ``.csv`` and ``.tsv`` (with a
header line; all values are strings), ``.parquet``, ``.txt`` (one record ``{"text": line}`` per non-empty
line) and ``.md`` (one record for the whole file). Any of them, Parquet apart, may also be compressed:
``.gz``, ``.xz`` or ``.zst``.

A folder is read recursively in sorted order. In a folder every ``.txt`` and ``.md`` file is one document,
``{"id": path relative to the folder, "text": content}``; the other kinds give their records as above. Hidden
files, files of other kinds and links that lead out of the folder are passed over.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import itertools
import json
import lzma
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from nextvec.data.unpacking import bounded
from nextvec.files import storage_error
from nextvec.types import InputError, NotFoundError, did_you_mean

__all__ = ["FORMATS", "MAX_LINE_BYTES", "batched", "read_located", "read_records"]

Record = dict[str, Any]
T = TypeVar("T")

MAX_LINE_BYTES = 64 << 20
"""A longer line (row of CSV, whole text document) is refused: it is a damaged or hostile file rather than a record."""

_BATCH_BYTES = 1 << 30  # of Parquet cells decoded at once

COMPRESSIONS = (".gz", ".xz", ".zst")
FORMATS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".txt", ".md")
_SUPPORTED = f"supported: {', '.join(FORMATS)}, each also as {', '.join(COMPRESSIONS)} (Parquet as it is), or a folder"


def read_records(path: str | os.PathLike[str], *, fields: Sequence[str] | None = None) -> Iterator[Record]:
    """Stream the records of a file or folder.

    ``fields`` names what every record must have (not null); other fields are passed on as they are. Parquet
    timestamps become ``datetime`` objects. Nothing is checked about ids here.

    Raises NotFoundError where the path does not exist, StorageError where it cannot be opened, and
    InputError, with file, line and field, for an unsupported kind, a missing field, invalid JSON, CSV or
    UTF-8, a damaged or truncated compressed stream or one that unpacks to too much (``unpacking.MAX_RATIO``), and
    a line or row over ``MAX_LINE_BYTES``. Records before the faulty one are yielded.
    """
    return (record for _, record in read_located(path, fields=fields))


def read_located(path: str | os.PathLike[str], *, fields: Sequence[str] | None = None) -> Iterator[tuple[str, Record]]:
    """The same as (place, record), for callers with complaints of their own: the place is "papers.jsonl:17" or,
    in a Parquet file, "papers.parquet: row 17"."""
    target = Path(path)
    try:
        target.stat()
    except FileNotFoundError:
        raise NotFoundError(f"{os.fspath(path)!r} does not exist: give a file or folder ({_SUPPORTED})") from None
    except (OSError, ValueError) as error:  # a name too long, in a folder that is a file, with a NUL in it
        told = error if isinstance(error, OSError) else OSError(str(error))
        raise storage_error(told, path) from error
    if target.is_dir():
        return _read_folder(target, tuple(fields or ()))
    if not target.is_file():  # reading one may never end
        raise InputError(f"{os.fspath(path)!r} is a device or pipe: write what it gives to a file first")
    kind, _ = _kind(target)
    if kind not in FORMATS:
        raise InputError(f"{target.name}: cannot tell the format from the ending {kind or 'none'!r}; {_SUPPORTED}")
    return _read_file(target, str(target.name), tuple(fields or ()), document_id=None)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items (the last may be shorter), as a stream."""
    if size < 1:
        raise InputError(f"batch size must be at least 1, got {size}")
    stream = iter(items)
    while batch := list(itertools.islice(stream, size)):
        yield batch


def _kind(path: Path) -> tuple[str, str]:
    """(format, compression) from the name: ``a.jsonl.xz`` -> (".jsonl", ".xz")."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        return (suffixes[-2] if len(suffixes) == 2 else ""), suffixes[-1]
    return (suffixes[-1] if suffixes else ""), ""


def _read_folder(folder: Path, fields: tuple[str, ...]) -> Iterator[tuple[str, Record]]:
    root = folder.resolve()
    found = 0
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        kind, _ = _kind(path)
        hidden = any(part.startswith(".") for part in relative.parts)
        if hidden or kind not in FORMATS or not path.is_file() or not path.resolve().is_relative_to(root):
            continue
        found += 1
        yield from _read_file(path, relative.as_posix(), fields, document_id=relative.as_posix())
    if not found:
        raise InputError(f"folder {str(folder)!r} holds no file that can be read; {_SUPPORTED}")


def _read_file(
    path: Path, name: str, fields: tuple[str, ...], *, document_id: str | None
) -> Iterator[tuple[str, Record]]:
    kind, compression = _kind(path)
    numbered: Iterator[tuple[int, Record]]
    if kind == ".parquet":
        if compression:
            raise InputError(f"{name}: a Parquet file compresses its own columns; decompress it first")
        numbered, before = _parquet(path, name), f"{name}: row "
    else:
        numbered, before = _text_records(path, name, kind, compression, document_id), f"{name}:"
    for number, record in numbered:
        for field in fields:
            if record.get(field) is None:
                raise InputError(_missing(f"{before}{number}", field, record))
        yield f"{before}{number}", record


def _missing(where: str, field: str, record: Record) -> str:
    if field in record:
        return f"{where}: field {field!r} is null; every record needs a value for it"
    names = ", ".join(found[:40] for found in sorted(map(str, record))[:12]) or "none"
    return f"{where}: field {field!r} is missing (fields found: {names}){did_you_mean(field, record)}"


def _text_records(
    path: Path, name: str, kind: str, compression: str, document_id: str | None
) -> Iterator[tuple[int, Record]]:
    with _errors_told(path, name), _open(path, compression, name) as stream:
        if kind == ".md" or (kind == ".txt" and document_id is not None):
            text = _decode(_bounded(stream.read(MAX_LINE_BYTES + 1), name, 1), name, 1)
            yield 1, {"id": document_id or name, "text": text}
            return
        lines = _lines(stream, name)
        if kind in (".jsonl", ".ndjson"):
            for number, line in lines:
                if line.strip():
                    yield number, _json(line, name, number)
        elif kind == ".txt":
            for number, line in lines:
                if line.strip():
                    yield number, {"text": line.strip()}
        else:
            yield from _separated(lines, name, "\t" if kind == ".tsv" else ",")


def _lines(stream: IO[bytes], name: str) -> Iterator[tuple[int, str]]:
    """(number from 1, text with its line end), each line bounded and checked for UTF-8; a leading BOM is
    dropped."""
    for number in itertools.count(1):
        raw = stream.readline(MAX_LINE_BYTES + 1)
        if not raw:
            return
        text = _decode(_bounded(raw, name, number), name, number)
        yield number, text.removeprefix("\ufeff") if number == 1 else text


def _bounded(raw: bytes, name: str, number: int) -> bytes:
    if len(raw) > MAX_LINE_BYTES:
        raise InputError(f"{name}:{number}: longer than {MAX_LINE_BYTES >> 20} MiB; is this a file of records?")
    return raw


def _decode(raw: bytes, name: str, number: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = number + raw[: error.start].count(b"\n")
        raise InputError(
            f"{name}:{line}: not UTF-8 (byte 0x{raw[error.start]:02x}); convert the file to UTF-8"
        ) from error


def _json(line: str, name: str, number: int) -> Record:
    try:
        record = json.loads(line, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise InputError(f"{name}:{number}: invalid JSON at column {error.colno}: {error.msg}") from error
    except (RecursionError, ValueError) as error:
        # Nesting beyond the interpreter's limit, or an integer of more digits than Python converts.
        raise InputError(f"{name}:{number}: JSON that cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise InputError(f"{name}:{number}: expected a JSON object per line, got {type(record).__name__}")
    return record


def _unique(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in record if names.count(name) > 1)
        raise ValueError(f"the field {twice!r:.60} comes twice in one object")
    return record


def _separated(lines: Iterator[tuple[int, str]], name: str, delimiter: str) -> Iterator[tuple[int, Record]]:
    last = held = 0

    def texts() -> Iterator[str]:
        nonlocal last, held
        for number, text in lines:
            last, held = number, held + len(text)
            if held > MAX_LINE_BYTES:  # quoted line breaks: a row of any number of lines
                raise InputError(f"{name}:{last}: a row longer than {MAX_LINE_BYTES >> 20} MiB; is a quote left open?")
            yield text

    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))  # the whole process's: never lowered
    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        if len(set(header)) != len(header):
            raise InputError(f"{name}:1: the header names a column twice: {', '.join(header)}")
        for row in reader:
            held = 0
            if not row:
                continue
            if len(row) != len(header):
                raise InputError(f"{name}:{last}: {len(row)} values for the header's {len(header)} columns")
            yield last, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise InputError(f"{name}:{last}: invalid {'TSV' if delimiter == chr(9) else 'CSV'}: {error}") from error


def _parquet(path: Path, name: str) -> Iterator[tuple[int, Record]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with path.open("rb") as stream:
            file = pq.ParquetFile(stream)
            columns = file.schema_arrow.names
            if len(set(columns)) != len(columns):
                raise InputError(f"{name}: the schema names a column twice: {', '.join(columns)}")
            for batch in file.iter_batches(batch_size=_parquet_rows(file.metadata)):
                for record in _microseconds(batch).to_pylist():
                    number += 1
                    yield number, record
    except OSError as error:
        # Arrow reports damaged pages as an OSError without an errno.
        if error.errno is not None:
            raise storage_error(error, path) from error
        raise InputError(f"{name}: damaged Parquet file after row {number}: {_first_line(error)}") from error
    except pa.ArrowException as error:
        raise InputError(f"{name}: not a readable Parquet file: {_first_line(error)}") from error
    except (OverflowError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: row {number + 1} holds a value that cannot be read: {_first_line(error)}") from error


def _parquet_rows(metadata: Any) -> int:
    """Rows to decode at once: few where cells may be large, for one stored cell can stand in every row."""
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    largest = max(
        (group.column(i).total_uncompressed_size for group in groups for i in range(group.num_columns)), default=0
    )
    return max(16, min(1024, _BATCH_BYTES // max(largest, 1)))


def _microseconds(batch: Any) -> Any:
    """The batch with its nanosecond times cut to microseconds, all that ``datetime`` holds."""
    import pyarrow as pa

    for i, field in enumerate(batch.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            column = batch.column(i).cast(pa.timestamp("us", field.type.tz), safe=False)
            batch = batch.set_column(i, field.name, column)
    return batch


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def _open(path: Path, compression: str, name: str) -> Iterator[IO[bytes]]:
    if compression == ".gz":
        with gzip.open(path, "rb") as stream:
            yield bounded(stream, path.stat().st_size, name)
    elif compression == ".xz":
        with lzma.open(path, "rb") as stream:
            yield bounded(stream, path.stat().st_size, name)
    elif compression == ".zst":
        import pyarrow as pa

        with path.open("rb") as raw, pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") as stream:
            yield bounded(stream, path.stat().st_size, name)
    else:
        with path.open("rb") as stream:
            yield stream


@contextlib.contextmanager
def _errors_told(path: Path, name: str) -> Iterator[None]:
    """Damage in a compressed stream and refusals of the disk, each as one line."""
    try:
        yield
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{name}: damaged or truncated compressed file: {_first_line(error)}") from error
    except OSError as error:
        if error.errno is not None:
            raise storage_error(error, path) from error
        raise InputError(f"{name}: damaged or truncated compressed file: {_first_line(error)}") from error
