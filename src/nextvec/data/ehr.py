"""Patient records as visits in time: from OMOP, MIMIC and eICU tables, or from JSON lines.

    OMOP     person, visit_occurrence; condition_occurrence, drug_exposure, procedure_occurrence, measurement, death
    MIMIC    patients, admissions; diagnoses_icd, procedures_icd, prescriptions (III and IV)
    eICU     patient; diagnosis, medication, treatment
    JSON     {"id": "a", "visits": [{"time": 0, "codes": ["dx:E11"], "treatments": ["rx:metformin"]}], "death": 400}

Tables are CSV files, gzip'ed or not, in a folder (at any depth) or a zip archive, in upper or lower case; which model
they are is told by their names. A code is its kind, a colon and what the table says: "dx:" diagnosis, "rx:" drug, "px:"
procedure or treatment, "lx:" measurement. Times are days since the patient's first visit; visits are sorted by them.

Archives are read in memory, within limits, and nothing is unpacked. Legend: n patients.
"""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import IO, Any

from nextvec.data.readers import read_located
from nextvec.data.unpacking import bounded
from nextvec.files import storage_error
from nextvec.types import InputError, NotFoundError

__all__ = ["Patient", "Records", "Visit", "read_ehr"]

_MOST = 2 << 30  # bytes of one table in an archive


@dataclass(frozen=True, slots=True)
class Visit:
    """time: days since the first visit; codes: what was found, then what was done (``treatments``: the latter)."""

    time: float
    codes: tuple[str, ...]
    treatments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Patient:
    """Visits in the order of their times; death: days since the first visit, None where it is not known."""

    id: str
    visits: tuple[Visit, ...]
    death: float | None = None


@dataclass(frozen=True, slots=True)
class Records:
    """Patients by their ids, and what was left out and why."""

    patients: list[Patient]
    left_out: dict[str, int] = field(default_factory=dict)


def read_ehr(path: Path) -> Records:
    """The records in a folder, a zip archive or a file of JSON lines (see above).

    Patients without a visit, visits without a time and rows of visits that no table knows are left out and counted.
    InputError for tables of no model that is known, and where no patient is left; NotFoundError, StorageError.
    """
    if not path.exists():
        raise NotFoundError(f"{str(path)!r} does not exist; expected a folder or zip of tables, or JSON lines")
    if path.is_file() and path.suffix != ".zip":
        return _from_json(path)
    with _tables(path) as tables:
        names = set(tables)
        for model, (needed, read) in _MODELS.items():
            if needed <= names:
                try:
                    records: Records = read(tables)
                except KeyError as error:
                    raise InputError(f"a table of {str(path)!r} lacks the column {error}, which {model} has") from error
                if not records.patients:
                    raise InputError(f"{str(path)!r} looks like {model}, but no patient has a visit with a time")
                return records
    wanted = "; ".join(f"{model}: {', '.join(sorted(needed))}" for model, (needed, _) in _MODELS.items())
    raise InputError(f"{str(path)!r} holds {', '.join(sorted(names)) or 'no tables'}; expected those of {wanted}")


# ---------------------------------------------------------------------------- tables

Rows = Iterator[Mapping[str, str]]
Tables = Mapping[str, Callable[[], Rows]]


@contextmanager
def _tables(path: Path) -> Iterator[Tables]:
    """By name in lower case, what opens the table."""
    try:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.name.lower().endswith((".csv", ".csv.gz")))
            yield {_name(file.name): _opens(file) for file in files}
            return
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.lower().endswith((".csv", ".csv.gz"))]
            own = [m for m in members if not PurePosixPath(m.filename).name.startswith(".")]
            for member in own:
                if member.file_size > _MOST:
                    size = f"{member.file_size:,} bytes; at most {_MOST:,}"
                    raise InputError(f"{path.name}: {member.filename!r} has {size}")
            yield {_name(PurePosixPath(m.filename).name): _opens(m, archive) for m in own}
    except (zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, EOFError, csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} holds a damaged table: {error}") from error
    except OSError as error:
        raise storage_error(error, path) from error


