"""The command line as a process: help, doctor, embed, exit codes, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from command_line import run


def nextvec(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nextvec.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def test_help_is_light_and_names_every_command() -> None:
    code = (
        "import sys; sys.argv = ['nextvec', '--help']\n"
        "from nextvec.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code in (0, None), stop.code\n"
        "heavy = {'torch', 'transformers', 'lance', 'pyarrow', 'fastapi', 'sqlalchemy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    for name in ("collection", "data", "demo", "doctor", "embed", "papers"):
        assert name in shown.stdout


def test_version_and_usage_errors() -> None:
    assert nextvec("--version").stdout.startswith("nextvec 0.")
    assert nextvec("nonsense").returncode == 2
    assert nextvec("embed", "--dim", "many", "x").returncode == 2


def test_doctor() -> None:
    report = json.loads(nextvec("doctor", "--json").stdout)
    assert report["models"] == ["nextvec-mini", "nextvec-small"]
    assert report["cpu"]["cores"] >= 1
    assert set(report["extras"]) >= {"hf", "papers", "peers", "plots"}
    assert "auto precision" in report["torch"]
    text = run("doctor").stdout  # the process that tells it as JSON has imported the same
    assert "nextvec-mini" in text and "NEXTVEC_HOME" in text
    assert report["search kernels"] in (None, "portable", "NEON", "AVX2", "AVX-512 with VNNI", "AMX")
    assert (report["search kernels"] or "not compiled") in text


def test_embed_a_text() -> None:
    done = nextvec("embed", "latent prediction", "--text", "--dim", "32", "--json")
    document = json.loads(done.stdout)
    assert document["dim"] == 32
    assert abs(np.linalg.norm(document["vector"]) - 1) < 1e-5


def test_embed_a_file(tmp_path: Path) -> None:
    source = tmp_path / "papers.jsonl"
    source.write_text("".join(json.dumps({"title": f"t{i}", "summary": "graph"}) + "\n" for i in range(5)))
    done = nextvec("embed", str(source), "--out", str(tmp_path / "v.npy"), "--json", "--dtype", "int8")
    assert json.loads(done.stdout)["shape"] == [5, 256]
    assert np.load(tmp_path / "v.npy").dtype == np.int8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "nowhere.jsonl", "--out", "v.npy"], "nowhere.jsonl"),
        (["embed", "x"], "--out is missing"),
        (["embed", "x", "--text", "--model", "nextvec-mni"], "did you mean 'nextvec-mini'"),
        (["embed", "x", "--text", "--dim", "0"], "dim is 0"),
    ],
)
def test_failures_are_one_line_and_exit_1(arguments: list[str], message: str) -> None:
    done = nextvec(*arguments)
    assert done.returncode == 1
    assert message in done.stderr and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    as_json = run(*arguments, "--json", code=1)
    assert message in json.loads(as_json.stdout)["error"]["message"] and as_json.stderr == ""


def test_a_failure_as_json() -> None:
    done = nextvec("embed", "x", "--text", "--dim", "0", "--json")
    assert done.returncode == 1 and done.stderr == ""
    assert "dim is 0" in json.loads(done.stdout)["error"]["message"]


def test_embed_replaces_only_files_and_never_what_it_reads(tmp_path: Path) -> None:
    source, pipe = tmp_path / "t.jsonl", tmp_path / "pipe"
    source.write_text('{"text": "a"}\n')
    os.mkfifo(pipe)
    for out, message in ((pipe, "a device or pipe"), (tmp_path, "a folder"), (source, "the file to read")):
        done = nextvec("embed", str(source), "--out", str(out))
        assert done.returncode == 1 and message in done.stderr
    assert source.read_text() == '{"text": "a"}\n' and pipe.is_fifo()


def test_messages_are_short_printable_lines() -> None:
    done = nextvec("embed", "x\x1b[31m" + "y" * 3000 + ".jsonl", "--out", "v.npy")
    assert done.returncode == 1 and "\x1b" not in done.stderr
    assert done.stderr.count("\n") == 1 and len(done.stderr) < 1_200


def test_a_reader_that_leaves_and_a_terminal_without_unicode() -> None:
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    program = "from nextvec.cli.console import emit; from nextvec.cli.main import main; import sys\n"
    program += "sys.argv = ['nextvec', '--version']\ntry: main()\nexcept SystemExit: pass\n"
    program += "emit({'a': 'é'}, as_json=True); emit(None, as_json=False, text='é')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=ascii_only)
    assert done.returncode == 0 and '"\\u00e9"' in done.stdout and done.stdout.endswith("\\xe9\n")
    command = [sys.executable, "-m", "nextvec.cli.main", "data", "list", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_home_that_nobody_knows() -> None:
    done = nextvec("collection", "info", "~no such user/x")
    assert done.returncode == 1 and "set HOME" in done.stderr


def test_embed_names_the_missing_field(tmp_path: Path) -> None:
    source = tmp_path / "papers.jsonl"
    source.write_text('{"title": "a", "summary": "b"}\n{"title": "a"}\n')
    done = nextvec("embed", str(source), "--out", str(tmp_path / "v.npy"))
    assert done.returncode == 1 and "papers.jsonl:2" in done.stderr and "'summary'" in done.stderr
    assert not (tmp_path / "v.npy").exists()
