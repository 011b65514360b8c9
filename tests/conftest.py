"""What holds for all tests."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from memory_folder import memory_folder
from postgresql_server import running

# Thousands of commits and checkpoints would wait for the disk to have them: what tests write is thrown away.
OWN_FOLDER = None
if "TMPDIR" not in os.environ and (memory := memory_folder()):
    OWN_FOLDER = os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="nextvec-tests-", dir=memory)

PASSED = pytest.StashKey[bool]()

# The same examples in every run: a test that fails here fails everywhere, and one that passes does not fail tomorrow.
# To look for new ones: pytest --hypothesis-profile=default --hypothesis-seed=random
# No deadline: on a busy machine an example of a millisecond may take half a second.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("thorough", derandomize=True, deadline=None, max_examples=300)
settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Before any test is read: how many examples it tries is decided there."""
    if config.getoption("--thorough"):
        settings.load_profile("thorough")


WHOLE = {"test_accounts_proposals", "test_browser", "test_cli", "test_search", "test_search_steering"}
"""Files that read the site over all bundled papers, which takes half a minute to make: one process runs them all."""


LONGEST = (
    "whole", "test_browser_axe", "test_methods", "test_accounts_rights", "test_small", "test_sources_serving",
    "test_embedder", "pool", "test_approximate", "test_sentence_prediction", "test_mail_sending", "test_load",
    "test_base", "test_stores_objects", "test_fuzz", "test_backup", "test_training", "test_api_fuzz",
    "test_browser_insight", "test_ann_runner", "test_remote", "test_accounts_security", "test_equality",
    "test_ann_engines", "test_evaluate_cli", "test_killed_builds", "test_limit", "test_stores_properties",
    "test_claims_reproduce", "test_claims_report", "test_mcp", "test_operations", "test_durability",
    "test_sources_files", "test_bad_input", "test_memory",
)  # fmt: skip
"""Files that take longest, longest first: they are begun first, so that both processes end at the same time."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadfile`` a process takes a file at a time, ``LONGEST`` first, and ``WHOLE`` as if it were one."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = Path(nodeid.partition("::")[0])
            # Those of tests/distributed share their pool of processes.
            return "whole" if file.stem in WHOLE else "pool" if file.parent.name == "distributed" else str(file)

        def _assign_work_unit(self, node: Any) -> None:
            self.workqueue.move_to_end(min(self.workqueue, key=_place), last=False)
            super()._assign_work_unit(node)

    return Together(config, log)


def _place(scope: str) -> int:
    """Where the files of ``scope`` come; those not named in ``LONGEST`` as xdist has them: most tests first."""
    stem = Path(scope).stem
    return LONGEST.index(stem) if stem in LONGEST else len(LONGEST)


def pytest_unconfigure(config: pytest.Config) -> None:
    """What tests wrote goes; what failed left is there to be looked at."""
    if OWN_FOLDER and config.stash.get(PASSED, False):
        shutil.rmtree(OWN_FOLDER, ignore_errors=True)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[PASSED] = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported stays: the garbage collector need not look through it, neither meanwhile nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked "thorough" run with ``--thorough``. A file that makes the site over all bundled papers where another
    process makes it too is told of."""
    if not config.getoption("--thorough"):
        left = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]
    reading = {item.path.stem for item in items if "whole_home" in getattr(item, "fixturenames", ())}
    if reading - WHOLE:
        raise pytest.UsageError(f"{', '.join(sorted(reading - WHOLE))}: name it in WHOLE of tests/conftest.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="run the long sweeps too, those marked 'thorough'")
    parser.addoption(
        "--papers-database",
        choices=("sqlite", "postgresql"),
        default="sqlite",
        help="what the homes of the papers' tests keep their rows in",
    )


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address of an empty database of a PostgreSQL server; skips where there is none."""
    with running() as address:
        yield address
