"""The heaps of a served process: two for all its threads, unless whoever runs it says otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

THREADS = """
import re, threading
from nextvec.papers.operations.memory import share_heaps

print(share_heaps())
began, done = threading.Barrier(13), threading.Event()

def hold():
    kept = [bytearray(20_000) for _ in range(50)]  # too large for Python's own allocator
    began.wait()
    done.wait()

threads = [threading.Thread(target=hold) for _ in range(12)]
for thread in threads:
    thread.start()
began.wait()
ranges = [line.split()[0].split("-") for line in open("/proc/self/maps") if len(line.split()) == 5]
heaps = {int(begin, 16) for begin, end in ranges if int(begin, 16) % (64 << 20) == 0}
print(len(heaps))
done.set()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that makes a heap for each thread")
def test_threads_share_two_heaps() -> None:
    def ask(**more: str) -> list[str]:
        environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"} | more
        command = [sys.executable, "-c", THREADS]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()

    said, heaps = ask()
    assert said == "True" and int(heaps) <= 1, "the main heap lies elsewhere"
    said, heaps = ask(MALLOC_ARENA_MAX="6")
    assert said == "False" and int(heaps) > 1, "what the operator says counts"
