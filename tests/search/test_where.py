"""The grammar, its errors, NULL logic, and agreement with another engine."""

from __future__ import annotations

from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from filter_cases import DAYS, SCHEMA, TIMES, WORDS, filters, rows
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nextvec.search.filters import And, Column, Compare, Contains, In, Not, columns_used, mask, to_sql
from nextvec.search.inputs import attribute_table
from nextvec.search.schema import check_schema
from nextvec.search.where import MAX_DEPTH, MAX_LENGTH, parse
from nextvec.types import InputError

WIDE = {pa.string(): pa.large_string(), pa.list_(pa.string()): pa.large_list(pa.large_string())}
COLUMNS = {"id": "string", **SCHEMA, "date": "date"}
SCHEMA_OBJECT = check_schema(4, "cosine", SCHEMA)


def table_of(records: list[dict]) -> pa.Table:
    return pa.table(attribute_table(records, SCHEMA_OBJECT, len(records)))


def test_precedence_and_types() -> None:
    tree = parse("year >= 2020 and not 'a' in tags AND (venue in ('x') or 1 < score)", COLUMNS)
    assert isinstance(tree, And)
    assert tree.parts[0] == Compare(Column("year", "int"), ">=", 2020)
    assert tree.parts[1] == Not(Contains(Column("tags", "list[string]"), "a"))
    assert columns_used(tree) == {"year", "tags", "venue", "score"}
    assert tree.parts[2].parts == (  # type: ignore[union-attr]
        In(Column("venue", "string"), ("x",)),
        Compare(Column("score", "float"), ">", 1.0),
    )
    # AND binds tighter than OR.
    assert to_sql(parse("open OR open AND year = 1", COLUMNS)) == (
        "((`open` = true) OR ((`open` = true) AND (`year` = 1)))"
    )


def test_date_is_a_name_unless_a_text_follows() -> None:
    assert to_sql(parse("date >= date '2024-01-02'", COLUMNS)) == "(`date` >= date '2024-01-02')"
    assert to_sql(parse("\"seen at\" > '2024-01-01T02:00:00+02:00'", COLUMNS)).endswith(
        "timestamp '2024-01-01T00:00:00.000000Z')"
    )


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("", "where is empty"),
        (" \n", "where is empty"),
        ("yaer = 1", "did you mean 'year'?"),
        ("year = 'x'", "'year' is int"),
        ("venue = 3", "'venue' is string"),
        ("open > true", "only = and !="),
        ("open BETWEEN false AND true", "only = and !="),
        ("year = true", "'year' is int"),
        ('venue = "ACL"', "single quotes"),
        ("venue = ACL", "put text in quotes, 'ACL'"),
        ("tags = 'a'", "'value' IN tags"),
        ("venue IN tags", "a list attribute after it"),
        ("'a' IN venue", "not a list"),
        ("3 IN tags", "'tags' holds strings"),
        ("year = NULL", "IS NULL"),
        ("year >", "found 'the end'"),
        ("(year = 1", "close the parenthesis"),
        ("year = 1)", "expected AND, OR or the end"),
        ("year = 1; DROP TABLE x", "unexpected character ';'"),
        ("year = 1 -- x", "expected AND, OR or the end"),
        ("venue = 'x", "quote ' is not closed"),
        ("day = '2024-02-30'", "not a date"),
        ("day = timestamp '2024-02-03'", "'day' is date"),
        ("year = 9223372036854775808", "64 bits"),
        ("score = 1e999", "too large"),
        ("year = 1.2.3", "not a number"),
        ("year = - venue", "number after the sign"),
        ("year LIKE 'x'", "LIKE needs a string attribute"),
        ("venue LIKE 'x!' ESCAPE '!'", "ends with the escape character"),
        ("venue LIKE 'x' ESCAPE '!!'", "exactly one character"),
        ("year NOT = 3", "IN, BETWEEN or LIKE after NOT"),
        ("year", "expected a comparison after 'year'"),
        ("year = 1\x00", "control character"),
        ("venue = '\ud800'", "control character"),
        ("AND", "expected an attribute"),
    ],
)
def test_faults_are_named(where: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(where, COLUMNS)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_faults_tell_the_place() -> None:
    with pytest.raises(InputError, match=r"position 17: .*>>>nope"):
        parse("year = 2024 AND nope = 1", COLUMNS)


def test_huge_and_deep_filters_give_one_error() -> None:
    with pytest.raises(InputError, match=f"at most {MAX_LENGTH}"):
        parse("year = 1 OR " * 100_000 + "year = 1", COLUMNS)
    for deep in ("(" * 4000 + "year = 1" + ")" * 4000, "NOT " * 2000 + "open"):
        with pytest.raises(InputError, match="levels deep"):
            parse(deep, COLUMNS)
    parse("(" * (MAX_DEPTH - 1) + "year = 1" + ")" * (MAX_DEPTH - 1), COLUMNS)
    wide = parse(" OR ".join(["year=1"] * 1000), COLUMNS)
    assert mask(wide, lambda name: pa.array([1, 2])).tolist() == [True, False]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="()'\"<>=!,.+-eE 019aINnotNOTyearopen%_\\\t", max_size=80))
@example("'" * 9999)
@example("year IN (" + "1," * 4000)
@example("٣ = year")
@example("year = ²")
@example("'" + "\\" * 50)
def test_no_text_does_anything_but_parse_or_explain(text: str) -> None:
    try:
        tree = parse(text, COLUMNS)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        to_sql(tree)


@settings(max_examples=120, deadline=None)
@given(st.lists(rows, min_size=1, max_size=12), filters)
def test_filters_agree_with_plain_python(records: list[dict], case: tuple) -> None:
    where, truth = case
    table = table_of(records)
    for wide in (False, True):  # texts with 32-bit and with 64-bit offsets

        def column(name: str, wide: bool = wide) -> pa.Array:
            array = table.column(name).combine_chunks()
            return array.cast(WIDE.get(array.type, array.type)) if wide else array

        got = mask(parse(where, COLUMNS), column)
        assert got.tolist() == [truth(record) is True for record in records], where


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict], lance.LanceDataset]:
    records = []
    rng = np.random.default_rng(5)

    def pick(values: list) -> object:
        return None if rng.random() < 0.2 else values[rng.integers(len(values))]

    for _ in range(200):
        records.append(
            {
                "year": pick(list(range(2018, 2025))),
                "score": pick([-1.5, -0.0, 0.0, 0.5, 2.0, 1e300]),
                "open": pick([True, False]),
                "venue": pick(WORDS),
                "day": pick(DAYS),
                "seen at": pick(TIMES),
                "tags": pick([[], ["a"], ["it's", "a"], ["\n", "é"]]),
            }
        )
    table = table_of(records).append_column("row", pa.array(range(200)))
    folder: Path = tmp_path_factory.mktemp("engine")
    return records, lance.write_dataset(table, folder / "t.lance")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters)
def test_sql_agrees_with_another_engine(engine: tuple, case: tuple) -> None:
    records, dataset = engine
    table = table_of(records)
    tree = parse(case[0], COLUMNS)
    ours = np.flatnonzero(mask(tree, lambda name: table.column(name).combine_chunks())).tolist()
    theirs = dataset.to_table(columns=["row"], filter=to_sql(tree)).column("row").to_pylist()
    assert ours == theirs, case[0]
