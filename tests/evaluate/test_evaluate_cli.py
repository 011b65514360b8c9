"""``nextvec evaluate`` as a process: the bundled model and BM25 on BEIR folders, what is kept and refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command_line import run

TOPICS = ("graphs", "speech", "primes", "images", "proteins", "robots")


def nextvec(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nextvec.cli.main", "evaluate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def folder(path: Path) -> Path:
    (path / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{i}", "title": topic, "text": f"We study {topic}."} for i, topic in enumerate(TOPICS)]
    queries = [{"_id": f"q{i}", "text": f"work on {topic}"} for i, topic in enumerate(TOPICS)]
    for name, records in (("corpus", documents), ("queries", queries)):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (path / "qrels" / "test.tsv").write_text("".join(f"q{i}\td{i}\t1\n" for i in range(len(TOPICS))))
    return path


def test_two_models_on_a_folder(tmp_path: Path) -> None:
    data, out = folder(tmp_path / "set"), tmp_path / "out"
    arguments = ["-m", "nextvec-mini", "-m", "bm25", "--tasks", str(data), "--dim", "32,256", "--out", str(out)]
    done = nextvec(*arguments)
    assert done.returncode == 0, done.stderr
    assert "nextvec-mini, 32 values minus bm25" in done.stdout and "95 % intervals over examples" in done.stdout
    assert "nextvec-mini: 2/2" in done.stderr and "bm25: 1/1" in done.stderr
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}
    assert len(times) == 6
    document = json.loads(nextvec(*arguments, "--json").stdout)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.*")} == times
    assert [(r["model"], r["dim"]) for r in document["results"]] == [
        ("nextvec-mini", 32),
        ("nextvec-mini", 256),
        ("bm25", None),
    ]
    for result in document["results"]:
        assert set(result["measures"]["ndcg@10"]) == {"mean", "low", "high"} and result["examples"] == 6
    *ours, theirs = [result["measures"]["ndcg@10"]["mean"] for result in document["results"]]
    found = [one["measures"]["ndcg@10"]["mean"] for one in document["differences"]]
    assert found == pytest.approx([value - theirs for value in ours], abs=2e-5)  # of rounded figures
    assert "(kept)" in nextvec(*arguments).stdout and "(kept)" not in nextvec(*arguments, "--again").stdout


def test_the_list_of_tasks() -> None:
    facts = {fact["name"]: fact for fact in json.loads(nextvec("--list", "--json").stdout)}
    assert facts["daily-titles"]["missing"] is None and "CC0" in facts["daily-titles"]["licence"]
    assert facts["cranfield"]["group"] == "retrieval" and facts["cranfield"]["sets"] == ["cranfield"]
    assert "MRPC" in nextvec("--list").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--tasks is missing"),
        (["--tasks", "crandfield"], "did you mean 'cranfield'?"),
        (["--tasks", "./nowhere"], "no folder './nowhere'"),
        (["--tasks", "daily-titles", "--dim", "0"], "--dim is '0'"),
        (["--tasks", "daily-titles", "--dim", "512"], "dim is 512; nextvec-mini gives 1 to 256"),
        (["--tasks", "daily-titles", "--layers", "2"], "it has no layers"),
        (["--tasks", "daily-titles", "--dtype", "int4"], "dtype is 'int4'"),
        (["--tasks", "daily-titles", "--limit", "1"], "--limit is 1"),
        (["--tasks", "daily-titles", "-m", "nextvec-mni"], "did you mean 'nextvec-mini'?"),
    ],
)
def test_failures_are_one_line_and_exit_1(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = run("evaluate", *arguments, "--out", str(tmp_path / "out"), code=1)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == "" and not (tmp_path / "out").exists()


def test_a_failure_of_the_process_is_the_same(tmp_path: Path) -> None:
    """With nothing but what the command imports itself: before the model is loaded, and after."""
    for arguments, message in (((), "--tasks is missing"), (("--tasks", "daily-titles", "--dim", "512"), "dim is 512")):
        done = nextvec(*arguments, "--out", str(tmp_path / "out"))
        assert done.returncode == 1 and message in done.stderr
        assert done.stderr.count("\n") == 1 and done.stdout == "" and not (tmp_path / "out").exists()


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    out = tmp_path / "out"
    tasks = f"{folder(tmp_path / 'quick')},{folder(tmp_path / 'slow')}"
    program = (
        "import sys, time\n"
        "import nextvec.evaluate.task_kinds as kinds\n"
        "from nextvec.cli.main import main\n"
        "read = kinds.read_beir\n"
        "kinds.read_beir = lambda folder: time.sleep(100) if folder.name == 'slow' else read(folder)\n"
        f"sys.argv = ['nextvec', 'evaluate', '--tasks', {tasks!r}, '--out', {str(out)!r}]\n"
        "main()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while not list(out.rglob("*.json")):
            assert time.monotonic() < until, "waited in vain"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        told = process.stderr.read()
        assert process.wait(30) == 130
    assert "Traceback" not in told and "interrupted" in told
    assert not list(out.rglob("*.part"))
    lines = [
        line
        for line in nextvec("--tasks", tasks, "--out", str(out)).stdout.splitlines()
        if "recall" in line or "ndcg" in line
    ]
    assert [("(kept)" in line, line.split()[0]) for line in lines] == [(True, "quick"), (False, "slow")]
