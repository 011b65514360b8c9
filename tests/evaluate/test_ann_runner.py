"""The benchmark of filtered search as a whole: measuring, rounds, resuming, what is told of it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nextvec.cli import main as cli
from nextvec.evaluate.ann import engines, runner, summary
from nextvec.evaluate.ann.bench import bench
from nextvec.evaluate.ann.engines._engine import Engine, Found, Setting
from nextvec.evaluate.ann.make import Plan, make
from nextvec.evaluate.ann.measure import Judge, measure
from nextvec.evaluate.ann.runner import Options
from nextvec.evaluate.ann.sources import synthetic
from nextvec.evaluate.ann.workload import Workload, open_workload, save
from nextvec.types import InputError

PLAN = Plan(filters=1, queries=3, k=5, kinds=("range",), buckets=(10.0,), correlations=("independent",))
QUICK = Options(seconds=0.001, rounds=2)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("w") / "workload"
    return save(make(synthetic(600, dim=8, queries=20), PLAN), folder)


class Scripted(Engine):
    """Answers from a list."""

    modules, package = ("numpy",), "numpy"

    def __init__(self, answers: dict[str, list[int]], workload: Workload) -> None:
        super().__init__(Path(), workload.schema)
        self.answers, self.workload = answers, workload
        self.asked: list[str] = []

    def build(self, vectors: Any, attributes: Any) -> None: ...

    def open(self, attributes: Any) -> None: ...

    def settings(self, k: int) -> list[Setting]:
        return [Setting("scripted", {"how": name}) for name in self.answers]

    def search(self, queries: Any, k: int, prepared: Any, setting: Setting) -> Found:
        self.asked.append(str(setting))
        return [np.array(self.answers[setting.values["how"]], np.int64)] * len(queries)


def test_recall_fill_and_wrong_hits_by_hand(place: Path) -> None:
    workload = open_workload(place)
    judge = Judge(workload, place)
    number = next(i for i, group in enumerate(workload.groups) if group.where)
    case, query = workload.cases(number)[0], workload.groups[number].queries[0]
    truth = workload.truth[case].astype(np.int64)
    outside = int(np.setdiff1d(np.arange(600), np.flatnonzero(judge_allowed(workload, number)))[0])

    def judged(*rows: int) -> tuple[float, float, int]:
        return judge.judge(number, case, query, np.array(rows, np.int64))

    assert judged(*truth) == (1.0, 1.0, 0)
    assert judged(*truth[:3]) == (0.6, 0.6, 0)
    assert judged(*truth[:3], int(truth[0])) == (0.6, 0.6, 1)  # twice
    assert judged(*truth[:4], outside) == (0.8, 0.8, 1)  # does not match
    assert judged(*truth[:4], 600, -7) == (0.8, 0.8, 2)  # does not exist
    assert judged() == (0.0, 0.0, 0)
    judge.close()


def judge_allowed(workload: Workload, number: int) -> np.ndarray:
    from nextvec.evaluate.ann.workload import matching

    return matching(workload.attributes, workload.schema, workload.groups[number].where)


def test_a_sweep_ends_where_the_recall_is_full(place: Path) -> None:
    full = open_workload(place)
    group = next(i for i, one in enumerate(full.groups) if one.where)
    case = full.cases(group)[0]
    rows = full.truth[case].tolist()
    # One query under one filter, so that one answer is right for all.
    one = Workload(
        name="one", vectors=full.vectors, attributes=full.attributes, schema=full.schema, queries=full.queries,
        groups=(type(full.groups[0])(full.groups[group].cell, full.groups[group].where, full.groups[group].matches,
                                     full.groups[group].queries[:1], 1.0),),
        truth=full.truth[case : case + 1], left_out={}, facts={},
    )  # fmt: skip
    engine, judge = Scripted({"bad": rows[:2], "good": rows, "slow": rows}, one), Judge(one, place)
    points = measure(engine, one, judge, seconds=0.0001)
    judge.close()
    assert [(point["setting"], point["recall"]) for point in points] == [("how bad", 0.4), ("how good", 1.0)]
    assert "how slow" not in engine.asked
    assert points[0]["batch"] is None and points[0]["single"]["calls"] >= 3 and points[0]["single"]["qps"] > 0
    assert points[0]["single"]["cpu_ms"] > 0


def test_a_run_goes_on_engine_by_engine(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, str]] = []
    real = runner._process

    def process(job: Any, options: Any, cells: Any) -> dict[str, Any]:
        started.append((job["engine"], job["stage"]))
        if len(started) == 4:
            raise KeyboardInterrupt
        return real(job, options, cells)

    monkeypatch.setattr(runner, "_process", process)
    names = ["nextvec", "faiss_flat"]
    with pytest.raises(KeyboardInterrupt):
        runner.run(place, tmp_path, names, QUICK)
    assert started == [("nextvec", "build"), ("nextvec", "measure"), ("faiss_flat", "build"), ("faiss_flat", "measure")]
    found = runner.run(place, tmp_path, names, QUICK)
    # The first round begins with what was interrupted; in the second the order has turned.
    assert started[4:] == [("faiss_flat", "measure"), ("faiss_flat", "measure"), ("nextvec", "measure")]
    assert [len(found[name]["rounds"]) for name in names] == [2, 2]
    assert not (tmp_path / "index").exists()
    count = len(started)
    again = runner.run(place, tmp_path, names, QUICK)
    assert len(started) == count and again == found
    runner.run(place, tmp_path, names[:1], Options(seconds=0.002, rounds=1))  # other settings are another run
    assert started[count:] == [("nextvec", "build"), ("nextvec", "measure")]


def test_what_fails_is_told_and_the_others_go_on(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nextvec.evaluate.ann.runner as module

    real = module._process

    def process(job: Any, options: Any, cells: Any) -> dict[str, Any]:
        broken = {**job, "workload": "/nowhere"} if job["engine"] == "faiss_flat" else job
        return real(broken, options, cells)

    monkeypatch.setattr(module, "_process", process)
    document = bench(place, tmp_path, engines=["faiss_flat", "nextvec"], options=Options(seconds=0.001, rounds=1))
    told = {one["engine"]: one["failed"] for one in document["engines"]}
    assert told["nextvec"] is None and "is not a workload" in told["faiss_flat"]
    assert {point["engine"] for point in document["points"]} == {"nextvec"}
    assert "is not a workload" in (tmp_path / "ann.md").read_text()


def test_a_process_over_its_time_is_ended(place: Path, tmp_path: Path) -> None:
    found = runner.run(place, tmp_path, ["faiss_flat"], Options(seconds=0.001, rounds=1, limit=0.05))
    assert found["faiss_flat"]["failed"] == "build: it took longer than 0 s"


def test_options_refuse_what_cannot_be() -> None:
    with pytest.raises(InputError, match="rounds 0"):
        Options(rounds=0)
    with pytest.raises(InputError, match="may use"):
        Options(threads=len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else 10_000)


# ---------------------------------------------------------------- what is told


def _point(
    series: str, recall: float, qps: float, *, engine: str = "e", wrong: int = 0, ready: bool = False
) -> dict[str, Any]:
    return {
        "kind": "range", "bucket": 10.0, "correlation": "independent", "series": series, "setting": f"at {recall}",
        "engine": engine, "ready": ready, "recall": recall, "least_recall": recall, "fill": 1.0, "wrong": wrong,
        "single": {"qps": qps, "low": qps, "high": qps}, "batch": None,
    }  # fmt: skip


CELL = {"kind": "range", "bucket": 10.0, "correlation": "independent", "lift": 1.0}


def test_the_table_takes_the_fastest_setting_that_reaches_the_target() -> None:
    points = [
        _point("nextvec", 1.0, 200.0), _point("peer", 0.9, 900.0), _point("peer", 0.96, 400.0),
        _point("peer", 0.99, 300.0),
        _point("low", 0.5, 9000.0), _point("low", 0.7, 5000.0), _point("liar", 1.0, 9e9, wrong=3),
        _point("peer, bitmap ready", 1.0, 800.0, ready=True), _point("nextvec, filter known", 1.0, 400.0, ready=True),
    ]  # fmt: skip
    row = summary._row(points, CELL, 0.95)
    assert row["best"]["peer"]["single"]["qps"] == 400.0 and row["best"]["peer"]["single"]["setting"] == "at 0.96"
    assert not row["best"]["low"]["reached"] and row["best"]["low"]["recall"] == 0.7
    assert not row["best"]["liar"]["reached"]
    assert row["ratios"]["nextvec"]["single"] == {"ratio": 0.5, "peer": "peer"}  # matches at hand do not compare
    assert row["ratios"]["nextvec, filter known"]["single"] == {"ratio": 0.5, "peer": "peer, bitmap ready"}
    assert row["ratios"]["nextvec"]["batch"] is None
    short = summary._short([summary._row([{**_point("low", 0.5, 1.0), "fill": 0.25}], CELL, 0.95)])
    assert short[-1] == "- low: 0.25 of them (range 10 % independent)"


def test_rounds_become_medians_with_their_spread() -> None:
    def one(qps: float) -> dict[str, Any]:
        rate = {"qps": qps, "p99_ms": 1.0, "cpu_ms": 0.5}
        return {"points": [{**_point("a", 1.0, qps), "single": rate, "batch": {"qps": 10 * qps}}]}

    (point,) = summary._points({"e": {"rounds": [one(3.0), one(1.0), one(2.0)]}})
    assert point["single"] == {"qps": 2.0, "low": 1.0, "high": 3.0} and point["batch"]["qps"] == 20.0


def _cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["nextvec", "bench", "ann", *arguments])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # Typer puts its own there
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NEXTVEC_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    vectors = pa.array(generator.standard_normal((400, 8)).tolist())
    pq.write_table(pa.table({"v": vectors, "year": list(range(400))}), tmp_path / "d.parquet")
    quick = ["--filters", "1", "--queries", "2", "--seconds", "0.001", "--rounds", "1", "--kinds", "range"]
    quick += ["--buckets", "1,10", "--correlations", "near", "--engines", "nextvec,faiss_flat"]
    own = ["--data", str(tmp_path / "d.parquet"), "--vector", "v", "--attributes", "year", "--out", str(tmp_path / "o")]
    assert _cli(monkeypatch, *own, *quick, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert {point["recall"] for point in document["points"]} == {1.0}
    assert {point["wrong"] for point in document["points"]} == {0}
    assert [one["failed"] for one in document["engines"]] == [None, None]
    assert {path.name for path in (tmp_path / "o").iterdir()} >= {"ann.json", "ann.md"}
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in document["plots"])
    text = (tmp_path / "o" / "ann.md").read_text()
    assert '## "range" filters, near' in text and "| *nextvec / best peer* |" in text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "pass one of --data, --papers and --synthetic"),
        (["--synthetic", "100", "--papers"], "pass one of"),
        (["--synthetic", "100", "--engines", "fais_flat"], "did you mean 'faiss_flat'"),
        (["--synthetic", "100", "--kinds", "regex"], "'regex' is not one of"),
        (["--synthetic", "100", "--buckets", "a"], "expected numbers"),
        (["--synthetic", "3"], "expected 10 to"),
        (["--synthetic", "100", "--recall", "0"], "--recall is 0"),
        (["--data", "nowhere.parquet"], "does not exist"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _cli(monkeypatch, *arguments) == 1
    said = capsys.readouterr().err
    assert complaint in said


def test_all_engines_are_known() -> None:
    assert engines.names()[0] == "nextvec" and len(engines.names()) >= 9
    usable, missing = runner.choose(None)
    assert {"nextvec"} <= set(usable) and not set(usable) & set(missing)
