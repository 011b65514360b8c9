"""The files in deploy/ and the page about them: units that systemd takes, commands and options that there are."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from nextvec.cli.main import build

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").iterdir())
CONTAINER = ROOT / "deploy" / "Containerfile"
PAGE = ROOT / "docs" / "papers-deploy.md"
HARDENED = ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome", "RestrictNamespaces")


def sections(unit: Path) -> dict[str, dict[str, list[str]]]:
    """Section -> setting -> values, in order."""
    found: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] | None = None
    for line in unit.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
            continue
        name, equals, value = line.partition("=")
        assert equals and name.isalpha() and section is not None, (unit.name, line)
        section.setdefault(name, []).append(value)
    return found


def instruction(name: str) -> list[str]:
    """The words of an instruction of the Containerfile that is written as a list."""
    (found,) = re.findall(rf"^{name} (\[.*\])$", CONTAINER.read_text(encoding="utf-8"), re.MULTILINE)
    words: list[str] = json.loads(found)
    return words


def commands() -> list[tuple[str, list[str]]]:
    """(where, words after ``nextvec``) of every command in the files and on the page."""
    found = [("Containerfile", (instruction("ENTRYPOINT") + instruction("CMD"))[1:])]
    for path in (*UNITS, PAGE):
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"nextvec-papers ingest", "nextvec papers ingest", text)  # the image has it as its entrance
        for line in re.findall(r"(?<![\w-])nextvec (papers [^\n`']+)", text):
            words = shlex.split(line.split("  ")[0].split(" #")[0], comments=True)
            found.append((path.name, words))
    return found


def test_the_commands_exist() -> None:
    found = commands()
    assert len(found) >= 14 and {"serve", "ingest", "backup", "restore"} <= {words[1] for _, words in found}
    for place, words in found:
        command: Any = typer.main.get_command(build())
        rest = list(words)
        context = command.make_context("nextvec", [], resilient_parsing=True)
        while hasattr(command, "commands"):
            assert rest and rest[0] in command.commands, (place, words)
            command = command.commands[rest.pop(0)]
            context = command.context_class(command, parent=context)
        command.make_parser(context).parse_args(rest)  # fails for an option that there is not


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit(unit: Path) -> None:
    found = sections(unit)
    assert found["Unit"]["Description"]
    if unit.suffix == ".timer":
        assert found["Timer"]["OnCalendar"] and found["Install"] == {"WantedBy": ["timers.target"]}
        assert unit.with_suffix(".service") in UNITS
        return
    service = found["Service"]
    assert service["User"] == ["nextvec-papers"] and service["ProtectSystem"] == ["strict"]
    assert all(service[name] == ["yes"] for name in HARDENED) and service["CapabilityBoundingSet"] == [""]
    assert service["UMask"] == ["0077"] and service["StateDirectory"] == ["nextvec-papers"]
    for variable in re.findall(r"^NEXTVEC_\w+|(?<= )NEXTVEC_\w+", " ".join(service["Environment"])):
        assert variable in ("NEXTVEC_HOME", "NEXTVEC_CACHE")


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here: the sections are checked by the test above")
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/opt/nextvec/bin/nextvec", sys.executable)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    paths = [str(tmp_path / unit.name) for unit in UNITS]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True, check=False
    )
    said = [line for line in done.stderr.splitlines() if "nextvec-papers" in line]
    assert not said, said


def test_the_container_is_nobody_and_asks_whether_it_is_ready() -> None:
    text = CONTAINER.read_text(encoding="utf-8")
    stage = text.rpartition("\nFROM ")[2]
    user = re.search(r"^USER (\d+):(\d+)$", stage, re.MULTILINE)
    assert user and int(user[1]) > 0 and int(user[2]) > 0
    assert "VOLUME /data" in stage and "NEXTVEC_HOME=/data" in stage and "/readyz" in stage
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', text)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {"papers", "evaluate", "postgres"} <= set(extras.split(",")) <= known.keys()
    for name in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / part).exists() for part in name.split()), name


def test_the_page_names_files_and_variables_that_there_are() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in re.findall(r"`(nextvec-papers[\w-]*\.(?:service|timer))`", text):
        assert (ROOT / "deploy" / "systemd" / name).exists(), name
    for name in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text):
        assert (PAGE.parent / name).exists(), name
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "nextvec").rglob("*.py"))
    for variable in set(re.findall(r"NEXTVEC_[A-Z_]+", text)):
        assert variable in source, variable
