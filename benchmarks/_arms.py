"""One arm of a benchmark in a process of its own, so that memory and caches of one do not count for the other."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any


def run(script: str, arm: str, **numbers: int) -> dict[str, Any]:
    """What ``script --arm ARM --NAME NUMBER ...`` prints as JSON in its last line."""
    options = [text for name, number in numbers.items() for text in (f"--{name}", str(number))]
    done = subprocess.run([sys.executable, script, "--arm", arm, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{arm} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def machine() -> dict[str, Any]:
    """The processor's name and the number of cores."""
    return {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}


def write(result: dict[str, Any], out: Path | None) -> None:
    """``result`` as JSON to ``out``, where it is given."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
