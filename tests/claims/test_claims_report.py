"""Results read back: the page, the table of methods, the plot, and the commands."""

from __future__ import annotations

import copy
import importlib
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from method_files import FIXED, PACKAGE, Methods

import nextvec
from nextvec import catalog
from nextvec.claims import reproduce
from nextvec.claims.plot import curve_points, draw
from nextvec.claims.report import duration, write_report
from nextvec.claims.results import best, inequality, interval, number, read_results, table_rows
from nextvec.claims.verdict import check, summary
from nextvec.evaluate.figures import spread
from nextvec.types import Check, InputError, NotFoundError

ARMS = ("ours", "a rather long name of some baseline", "plain")


def result(*, seeds: int = 3, scale: str = "cpu", method: str = "fake", arms: tuple[str, ...] = ARMS) -> dict[str, Any]:
    """What ``reproduce`` writes, made without running anything."""
    noise = np.random.default_rng(0)
    runs: dict[str, dict[int, dict[str, float]]] = {
        arm: {
            seed: {"accuracy": 0.9 - 0.2 * i + noise.normal() / 100, "cost $": 10.0 * i}
            | {f"recall@{k}": 0.2 * k**0.3 - 0.02 * i for k in (1, 4, 64)}
            | {f"f1@{kind}": 0.5 - 0.1 * i for kind in ("short", "long")}
            for seed in range(seeds)
        }
        for i, arm in enumerate(arms)
    }
    checks = [Check(says="ours | theirs", better="ours.accuracy", worse="plain.accuracy", margin=0.1)]
    return {
        "kind": "claim",
        "schema": 1,
        "method": method,
        "card": {
            "name": "Fake",
            "title": "On fakes",
            "arxiv": "2401.00001",
            "year": 2024,
            "family": "tests",
            "claim": "c",
            "differs": ["no network"],
        },
        "statement": "Ours is better.",
        "scale": scale,
        "seeds": list(range(seeds)),
        "verdict": "holds",
        "checks": [check(one, runs, dict.fromkeys(arms)) for one in checks],
        "arms": {
            arm: {
                "runs": [{"seed": seed, "measures": measures} for seed, measures in own.items()],
                "measures": summary(own),
                "paper": {"accuracy": 0.95, "recall@4": 0.4, "only there": 1.0} if arm == "ours" else {},
            }
            for arm, own in runs.items()
        },
        "curves": ["recall", "f1"],
        "command": f"nextvec reproduce {method} --scale {scale}",
        "commit": {"hash": "0123456789abcdef", "dirty": True},
        "hardware": {"cpu": "some CPU", "cores": 2, "memory_bytes": 1, "gpu": None},
        "versions": {"nextvec": "0.1.0", "torch": None},
        "run_seconds": 754.0,
        "date": "2026-01-02T03:04:05+00:00",
        "plot": "fake.png",
    }