def _name(file: str) -> str:
    return file.lower().removesuffix(".gz").removesuffix(".csv")


def _opens(source: Any, archive: zipfile.ZipFile | None = None) -> Callable[[], Rows]:
    def rows() -> Rows:
        name = source.filename if archive else source.name
        raw: IO[bytes] = archive.open(source) if archive else source.open("rb")
        packed = source.compress_size if archive else source.stat().st_size
        with raw, gzip.open(raw) if name.lower().endswith(".gz") else raw as stream:
            content = stream if stream is raw else bounded(stream, packed, name)
            reader = csv.DictReader(io.TextIOWrapper(content, encoding="utf-8-sig", newline=""))
            reader.fieldnames = [column.strip().lower() for column in reader.fieldnames or []]
            for row in reader:
                yield {key: (value or "").strip() for key, value in row.items() if key is not None}

    return rows


def _none() -> Rows:
    return iter(())


def _time(text: str) -> float | None:
    """Days, on a scale of its own; None where there is no time."""
    try:
        return (datetime.fromisoformat(text).replace(tzinfo=None) - datetime(1, 1, 1)) / timedelta(days=1)
    except ValueError:
        return None


def _first_time(row: Mapping[str, str], *columns: str) -> float | None:
    """That of the first of these columns that holds one."""
    return next((time for column in columns if (time := _time(row.get(column, ""))) is not None), None)


class _Collected:
    """Visits by patient, filled from rows."""

    def __init__(self) -> None:
        self.left_out: dict[str, int] = defaultdict(int)
        self.people: dict[str, dict[str, float]] = {}
        self.owners: dict[str, str] = {}
        self.codes: dict[str, list[str]] = defaultdict(list)
        self.deaths: dict[str, float] = {}

    def visit(self, person: str, visit: str, time: float | None) -> None:
        if time is None:
            self.left_out["visits without a time"] += 1
        elif person not in self.people:
            self.left_out["visits of a person whom no table knows"] += 1
        else:
            self.people[person][visit] = time
            self.owners[visit] = person

    def code(self, visit: str, kind: str, text: str) -> None:
        if not text or text == "0":
            self.left_out["rows without a code"] += 1
        elif visit not in self.owners:
            self.left_out["codes of a visit that no table knows"] += 1
        else:
            self.codes[visit].append(f"{kind}:{' '.join(text.split())}")

    def records(self) -> Records:
        patients = []
        for person, visits in sorted(self.people.items()):
            if not visits:
                self.left_out["patients without a visit"] += 1
                continue
            first = min(visits.values())
            made = []
            for visit, time in sorted(visits.items(), key=lambda pair: (pair[1], pair[0])):
                codes = tuple(dict.fromkeys(self.codes[visit]))
                found = [code for code in codes if not code.startswith(("rx:", "px:"))]
                done = tuple(code for code in codes if code.startswith(("rx:", "px:")))
                made.append(Visit(time - first, (*found, *done), done))
            death = self.deaths.get(person)
            patients.append(Patient(person, tuple(made), None if death is None else death - first))
        return Records(patients, dict(self.left_out))


def _omop(tables: Tables) -> Records:
    found = _Collected()
    for row in tables["person"]():
        found.people[row["person_id"]] = {}
    for row in tables["visit_occurrence"]():
        time = _first_time(row, "visit_start_datetime", "visit_start_date")
        found.visit(row["person_id"], row["visit_occurrence_id"], time)
    for table, kind, name in (
        ("condition_occurrence", "dx", "condition"),
        ("drug_exposure", "rx", "drug"),
        ("procedure_occurrence", "px", "procedure"),
        ("measurement", "lx", "measurement"),
    ):
        for row in tables.get(table, _none)():
            text = row.get(f"{name}_source_value") or row.get(f"{name}_concept_id", "")
            found.code(row.get("visit_occurrence_id", ""), kind, text)
    for row in tables.get("death", _none)():
        time = _first_time(row, "death_datetime", "death_date")
        if time is not None:
            found.deaths[row["person_id"]] = time
    return found.records()


