"""What a result must say of where it was made: commit, hardware, versions."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import nextvec

__all__ = ["checkout", "commit", "cores", "gpus", "hardware", "versions"]

_PACKAGE = Path(nextvec.__file__).parent


def checkout() -> Path | None:
    """The top folder of the source tree that nextvec is imported from, or None where it is installed as a package."""
    top = _PACKAGE.parent.parent
    return top if (top / "pyproject.toml").is_file() and (top / "docs").is_dir() else None


def commit() -> dict[str, Any] | None:
    """The commit of the checkout and whether the package differs from it; None outside a checkout.

    A package installed into some other project's tree is not that project's commit: git must know our own file.
    """
    if checkout() is None or _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    head, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", ".")
    return None if head is None else {"hash": head, "dirty": bool(changes)}


def _git(*arguments: str) -> str | None:
    return _output(["git", "-C", str(_PACKAGE), *arguments])


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """Names of the NVIDIA GPUs that this process may use. Asked of the driver, since asking CUDA would occupy them."""
    found = (_output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]) or "").splitlines()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    chosen = [part for part in visible.split(",") if part.strip() not in ("", "-1")]
    return [found[int(part)] if part.isdigit() and int(part) < len(found) else part for part in chosen]


def hardware() -> dict[str, Any]:
    """CPU model, cores, memory in bytes, GPUs."""
    return {"cpu": _cpu(), "cores": cores(), "memory_bytes": _memory(), "gpu": gpus() or None}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def versions() -> dict[str, str | None]:
    """Of nextvec, Python and the two libraries that do the arithmetic."""
    return {
        "nextvec": nextvec.__version__,
        "python": platform.python_version(),
        "torch": _version("torch"),
        "numpy": _version("numpy"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
