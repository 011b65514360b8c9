"""Running claims: resume, failures, arms, and the result's file. Methods are files of a temporary package."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from method_files import FIXED, PACKAGE, Methods

import nextvec
from nextvec import catalog
from nextvec.claims import methods as list_methods
from nextvec.claims import pool, reproduce
from nextvec.claims.arm import run
from nextvec.claims.facts import cores
from nextvec.claims.jobs import Job, digest
from nextvec.claims.pool import FailedRunError
from nextvec.types import ConflictError, InputError, MissingExtraError, NotFoundError

pytestmark = pytest.mark.usefixtures("no_matplotlib")
Fixed = Callable[[], list[str]]


def go(out: Path, name: str = "fake", **options: Any) -> dict[str, Any]:
    return reproduce(name, out=out, package=PACKAGE, **({"scale": "smoke", "jobs": 2, "seeds": 2} | options))


def test_adding_a_method_is_adding_one_file(methods: Methods) -> None:
    assert list_methods(PACKAGE) == []
    methods.write("first", FIXED)
    methods.write("second", FIXED)
    (methods.folder / "_parts.py").write_text("card = None\n")
    assert [card.title for card in list_methods(PACKAGE)] == ["On a | fake"] * 2
    with pytest.raises(NotFoundError, match="did you mean 'first'"):
        catalog.find(PACKAGE, "frist")


def test_a_file_holds_exactly_one_method(methods: Methods) -> None:
    card = "Card(name='', title='', arxiv='', year=1, family='', claim='', differs=())"
    base = f"from nextvec.types import Card\nclass A:\n    card = {card}\n"
    (methods.folder / "one.py").write_text(base + "class Variant(A): pass\nAlias = A\n")
    (methods.folder / "none.py").write_text(f"from {PACKAGE}.one import A\nclass B(A): pass\n")
    (methods.folder / "two.py").write_text(base + "class B:\n    card = A.card\n")
    assert catalog.find(PACKAGE, "one").__name__ == "A"
    with pytest.raises(InputError, match="none holds no method; exactly one class"):
        catalog.find(PACKAGE, "none")
    with pytest.raises(InputError, match="two holds A, B; exactly one class"):
        catalog.find(PACKAGE, "two")


def test_a_method_whose_library_is_absent_names_the_extra(methods: Methods, monkeypatch: pytest.MonkeyPatch) -> None:
    (methods.folder / "lacking.py").write_text("import faiss\n")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"method 'lacking' needs 'faiss'.*nextvec\[ann\]"):
        catalog.find(PACKAGE, "lacking")


def test_the_result(fixed: Fixed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    counted: list[tuple[int, int | None]] = []
    result = go(tmp_path / "out", seeds=3, note=said.append, progress=lambda done, total: counted.append((done, total)))
    kept = json.loads((tmp_path / "out" / "fake.json").read_text())
    assert kept == json.loads(json.dumps(result))
    assert kept["kind"] == "claim" and kept["schema"] == 1 and kept["method"] == "fake"
    assert kept["card"]["arxiv"] == "2401.00001" and kept["card"]["differs"] == ["no network"]
    assert kept["statement"] == "Ours is better than plain." and kept["scale"] == "smoke" and kept["seeds"] == [0, 1, 2]
    # 0.4, 0.39, 0.38: mean 0.39, half = 4.30265 * 0.01 / sqrt(3) = 0.02484
    far, guessing = kept["checks"]
    assert far["verdict"] == "holds" and far["differences"] == [0.4, 0.39, 0.38]
    assert far["difference"]["low"] == pytest.approx(0.36516, abs=1e-5)
    assert guessing["verdict"] == "holds" and guessing["worse"] == 0.25 and kept["verdict"] == "holds"
    ours = kept["arms"]["ours"]
    assert [run["seed"] for run in ours["runs"]] == [0, 1, 2]
    assert ours["runs"][1]["measures"]["accuracy"] == pytest.approx(0.91) and ours["runs"][1]["seconds"] >= 0
    assert ours["measures"]["accuracy"]["mean"] == pytest.approx(0.91) and ours["measures"]["accuracy"]["n"] == 3
    assert ours["paper"] == {"accuracy": 0.99, "recall@10": 0.95} and kept["arms"]["plain"]["paper"] == {}
    assert kept["config"] == {"scale": "smoke"} and kept["curves"] == ["recall"]
    assert kept["hardware"]["cores"] >= 1 and kept["hardware"]["cpu"] and kept["hardware"]["memory_bytes"] > 1e8
    assert kept["versions"]["nextvec"] and kept["versions"]["python"] and "torch" in kept["versions"]
    assert kept["commit"] is None or len(kept["commit"]["hash"]) == 40
    assert kept["run_seconds"] >= 0 and kept["wall_seconds"] > 0 and kept["date"].startswith("20")
    assert kept["command"] == f"nextvec reproduce fake --scale smoke --seeds 3 --package {PACKAGE} --out out"
    assert said[0] == "fake, smoke scale: 2 arms x 3 seeds = 6 runs; 2 at a time"
    assert counted[0] == (0, 6) and counted[-1] == (6, 6)
    assert fixed() == ["ours 0", "ours 1", "ours 2", "plain 0", "plain 1", "plain 2"]


def test_finished_runs_are_not_run_again(fixed: Fixed, methods: Methods, tmp_path: Path) -> None:
    go(tmp_path, seeds=1)
    assert fixed() == ["ours 0", "plain 0"]
    go(tmp_path)
    assert fixed() == ["ours 0", "ours 1", "plain 0", "plain 1"]
    # A damaged result is no result; a corrected claim or comment costs nothing; a changed arm costs all its runs.
    work = next((tmp_path / "fake.runs").glob("smoke-*"))
    (work / "ours-seed0.json").write_text("{")
    go(tmp_path)
    assert len(fixed()) == 5 and fixed().count("ours 0") == 2
    methods.write("fake", FIXED.replace("margin=0.1", "margin=0.5") + "# a remark\n")
    assert go(tmp_path)["verdict"] == "does not hold" and len(fixed()) == 5
    methods.write("fake", FIXED.replace("0.9 +", "0.8 +"))
    result = go(tmp_path, seeds=1)
    assert len(fixed()) == 7 and result["arms"]["ours"]["measures"]["accuracy"]["mean"] == 0.8
    go(tmp_path, arms=["plain"], seeds=1, fresh=True)
    assert len(fixed()) == 8 and fixed().count("plain 0") == 3


def test_only_some_arms(fixed: Fixed, tmp_path: Path) -> None:
    result = go(tmp_path, arms=["ours"])
    assert result["verdict"] == "inconclusive" and result["checks"][0]["note"] == "'plain' not run"
    assert result["arms"]["plain"]["runs"] == [] and fixed() == ["ours 0", "ours 1"]
    assert go(tmp_path, arms=["plain"])["verdict"] == "holds"


def test_prepare_runs_once_and_begins_anew_after_an_interruption(methods: Methods, tmp_path: Path) -> None:
    claim = """
    def prepare(folder):
        assert not list(folder.iterdir())
        (folder / "half").touch()
        with Path(r"{count}").open("a") as stream:
            stream.write("x")
        if not Path(r"{allowed}").exists():
            raise RuntimeError("no corpus\\nhere")
        (folder / "corpus").write_text("7")

    def arm(run):
        run.folder.joinpath("own").touch()
        return {{"x": float((run.shared / "corpus").read_text())}}

    return Claim(statement="s", arms={{"a": arm}}, checks=(Check(says="", better="a.x", worse=1),), prepare=prepare)
    """
    count, allowed = tmp_path / "count", tmp_path / "allowed"
    methods.write("prepared", claim.format(count=count, allowed=allowed))
    with pytest.raises(
        FailedRunError, match=r"what all arms share failed: RuntimeError: no corpus \(log: .*shared\.log\)"
    ):
        go(tmp_path, "prepared")
    allowed.touch()
    assert go(tmp_path, "prepared")["verdict"] == "holds"
    go(tmp_path, "prepared", seeds=3)
    assert count.read_text() == "xx"


FAILING = """
def good(run):
    ran(run, "good")
    return {"x": 1.0}

