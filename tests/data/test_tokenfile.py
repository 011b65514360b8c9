"""Token files: what is written is read; what is torn, damaged or foreign is refused; batches are exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="batches need torch: pip install 'nextvec[hf]'")

from nextvec.data.sources import ragged  # noqa: E402
from nextvec.data.tokenfile import PackedTokens, TokenFile, build_token_file, write_tokens  # noqa: E402
from nextvec.data.tokenizers import ByteTokenizer  # noqa: E402
from nextvec.types import Batch, InputError, NotFoundError, StorageError  # noqa: E402

DOCUMENTS = [[5, 6, 7], [], [8], list(range(20)), [1, 2]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tokens(tmp_path / "corpus.tokens", DOCUMENTS, vocab=20)
    return tmp_path / "corpus.tokens"


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 999_999), max_size=9), min_size=1, max_size=9).filter(any), st.booleans())
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], wide: bool
) -> None:
    vocab = 1_000_000 if wide else 65_536
    kept = [[i % vocab for i in document] for document in documents]
    file = write_tokens(tmp_path_factory.mktemp("t") / "x.tokens", kept, vocab=vocab)
    assert file.values.dtype.itemsize == (4 if wide else 2)
    assert [file.document(i).tolist() for i in range(len(file))] == kept
    assert (file.tokens, file.vocab) == (sum(map(len, kept)), vocab)
    assert file.lengths.tolist() == [len(document) for document in kept]
    file.verify()


def test_texts_are_tokenised_as_they_come(tmp_path: Path) -> None:
    drawn = []

    def texts() -> Iterator[str]:
        for i in range(2500):
            drawn.append(i)
            yield f"text {i}"

    seen: list[tuple[int, int | None, int]] = []
    file = build_token_file(
        tmp_path / "a" / "x.tokens",
        texts(),
        ByteTokenizer(),
        chunk=100,
        progress=lambda done, total: seen.append((done, total, len(drawn))),
    )
    assert file.document(1234).tolist() == [257, *b"text 1234", 258]
    assert seen == [(1024, None, 1100), (2048, None, 2100), (2500, None, 2500)]  # never more than a chunk ahead
    bare = build_token_file(tmp_path / "y.tokens", ["ab"], ByteTokenizer(), special=False)
    assert bare.document(0).tolist() == [97, 98]
    with pytest.raises(InputError, match="document 2500: "):
        file.document(2500)


def test_what_cannot_be_written_leaves_the_old_file(path: Path) -> None:
    before = path.read_bytes()

    def broken() -> Iterator[list[int]]:
        yield [1, 2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tokens(path, broken(), vocab=20)
    for documents, message in (
        ([[1], [20]], "document 1 has ids from 20 to 20; expected 0 to 19"),
        ([[-1]], "document 0 has ids from -1"),
        ([[0.5]], "float64; expected a row"),
        ([[[1]]], "expected a row"),
        ([[], []], "2 documents, all empty"),
        ([], "0 documents"),
    ):
        with pytest.raises(InputError, match=message):
            write_tokens(path, documents, vocab=20)
    with pytest.raises(InputError, match="vocab 0"):
        write_tokens(path, [[0]], vocab=0)
    with pytest.raises(InputError, match="chunk 0"):
        build_token_file(path, ["a"], ByteTokenizer(), chunk=0)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_file_cut_anywhere_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises((StorageError, InputError)):
            TokenFile.open(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(StorageError, match="its header says"):
        TokenFile.open(path)


def test_a_changed_byte_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    tokens = range(64, 64 + 2 * sum(map(len, DOCUMENTS)))
    padding = range(tokens.stop, -(-tokens.stop // 8) * 8)
    for place in range(len(whole)):
        if place in padding:
            continue
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(bytes(damaged))
        if place in tokens:
            with pytest.raises(StorageError, match="damaged tokens"):
                TokenFile.open(path).verify()
        else:
            with pytest.raises((StorageError, InputError)):
                TokenFile.open(path)


def test_an_unfinished_file_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(bytes(64) + whole[64:])  # the header is written last
    with pytest.raises(StorageError, match="damaged header"):
        TokenFile.open(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no token file"):
        TokenFile.open(tmp_path / "none")
    (tmp_path / "text").write_text("not tokens")
    with pytest.raises(InputError, match="not a token file"):
        TokenFile.open(tmp_path / "text")


def sequences(batch: Batch) -> list[list[int]]:
    text = batch.ragged("text")
    return [piece.tolist() for piece in text.values.split(text.lengths.tolist())]


def numbered(count: int = 40) -> list[list[int]]:
    """Documents whose tokens are all different."""
    sizes = np.random.default_rng(0).integers(0, 30, count)
    ends = np.cumsum(sizes)
    return [list(range(end - size, end)) for size, end in zip(sizes.tolist(), ends.tolist(), strict=True)]


@pytest.mark.parametrize("mapped", [True, False])
def test_batches_are_full_and_an_epoch_holds_no_token_twice(tmp_path: Path, mapped: bool) -> None:
    documents = numbered()
    where = {token: number for number, document in enumerate(documents) for token in document}
    corpus = write_tokens(tmp_path / "x", documents, vocab=1000) if mapped else ragged(documents)
    source = PackedTokens(corpus, tokens=64, length=16, seed=3)
    assert source.batches_per_epoch == len(where) // 64
    epochs = []
    for epoch in range(2):
        seen: list[int] = []
        for step in range(epoch * source.batches_per_epoch, (epoch + 1) * source.batches_per_epoch):
            batch = sequences(source.batch(step))
            assert sum(map(len, batch)) == 64
            for piece in batch:
                assert 1 <= len(piece) <= 16
                assert piece == list(range(piece[0], piece[0] + len(piece)))
                assert len({where[token] for token in piece}) == 1  # never across documents
            seen += [token for piece in batch for token in piece]
        assert len(set(seen)) == len(seen) == source.batches_per_epoch * 64
        epochs.append(seen)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_shares_make_the_batch_and_a_resumed_run_the_straight_one(tmp_path: Path, parts: int) -> None:
    file = write_tokens(tmp_path / "x", numbered(), vocab=1000)
    straight = PackedTokens(file, tokens=64, length=16, seed=3)
    run = [sequences(straight.batch(step)) for step in range(30)]
    resumed = PackedTokens(TokenFile.open(tmp_path / "x"), tokens=64, length=16, seed=3)
    for step in (17, 18, 29, 2):
        shares = [sequences(resumed.batch(step, part=part, parts=parts)) for part in range(parts)]
        assert [piece for part in shares for piece in part] == run[step]
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert run[0] != sequences(PackedTokens(file, tokens=64, length=16, seed=4).batch(0))


def test_batches_that_cannot_be_are_refused(path: Path) -> None:
    file = TokenFile.open(path)
    for tokens, length in ((27, 5), (0, 5), (5, 0)):
        with pytest.raises(InputError, match="from 26 tokens"):
            PackedTokens(file, tokens=tokens, length=length, seed=0)
    source = PackedTokens(file, tokens=5, length=5, seed=0)
    with pytest.raises(InputError, match="cannot be shared by 9"):
        source.batch(0, part=8, parts=9)
    with pytest.raises(InputError, match="must be 0 or more"):
        source.batch(-1)


def test_a_damaged_token_does_not_reach_the_model(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[64:66] = b"\xff\xff"
    path.write_bytes(bytes(raw))
    source = PackedTokens(TokenFile.open(path), tokens=26, length=30, seed=0)
    with pytest.raises(StorageError, match="65535"):
        source.batch(0)
