"""What benchmarks share: one arm in a process of its own, so that memory and caches of one do not count for the other;
the machine; and the result as JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from nextvec.files import atomic_write


def run(script: str, arm: str, **numbers: int) -> dict[str, Any]:
    """What ``script --arm ARM --NAME NUMBER ...`` prints as JSON in its last line."""
    options = [text for name, number in numbers.items() for text in (f"--{name}", str(number))]
    done = subprocess.run([sys.executable, script, "--arm", arm, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{arm} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def machine() -> dict[str, Any]:
    """The processor's name, the cores that this process may use, their load, and Python's version."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def write(result: dict[str, Any], out: Path | None) -> None:
    """``result`` as JSON to ``out``, where it is given."""
    if out is not None:
        with atomic_write(out, "w") as stream:
            stream.write(json.dumps(result, indent=2) + "\n")


def tell(result: dict[str, Any], out: Path | None) -> None:
    """``result`` as JSON, printed and written."""
    print(json.dumps(result, indent=2))
    write(result, out)
