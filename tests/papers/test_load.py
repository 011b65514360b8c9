"""Fifty readers at once at a site in a process of its own: nobody is refused, and memory does not grow on and on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fakes import HashEncoder

from nextvec.papers.ingest import ingest
from nextvec.papers.records import Paper
from nextvec.papers.site import Site

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from papers_load import KINDS, load

pytestmark = [pytest.mark.load, pytest.mark.both]

SERVER = """
import socket, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
import uvicorn
from fakes import HashEncoder
from nextvec.papers.site import Site
from nextvec.papers.web import create_app

app = create_app(Site(Path(sys.argv[1]), encoder=HashEncoder(), must_exist=True), local_reader=True)
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(128)
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none")).run(sockets=[listener])
"""


def test_fifty_readers(few: list[Paper], tmp_path: Path) -> None:
    site = Site(tmp_path, encoder=HashEncoder())
    ingest(site, few)
    site.close()
    command = [sys.executable, "-c", SERVER, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            report = load(port, process.pid, few, readers=50, seconds=600, each=6)
        finally:
            process.terminate()
    wrong = {(kind, status): n for (kind, status), n in report.statuses.items() if status >= 400}
    assert not wrong and all(report.times[kind] for kind in (*KINDS, "vote"))
    # Megabytes; where a system does not tell them, all are 0.
    assert report.third(2) <= 1.1 * report.third(1) + 15, report.memory
