"""``nextvec doctor``: what is installed, which CPU features and devices are used, where data lie, what is missing."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from nextvec.cli.console import JsonFlag, emit, table

_CORE = ("numpy", "pyarrow", "pylance", "numkong", "safetensors", "tokenizers", "typer")
_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm")


def command(as_json: JsonFlag = False) -> None:
    """Say what is installed, which CPU features and devices are used, where data lie, and what is missing."""
    report = examine()
    emit(report, as_json=as_json, text=_text(report))


def examine() -> dict[str, Any]:
    """The facts ``doctor`` prints, as one document."""
    from nextvec import __version__, files
    from nextvec.encoder import bundled_models
    from nextvec.extras import EXTRAS, PURPOSES, available
    from nextvec.search.native import kernels

    extras = {
        name: {"for": PURPOSES[name], "missing": [module for module in modules if not available(module)]}
        for name, modules in EXTRAS.items()
    }
    return {
        "nextvec": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in _CORE},
        "extras": extras,
        "cpu": _cpu(),
        "search kernels": kernels.way if kernels is not None else None,
        "torch": _torch(),
        "models": bundled_models(),
        "places": {
            "data (NEXTVEC_HOME)": _place(files.data_home()),
            "cache (NEXTVEC_CACHE)": _place(files.cache_home()),
            "data sets (NEXTVEC_DATA)": _place(Path(os.environ["NEXTVEC_DATA"]))
            if "NEXTVEC_DATA" in os.environ
            else "not set",
        },
    }


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> dict[str, Any]:
    flags: set[str] = set()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                flags = set(line.partition(":")[2].split())
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cores": cores, "features": [name for name in _FEATURES if name in flags]}


def _torch() -> dict[str, Any] | None:
    from nextvec.extras import available

    if not available("torch"):
        return None
    import torch

    from nextvec.nn.backbones.hf import fast_bf16, pick_device

    device = pick_device("auto")
    return {
        "version": torch.__version__,
        "device": device,
        "threads": torch.get_num_threads(),
        "auto precision": "bf16" if fast_bf16(device) else "fp32",
    }


def _place(path: Path) -> str:
    if path.is_dir():
        return f"{path}" if os.access(path, os.W_OK) else f"{path} (read-only)"
    return f"{path} (not there yet)"


def _text(report: dict[str, Any]) -> str:
    torch = report["torch"]
    rows = [
        ["nextvec", report["nextvec"]],
        ["python", f"{report['python']} ({report['executable']})"],
        ["system", report["system"]],
        ["packages", ", ".join(f"{name} {version or 'MISSING'}" for name, version in report["packages"].items())],
        [
            "cpu",
            f"{report['cpu']['cores']} cores; {', '.join(report['cpu']['features']) or 'no known vector features'}",
        ],
        ["search kernels", report["search kernels"] or "not compiled: searches take longer, and there is no graph"],
        ["torch", ", ".join(f"{key} {value}" for key, value in torch.items()) if torch else "not installed"],
        ["models", ", ".join(report["models"]) or "none bundled"],
        *[[name, where] for name, where in report["places"].items()],
    ]
    for name, extra in report["extras"].items():
        state = "complete"
        if extra["missing"]:
            state = f"missing {', '.join(extra['missing'])}: pip install 'nextvec[{name}]'"
        rows.append([f"extra {name!r}", f"{extra['for']}: {state}"])
    return table(["what", "found"], rows)
