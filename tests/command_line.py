"""``nextvec`` run inside the test's process, for what needs no process of its own."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from nextvec.cli.main import main


@dataclass(frozen=True)
class Done:
    stdout: str
    stderr: str


def run(*arguments: str, home: Path | None = None, code: int = 0) -> Done:
    """Run ``nextvec`` to its end, in this process, and check its exit code; no traceback is ever shown."""
    extra = ["--home", str(home)] if home else []
    out, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(errors):
        patch.setattr(sys, "argv", ["nextvec", *arguments, *extra])
        patch.setattr(sys, "excepthook", sys.excepthook)  # Typer puts its own there
        with pytest.raises(SystemExit) as ended:
            main()
    assert (ended.value.code or 0) == code, (out.getvalue(), errors.getvalue())
    assert "Traceback" not in errors.getvalue()
    return Done(out.getvalue(), errors.getvalue())
