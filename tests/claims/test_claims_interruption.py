"""A claim interrupted in the middle ends all its processes, and goes on with what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from method_files import PACKAGE, Methods

from nextvec.claims import reproduce

SLOW = """
def quick(run):
    ran(run, "quick")
    return {"x": 1.0 + run.seed}

def slow(run):
    mark = run.folder / "checkpoint"
    if not mark.exists():
        mark.write_text(str(os.getpid()))
        ran(run, "begun")
        time.sleep(120)
    ran(run, "resumed")
    return {"x": 0.0}

checks = (Check(says="", better="quick.x", worse="slow.x"),)
return Claim(statement="s", arms={"quick": quick, "slow": slow}, checks=checks)
"""


def wait_for(condition: Callable[[], Any], *, seconds: float = 30) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)
    return found


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.usefixtures("no_matplotlib")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_claim_goes_on(methods: Methods, tmp_path: Path, number: int, code: int) -> None:
    methods.write("slow", SLOW)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "nextvec.cli.main", "reproduce", "slow", "--scale", "smoke", "--seeds", "1"]
    command += ["--jobs", "2", "--out", str(out), "--package", PACKAGE]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        wait_for(lambda: methods.runs() == ["begun 0", "quick 0"])
        (pid,) = (int(path.read_text()) for path in out.glob("slow.runs/*/slow-seed0/checkpoint"))
        wait_for(lambda: len(list(out.glob("slow.runs/*/quick-seed*.json"))) == 1)
        process.send_signal(number)
        said = process.stderr.read()
        assert process.wait(30) == code
    assert ("interrupted; what was acknowledged is kept" in said) == (code == 130)
    wait_for(lambda: not alive(pid))
    assert not (out / "slow.json").exists()
    result = reproduce("slow", scale="smoke", seeds=1, out=out, package=PACKAGE)
    assert methods.runs() == ["begun 0", "quick 0", "resumed 0"]
    assert result["arms"]["quick"]["measures"]["x"]["mean"] == 1
