"""Compiles the search kernels where there is a C compiler; without one the package is pure Python, and slower."""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SOURCE = "src/nextvec/search/native/_kernels.c"
# What is given up (errno, exception flags of floats) nobody reads, and it keeps loops from being made of vectors.
_FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-std=gnu11"]


class CustomBuildHook(BuildHookInterface):
    """Of the wheel, and of the editable one. ``NEXTVEC_KERNELS``: "off" leaves them out, "on" fails without them."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        wish = os.environ.get("NEXTVEC_KERNELS", "auto")
        source = Path(self.root, _SOURCE)
        target = source.with_name("_kernels.abi3.so")
        if version == "editable" and wish == "auto" and _newer(target, [*source.parent.glob("*.[ch]"), Path(__file__)]):
            self._take(target, build_data)  # pip asks twice: for what the package needs, and for the package
            return
        target.unlink(missing_ok=True)
        if wish == "off" or os.name == "nt":
            return
        part = target.with_name("_kernels.part.so")  # an interrupted build leaves nothing that looks whole
        compiler = shlex.split(os.environ.get("CC", "") or sysconfig.get_config_var("CC") or "cc")
        command = [*compiler, *_FLAGS, f"-I{sysconfig.get_paths()['include']}", str(source), "-o", str(part)]
        if sysconfig.get_config_var("LDSHARED") and "dynamic_lookup" in sysconfig.get_config_var("LDSHARED"):
            command += ["-undefined", "dynamic_lookup"]  # macOS: Python's own symbols are found when it is loaded
        try:
            done = subprocess.run([*command, "-lm"], capture_output=True, text=True, check=False)
            trouble = (done.stderr or f"{compiler[0]} ended with code {done.returncode}") if done.returncode else ""
        except OSError as error:
            trouble = str(error)
        if trouble:
            part.unlink(missing_ok=True)
            if wish == "on":
                raise RuntimeError(f"the search kernels could not be compiled: {trouble}")
            self.app.display_warning(f"no search kernels (searches work, and take longer): {trouble.strip()[:400]}")
            return
        part.replace(target)
        self._take(target, build_data)

    def _take(self, target: Path, build_data: dict[str, Any]) -> None:
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["artifacts"].append(f"{Path(_SOURCE).parent}/{target.name}")


def _newer(target: Path, sources: list[Path]) -> bool:
    return target.exists() and target.stat().st_mtime > max(source.stat().st_mtime for source in sources)
