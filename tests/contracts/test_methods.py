"""Every method of the catalogue against every contract, by enumeration."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import work

import contracts
from nextvec import catalog

if TYPE_CHECKING:
    from pool import Pool

METHODS = "nextvec.methods"
CASES = [(name, contract) for name in catalog.names(METHODS) for contract in contracts.contracts()]


@pytest.mark.parametrize(("name", "contract"), CASES)
def test_contract(name: str, contract: str) -> None:
    contracts.contracts()[contract](catalog.find(METHODS, name))


@pytest.mark.parametrize("name", catalog.names(METHODS))
@pytest.mark.parametrize("micro", [None, 2])
def test_two_processes_equal_one(pool: Pool, name: str, micro: int | None) -> None:
    method, batch = contracts.toy(catalog.find(METHODS, name), double=True)
    loss, expected = contracts.loss_and_gradient(method, [batch])
    for found in pool.run("work", "method_gradient", METHODS, name, micro):
        assert found.pop("loss") == pytest.approx(loss, rel=1e-6)
        contracts.close(found, expected, 1e-6)


def test_no_method_escapes(request: pytest.FixtureRequest) -> None:
    """What was collected is every method file with every contract; files are looked for without the catalogue."""
    import nextvec.methods

    if request.config.getoption("keyword") or any("::" in str(argument) for argument in request.config.args):
        pytest.skip("only a part of this file was asked for")
    files = {path.stem for path in Path(nextvec.methods.__file__).parent.glob("[!_]*.py")}
    source = Path(contracts.__file__).read_text()
    written = {line[13:].partition("(")[0] for line in source.splitlines() if line.startswith("def contract_")}
    assert len(written) >= 9
    collected = {item.name for item in request.session.items if item.path == Path(__file__)}
    for name in files:
        for contract in written:
            assert f"test_contract[{name}-{contract}]" in collected
        for micro in (None, 2):
            assert f"test_two_processes_equal_one[{micro}-{name}]" in collected


def test_adding_a_method_is_adding_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file dropped into a catalogue is listed, held to the contracts, and caught where it breaks one."""
    folder = tmp_path / "dropped_catalogue"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert catalog.names("dropped_catalogue") == []
    shutil.copy(Path(work.__file__).parents[1] / "engine" / "small_methods.py", folder / "small.py")
    assert catalog.names("dropped_catalogue") == ["small"]
    dropped = catalog.find("dropped_catalogue", "small")
    assert dropped.card.title == "Small"
    with pytest.raises(AssertionError, match="Legend"):
        contracts.contract_the_card_is_complete(dropped)
    with pytest.raises(NotImplementedError):
        contracts.contract_finite_loss(dropped)
    for name in [name for name in sys.modules if name.startswith("dropped_catalogue")]:
        del sys.modules[name]


def test_the_contracts_can_fail() -> None:
    """A gradient that is off by a thousandth is not close."""
    gradient = {"w": torch.ones(3)}
    with pytest.raises(AssertionError):
        contracts.close({"w": torch.ones(3) * 1.001}, gradient, 1e-6)
