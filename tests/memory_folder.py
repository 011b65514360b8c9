"""A folder in memory for what tests write, where there is a large one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def memory_folder() -> str | None:
    """Its path; None where there is none, it is small, or nothing may be loaded as a program from it."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 8e9 or os.statvfs(memory).f_flag & os.ST_NOEXEC:
        return None
    return str(memory)