def bad(run):
    ran(run, "bad")
    if run.seed == 1:
        print("some words")
        raise ValueError("the loss\\nis gone")
    return {"x": float("nan") if run.seed == 2 else 0.0}

return Claim(statement="s", arms={"good": good, "bad": bad}, checks=(Check(says="", better="good.x", worse="bad.x"),))
"""


def test_a_failing_arm_is_one_line_and_the_others_are_kept(methods: Methods, tmp_path: Path) -> None:
    methods.write("failing", FAILING)
    said: list[str] = []
    with pytest.raises(FailedRunError) as caught:
        go(tmp_path, "failing", seeds=3, note=said.append)
    line = str(caught.value)
    assert "\n" not in line and "bad, seed" in line and "(and 1 more)" in line and "run it again" in line
    first, second = sorted(one for one in said if "failed" in one)
    assert "bad, seed 1 failed: ValueError: the loss (log: " in first
    assert "bad, seed 2 failed: InputError: measure 'x' is nan" in second
    log = Path(first.partition("(log: ")[2].rstrip(")"))
    assert "some words" in log.read_text() and "Traceback" in log.read_text()
    assert not (tmp_path / "failing.json").exists()
    assert len(methods.runs()) == 6
    with pytest.raises(FailedRunError):
        go(tmp_path, "failing", seeds=3)
    assert len(methods.runs()) == 8  # the two that failed, again
    result = go(tmp_path, "failing", seeds=1)
    assert result["arms"]["bad"]["measures"]["x"]["mean"] == 0 and len(methods.runs()) == 8


@pytest.mark.parametrize(("code", "words"), [("os.abort()", "SIGABRT"), ("os._exit(3)", "ended with code 3 and said")])
def test_a_process_that_dies_without_a_word(methods: Methods, tmp_path: Path, code: str, words: str) -> None:
    methods.write(
        "dying",
        f"""
        def arm(run):
            {code}
        return Claim(statement="s", arms={{"a": arm}}, checks=(Check(says="", better="a.x", worse=1),))
        """,
    )
    with pytest.raises(FailedRunError, match=words):
        go(tmp_path, "dying", seeds=1)


def test_threads_are_shared_out(methods: Methods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods.write("fake", FIXED)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    result = go(tmp_path, jobs=64, seeds=1)
    assert result["verdict"] == "inconclusive" and "one seed" in result["checks"][0]["note"]
    assert {line.split()[2] for line in methods.ledger.read_text().splitlines()} == {str(max(1, cores() // 2))}
    methods.ledger.unlink()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    result = go(tmp_path, seeds=1, arms=["ours"], fresh=True)
    assert methods.ledger.read_text() == "ours 0 3\n"
    assert result["arms"]["ours"]["runs"][0]["threads"] == 3


def test_runs_are_dealt_to_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\nprintf 'One\\nTwo\\nThree\\n'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert pool.gpus() == ["One", "Two", "Three"]
    assert pool.default_parallel("gpu") == 3 and pool.default_parallel("cpu") == cores()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    devices = pool.gpus()
    assert devices == ["Three", "One"]
    dealt = [pool.environment(slot, 4, devices)["CUDA_VISIBLE_DEVICES"] for slot in range(4)]
    assert dealt == ["2", "0", "2", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert pool.gpus() == [] and pool.environment(1, 2, [])["CUDA_VISIBLE_DEVICES"] == ""


def test_a_folder_is_for_one_scale_and_one_run_at_a_time(fixed: Fixed, tmp_path: Path) -> None:
    go(tmp_path, seeds=1, arms=["plain"])
    with pytest.raises(ConflictError, match="holds the result at smoke scale"):
        go(tmp_path, scale="cpu")
    from filelock import FileLock

    with FileLock(tmp_path / "fake.runs" / ".lock"), pytest.raises(ConflictError, match="in use"):
        go(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="not a folder"):
        go(tmp_path / "file" / "out")
    assert fixed() == ["plain 0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "huge"}, "scale is 'huge'; expected one of smoke, cpu, gpu"),
        ({"seeds": 0}, "seeds is 0"),
        ({"jobs": 0}, "0 jobs"),
        ({"arms": ["plian"]}, "no arm 'plian'; it has ours, plain; did you mean 'plain'"),
        ({"arms": []}, "no arm was named"),
    ],
)
def test_bad_requests(fixed: Fixed, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        go(tmp_path, **options)
    assert fixed() == []


@pytest.mark.parametrize(
    ("arms", "better", "rest", "message"),
    [
        ("{}", "a.x", "", "needs arms and checks"),
        ("{'a b': print, 'a/b': print}", "a b.x", "", "names that differ"),
        ("{'a': print}", "b.x", "", "'b.x' is not 'arm.measure'"),
        ("{'a': print}", "a.x", ", paper={'b.x': 1}", "'b.x' is not 'arm.measure'"),
        ("{'a': print}", "a.x", "", "a, seed 0 failed: InputError: arm 'a' returned NoneType"),
        ("{'a': lambda run: {'y': 1.0}}", "a.x", "", "the arm 'a' measures y"),
        ("{'a': lambda run: {'x': 1.0}}", "a.x", ", config={'f': print}", "cannot be written as JSON"),
    ],
)
def test_claims_that_cannot_be_judged(
    methods: Methods, tmp_path: Path, arms: str, better: str, rest: str, message: str
) -> None:
    methods.write(
        "bad",
        f"checks = (Check(says='', better={better!r}, worse=1),)\n"
        f"return Claim(statement='', arms={arms}, checks=checks{rest})\n",
    )
    with pytest.raises((InputError, FailedRunError), match=message):
        go(tmp_path, "bad", seeds=1)


def test_a_claim_needs_checks_that_compare_with_something(methods: Methods, tmp_path: Path) -> None:
    methods.write("bad", "return Claim(statement='', arms={'a': print}, checks=())")
    with pytest.raises(InputError, match="needs arms and checks; it has 1 and 0"):
        go(tmp_path, "bad")
    bar = "Check(says='above', better='a.x', worse=float('nan'))"
    methods.write("bad", f"return Claim(statement='', arms={{'a': print}}, checks=({bar},))")
    with pytest.raises(InputError, match="check 'above' of bad compares with nan"):
        go(tmp_path, "bad")


def test_the_digest_follows_the_program_alone(methods: Methods) -> None:
    def of(claim: str) -> str:
        methods.write("fake", claim)
        return digest(catalog.find(PACKAGE, "fake"), version="1")

    first = of(FIXED)
    assert of(FIXED.replace("better by far", "better").replace("0.99", "0.98") + "\n# words\n") == first
    assert of(FIXED.replace("def plain(run):", 'def plain(run):\n    """Words."""')) == first
    assert of(FIXED.replace("0.01 * run.seed", "0.02 * run.seed")) != first
    methods.write("fake", FIXED)
    assert digest(catalog.find(PACKAGE, "fake"), version="2") != first
    # A part file counts where it is named, and so do the parts that it names itself.
    (methods.folder / "_parts.py").write_text("from . import _more\nSTEPS = 1\n")
    (methods.folder / "_more.py").write_text("RATE = 1\n")
    assert of(FIXED) == first
    named = FIXED.replace("def plain(run):", "def plain(run):\n    from . import _parts")
    before = of(named)
    (methods.folder / "_more.py").write_text("RATE = 2\n")
    assert of(named) != before


def test_a_method_changed_in_the_middle_does_not_mix_with_itself(methods: Methods, tmp_path: Path) -> None:
    methods.write("fake", FIXED)
    key = digest(catalog.find(PACKAGE, "fake"), version=nextvec.__version__)
    job = Job(package=PACKAGE, method="fake", scale="smoke", arm="ours", seed=3, work=tmp_path / "work", key=key)
    assert Job.from_json(job.to_json()) == job
    assert run(job)["measures"]["accuracy"] == pytest.approx(0.93)
    methods.write("fake", FIXED.replace("0.9 +", "0.8 +"))
    with pytest.raises(ConflictError, match="file of fake was changed after"):
        run(job)


def test_the_plot_is_drawn_where_it_can_be(fixed: Fixed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    one = {"seeds": 1, "arms": ["plain"], "note": said.append}
    assert go(tmp_path, **one)["plot"] is None and not (tmp_path / "fake.png").exists()
    assert any("no plot: the plot of a claim needs 'matplotlib'" in line and "nextvec[plots]" in line for line in said)
    monkeypatch.undo()
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib: pip install 'nextvec[plots]'")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert go(tmp_path, **one)["plot"] == "fake.png"
    assert (tmp_path / "fake.png").read_bytes().startswith(b"\x89PNG") and fixed() == ["plain 0"]
