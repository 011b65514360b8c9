"""Calls that every store refuses, on a collection of SCHEMA with 4 dimensions and the rows "a", "b" and "c"."""

from __future__ import annotations

from typing import Any

import numpy as np

from nextvec.types import ConflictError, InputError

SCHEMA = {"year": "int", "venue": "string", "tags": "list[string]", "day": "date", "a b": "float"}


def vectors(n: int, dim: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


BAD_CALLS: list[tuple[Any, type[Exception], str]] = [
    (lambda c: c.add(["a"], vectors(1)), ConflictError, "id 'a' exists already"),
    (lambda c: c.add(["n", "m", "n"], vectors(3)), ConflictError, "id 'n' comes twice in the batch"),
    (lambda c: c.upsert(["n", "n"], vectors(2)), ConflictError, "id 'n' comes twice"),
    (lambda c: c.add(["n"], vectors(1, 5)), InputError, r"shape \[1, 5\]: expected \[n, 4\]"),
    (lambda c: c.add(["n"], vectors(2)), InputError, "1 ids came with 2 vectors"),
    (lambda c: c.add(["n"], [[1, 2, 3, float("nan")]]), InputError, "vector 0 holds NaN"),
    (lambda c: c.add(["n"], [[1, 2, 3, float("inf")]]), InputError, "vector 0 holds NaN or an infinite"),
    (lambda c: c.add(["n"], [[1, 2, 3, 1e39]]), InputError, "vector 0 holds NaN or an infinite"),
    (lambda c: c.add(["n"], [[0, 0, 0, 0]]), InputError, "vector 0 is all zeros"),
    (lambda c: c.add(["n"], [["a", "b", "c", "d"]]), InputError, "expected numbers"),
    (lambda c: c.add(["n", "m"], [[1, 2, 3, 4], [1, 2]]), InputError, "do not form one array"),
    (lambda c: c.add("n", vectors(1)), InputError, "expected a list of strings"),
    (lambda c: c.add([5], vectors(1)), InputError, "id at position 0 is 5: expected a string"),
    (lambda c: c.add([""], vectors(1)), InputError, "expected 1 to 1024 characters"),
    (lambda c: c.add(["a\x00"], vectors(1)), InputError, "control character"),
    (lambda c: c.add(["\ud800"], vectors(1)), InputError, "not valid Unicode"),
    (lambda c: c.add(["x" * 5000], vectors(1)), InputError, "expected 1 to 1024 characters"),
    (lambda c: c.add(["n"], vectors(1), [{"yaer": 1}]), InputError, "did you mean 'year'?"),
    (lambda c: c.add(["n"], vectors(1), {"yaer": [1]}), InputError, "did you mean 'year'?"),
    (lambda c: c.add(["n"], vectors(1), [{"year": "x"}]), InputError, "'year' at position 0 is 'x': expected int"),
    (lambda c: c.add(["n"], vectors(1), [{"year": True}]), InputError, "expected int"),
    (lambda c: c.add(["n"], vectors(1), [{"year": 2**63}]), InputError, "outside 64 bits"),
    (lambda c: c.add(["n"], vectors(1), [{"a b": float("nan")}]), InputError, "use None for a missing value"),
    (lambda c: c.add(["n"], vectors(1), [{"tags": "x"}]), InputError, r"expected list\[string\]"),
    (lambda c: c.add(["n"], vectors(1), [{"tags": [None]}]), InputError, r"expected list\[string\]"),
    (lambda c: c.add(["n"], vectors(1), [{"day": "soon"}]), InputError, "expected date"),
    (lambda c: c.add(["n"], vectors(1), [{"venue": "\ud800"}]), InputError, "cannot be stored as string"),
    (lambda c: c.add(["n"], vectors(1), {"year": [1, 2]}), InputError, "2 values for 1 ids"),
    (lambda c: c.add(["n"], vectors(1), [{}, {}]), InputError, "1 ids came with 2 attribute mappings"),
    (lambda c: c.add(["n"], vectors(1), ["x"]), InputError, "expected a mapping"),
    (lambda c: c.search(vectors(1, 5)[0]), InputError, r"shape \[1, 5\]"),
    (lambda c: c.search([0, 0, 0, 0]), InputError, "query vector 0 is all zeros"),
    (lambda c: c.search([1, 0, 0, float("nan")]), InputError, "NaN"),
    (lambda c: c.search(np.zeros((1, 1, 4))), InputError, "shape"),
    (lambda c: c.search("text"), InputError, "expected numbers|shape"),
    (lambda c: c.search([1, 0, 0, 0], 0), InputError, "k is 0"),
    (lambda c: c.search([1, 0, 0, 0], -3), InputError, "k is -3"),
    (lambda c: c.search([1, 0, 0, 0], 2.5), InputError, "k is 2.5"),
    (lambda c: c.search([1, 0, 0, 0], where="yaer=1"), InputError, "did you mean 'year'?"),
    (lambda c: c.search([1, 0, 0, 0], columns=["vnue"]), InputError, "did you mean 'venue'?"),
    (lambda c: c.search([1, 0, 0, 0], columns="venue"), InputError, "expected a list"),
    (lambda c: c.count(["year=1"]), InputError, "where is a list"),
    (lambda c: c.delete(), InputError, "either ids or where"),
    (lambda c: c.delete(["a"], where="year=1"), InputError, "either ids or where"),
]
"""(call, the error, what it says)"""