def _mimic(tables: Tables) -> Records:
    found = _Collected()
    for row in tables["patients"]():
        found.people[row["subject_id"]] = {}
        time = _time(row.get("dod", ""))
        if time is not None:
            found.deaths[row["subject_id"]] = time
    for row in tables["admissions"]():
        found.visit(row["subject_id"], row["hadm_id"], _time(row.get("admittime", "")))
    for table, kind, names in (
        ("diagnoses_icd", "dx", ("icd9_code", "icd_code")),
        ("procedures_icd", "px", ("icd9_code", "icd_code")),
        ("prescriptions", "rx", ("drug",)),
    ):
        for row in tables.get(table, _none)():
            found.code(row.get("hadm_id", ""), kind, next((row[name] for name in names if row.get(name)), ""))
    return found.records()


def _eicu(tables: Tables) -> Records:
    """Stays follow each other by year and number, a day apart: the tables give times within a stay alone."""
    found = _Collected()
    for row in tables["patient"]():
        person = row.get("uniquepid") or row["patientunitstayid"]
        found.people.setdefault(person, {})
        year, number = row.get("hospitaldischargeyear", ""), row.get("unitvisitnumber", "")
        time = 365.0 * int(year) + (int(number) if number.isdecimal() else 0) if year.isdecimal() else None
        found.visit(person, row["patientunitstayid"], time)
    for table, kind, name in (
        ("diagnosis", "dx", "diagnosisstring"),
        ("treatment", "px", "treatmentstring"),
        ("medication", "rx", "drugname"),
    ):
        for row in tables.get(table, _none)():
            found.code(row.get("patientunitstayid", ""), kind, row.get(name, ""))
    return found.records()


_MODELS: dict[str, tuple[set[str], Callable[[Tables], Records]]] = {
    "OMOP": ({"person", "visit_occurrence"}, _omop),
    "MIMIC": ({"patients", "admissions"}, _mimic),
    "eICU": ({"patient", "diagnosis"}, _eicu),
}


# ---------------------------------------------------------------------------- JSON lines


def _from_json(path: Path) -> Records:
    patients, left_out = [], 0
    for place, record in read_located(path, fields=("id", "visits")):
        visits = record["visits"]
        if not isinstance(visits, list):
            raise InputError(f"{place}: 'visits' is a {type(visits).__name__}; expected a list")
        if not visits:
            left_out += 1
            continue
        made = sorted((_visit(visit, place) for visit in visits), key=lambda visit: visit.time)
        first, death = made[0].time, record.get("death")
        if death is not None and (isinstance(death, bool) or not isinstance(death, int | float)):
            raise InputError(f"{place}: 'death' is {death!r}; expected days, on the scale of the visits' times")
        shifted = tuple(Visit(visit.time - first, visit.codes, visit.treatments) for visit in made)
        patients.append(Patient(str(record["id"]), shifted, None if death is None else float(death) - first))
    if not patients:
        raise InputError(f"{str(path)!r} holds no patient with a visit")
    return Records(patients, {"patients without a visit": left_out} if left_out else {})


def _visit(visit: Any, place: str) -> Visit:
    time = visit.get("time") if isinstance(visit, dict) else None
    codes, treatments = (visit.get(name, []) if isinstance(visit, dict) else [] for name in ("codes", "treatments"))
    texts = [*codes, *treatments] if isinstance(codes, list) and isinstance(treatments, list) else [None]
    if isinstance(time, bool) or not isinstance(time, int | float) or not all(isinstance(x, str) and x for x in texts):
        raise InputError(f"{place}: a visit needs a 'time' (days) and lists of texts as 'codes' and 'treatments'")
    return Visit(float(time), (*codes, *treatments), tuple(treatments))