def keep(folder: Path, name: str, document: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def test_the_page(tmp_path: Path) -> None:
    results = tmp_path / "docs" / "results"
    keep(results, "fake.json", result())
    keep(results, "gpu/fake.json", result(scale="gpu"))
    keep(results, "encode.json", {"docs": 1000})
    keep(results, "list.json", [1])
    keep(results, "fake.runs/cpu-1/ours-seed0.json", result(method="not-a-result"))
    out = tmp_path / "docs" / "results.md"
    assert write_report(results, out) == 2
    page = out.read_text()
    assert "| [Fake](#fake-gpu) | tests | Ours is better. | gpu | 3 | **holds** |" in page
    assert page.index("## Fake (gpu scale)") < page.index("## Fake (cpu scale)")
    assert "![Fake: means with intervals, per arm](results/fake.png)" in page and "(results/gpu/fake.png)" in page
    assert "*On fakes*, 2024, [arXiv:2401.00001](https://arxiv.org/abs/2401.00001)." in page
    assert re.search(
        r"\| ours \\\| theirs \| `ours.accuracy - plain.accuracy > 0.1` \| 0.\d+ \[0.\d+, 0.\d+\] \| holds \|", page
    )
    assert "(paper 0.95)" in page and "| only there | (paper 1) | – | – |" in page
    assert "13 min of runs on some CPU, 2 cores; nextvec 0.1.0; commit `0123456789ab` with changes; 2026-01-02" in page
    assert "    nextvec reproduce fake --scale cpu\n" in page and "- no network" in page
    assert "not-a-result" not in page and "encode" not in page
    # Every row of a table has as many cells as its heading.
    for block in page.split("\n\n"):
        if block.startswith("| "):
            assert len({line.replace("\\|", "").count("|") for line in block.strip().splitlines()}) == 1


def test_pages_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no folder"):
        write_report(tmp_path / "nowhere", tmp_path / "page.md")
    with pytest.raises(NotFoundError, match="holds no result"):
        write_report(tmp_path, tmp_path / "page.md")
    path = keep(tmp_path, "old.json", result() | {"schema": 0})
    with pytest.raises(InputError, match=r"old\.json' has schema 0; expected a claim of schema 1"):
        read_results(tmp_path)
    lacking = result()
    del lacking["arms"]
    keep(tmp_path, "old.json", lacking)
    with pytest.raises(InputError, match="lacks 'arms'"):
        read_results(tmp_path)
    path.write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_results(tmp_path)


def test_the_largest_scale_counts(tmp_path: Path) -> None:
    for scale in ("smoke", "gpu", "cpu"):
        keep(tmp_path, f"{scale}/fake.json", result(scale=scale))
    assert best(read_results(tmp_path))["fake"]["scale"] == "gpu"


def test_numbers_for_people() -> None:
    assert [number(value) for value in (0.91234, 12345.6, 3.0, 0)] == ["0.9123", "12,346", "3", "0"]
    assert interval({"mean": 0.5, "low": 0.25, "high": 0.75}) == "0.5 [0.25, 0.75]"
    assert interval({"mean": 0.5, "low": None, "high": None}) == "0.5" and interval(None) == ""
    assert [duration(seconds) for seconds in (42, 754, 12_240)] == ["42 s", "13 min", "3.4 h"]
    assert inequality({"better": "a.x", "worse": 0.2, "margin": 0.1}) == "a.x > 0.3"
    headers, rows = table_rows(result(seeds=1))
    assert headers == ["measure", *ARMS] and rows[1] == ["cost $", "0", "10", "20"]


def test_labels_keep_their_distance() -> None:
    assert spread([0.5, 0.1], 0.1) == [0.5, 0.1]
    assert spread([0.5, 0.5], 0.2) == pytest.approx([0.4, 0.6])
    assert spread([0.3, 0.1, 0.2, 0.9], 0.2) == pytest.approx([0.4, 0.0, 0.2, 0.9])
    wanted = np.random.default_rng(1).random(9).tolist()
    placed = spread(wanted, 0.15)
    assert np.argsort(placed).tolist() == np.argsort(wanted).tolist()
    assert np.diff(sorted(placed)).min() >= 0.15 - 1e-9


def test_points_of_a_curve() -> None:
    arm = result()["arms"]["ours"]
    assert list(curve_points(arm, "recall")) == ["1", "4", "64"] and curve_points(arm, "rec") == {}
    assert list(curve_points(arm | {"measures": {}}, "recall")) == ["4"]


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_the_plot_names_everything(tmp_path: Path, seeds: int) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib: pip install 'nextvec[plots]'")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # what earlier tests left, collected here
        draw(result(seeds=seeds), tmp_path / "fake.svg")
    drawn = (tmp_path / "fake.svg").read_text()
    for words in (
        "Fake: holds",
        "Ours is better.",
        "recall",
        "f1",
        "accuracy",
        "cost $",
        "only there",
        "ours",
        "plain",
    ):
        assert f">{words}<" in drawn
    assert "a rather long name of some …" in drawn
    assert ("with 95 % interval" in drawn) == (seeds > 1) and "the paper's figure" in drawn


def test_plots_of_unusual_results(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib: pip install 'nextvec[plots]'")
    partial = result(seeds=2)
    partial["arms"]["plain"] |= {"runs": [], "measures": {}}
    many = result(arms=("ours", "plain", *(f"arm {i}" for i in range(9))))
    single = copy.deepcopy(result(seeds=1))
    for arm in single["arms"].values():
        arm["measures"], arm["paper"] = {"accuracy": arm["measures"]["accuracy"]}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # what earlier tests left, collected here
        for i, document in enumerate((partial, many, single)):
            draw(document, tmp_path / f"{i}.png")
            assert (tmp_path / f"{i}.png").read_bytes().startswith(b"\x89PNG")


def nextvec_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nextvec.cli.main", *arguments]
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=folder)


def test_commands_from_a_claim_to_the_page(methods: Methods, tmp_path: Path) -> None:
    methods.write("fake", FIXED)
    methods.write(
        "failing", "return Claim(statement='', arms={'a': 1}, checks=(Check(says='', better='a.x', worse=1),))"
    )
    common = ("--package", PACKAGE, "--scale", "smoke", "--seeds", "2", "--jobs", "2", "--out", "res")
    done = nextvec_command(tmp_path, "reproduce", "fake", *common)
    assert done.returncode == 0, done.stderr
    assert "HOLDS: better than guessing" in done.stdout and "The claim: holds (smoke scale, 2 seeds)." in done.stdout
    assert "0.905 [0.8415, 0.9685] (paper 0.99)" in done.stdout
    assert "fake: runs: 4/4" in done.stderr
    assert len(methods.runs()) == 4
    again = nextvec_command(tmp_path, "reproduce", "fake", *common, "--json")
    assert json.loads(again.stdout)["checks"][1]["verdict"] == "holds" and len(methods.runs()) == 4
    listed = nextvec_command(tmp_path, "methods", "--package", PACKAGE, "--results", "res")
    lines = {line.split()[0]: line for line in listed.stdout.splitlines()}
    assert lines["fake"].split()[-2:] == ["holds", "smoke"] and lines["failing"].endswith("not run here")
    page = nextvec_command(tmp_path, "report", "--results", "res", "--out", "page.md")
    assert page.stdout == "page.md: 1 claim\n" and "(res/fake.png)" in (tmp_path / "page.md").read_text()
    failed = nextvec_command(tmp_path, "reproduce", "failing", *common)
    assert failed.returncode == 1 and "a, seed 0 failed: TypeError: 'int' object is not callable" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert nextvec_command(tmp_path, "reproduce", "fake", "--scale", "huge").returncode == 2


def test_a_slow_reader_of_cards_says_so_first_and_json_is_json(methods: Methods, tmp_path: Path) -> None:
    methods.write("fake", FIXED)
    done = nextvec_command(tmp_path, "methods", "--package", PACKAGE, "--results", str(tmp_path), "--json")
    (row,) = json.loads(done.stdout)
    assert row["method"] == "fake" and row["verdict"] == "not run here" and row["scale"] is None and done.stderr == ""


def test_the_public_face(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "cards", lambda package: {"one": package})
    assert nextvec.__getattr__("methods")() == ["nextvec.methods"]
    importlib.import_module("nextvec.methods")  # Python sets the package in place of the function: it can be called too
    assert nextvec.methods() == ["nextvec.methods"] and isinstance(nextvec.methods, ModuleType)
    assert nextvec.reproduce is reproduce
