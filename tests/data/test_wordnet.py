"""WordNet's reader, on a package of a few lines, on what is none, and on the real one where it is at hand."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from nextvec.data.catalog import find
from nextvec.data.wordnet import LEXICOGRAPHER, parse_line, read_wordnet
from nextvec.types import InputError

DOG = (
    "02084071 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 003 @ 02083346 n 0000 @ 01317541 n 0000 #m 02083863 n"
    ' 0000 | a member of the genus Canis; occurs in many breeds; "the dog barked all night"; "dogs bark"  '
)
LINES = {
    "noun": f"  1 This software and database is being provided\n{DOG}\n",
    "verb": "00001740 29 v 01 breathe 0 000 01 + 02 00 | draw air into, and expel out of, the lungs  \n",
    "adj": "00001740 00 a 01 able(p) 0 000 | having the necessary means  \n",
    "adv": "00001740 02 r 01 a_cappella 0 000 | without musical accompaniment  \n",
}


def package(folder: Path, lines: dict[str, str]) -> Path:
    """An ar archive with a tar archive, as a .deb is."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:xz") as archive:
        for name, text in lines.items():
            item = tarfile.TarInfo(f"./usr/share/wordnet/data.{name}")
            item.size = len(text.encode())
            archive.addfile(item, io.BytesIO(text.encode()))
    made = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("odd", b"123"), ("data.tar.xz", inner.getvalue())):
        made += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content
        made += b"\n" * (len(content) % 2)
    path = folder / "wordnet-base_3.0_all.deb"
    path.write_bytes(made)
    return path


def test_synsets_of_all_parts_are_read(tmp_path: Path) -> None:
    dog, breathe, able, alone = read_wordnet(package(tmp_path, LINES))
    assert dog.id == "n02084071"
    assert dog.words == ("dog", "domestic dog", "Canis familiaris")
    assert dog.about == "noun.animal"
    assert dog.definition == "a member of the genus Canis; occurs in many breeds"
    assert dog.examples == ("the dog barked all night", "dogs bark")
    assert dog.hypernyms == ("n02083346", "n01317541")
    assert (breathe.id, breathe.about, breathe.examples) == ("v00001740", "verb.body", ())
    assert (able.words, able.about, alone.words) == (("able",), "adj.all", ("a cappella",))


def test_the_recipes_read_it_from_their_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nextvec.recipes.corpus import general_texts

    monkeypatch.delenv("NEXTVEC_DATA", raising=False)
    folder = tmp_path / "words" / "wordnet"
    folder.mkdir(parents=True)
    package(folder, LINES)
    texts = general_texts(tmp_path)
    assert sorted(texts)[0] == "a cappella: without musical accompaniment"
    assert {"dog, domestic dog, Canis familiaris: a member of the genus Canis; occurs in many breeds", "dogs bark"} <= {
        *texts
    }


def test_there_are_45_lexicographers_files() -> None:
    assert len(LEXICOGRAPHER) == 45
    assert LEXICOGRAPHER[5] == "noun.animal" and LEXICOGRAPHER[44] == "adj.ppl"


@pytest.mark.parametrize(
    "line", ["", "a line of words", "00001740 99 n 01 thing 0 000 | a thing", DOG.split(" dog")[0]]
)
def test_a_line_that_is_no_synset_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        parse_line(line, "n")
    with pytest.raises(InputError, match=r"data\.noun, line 2 is no synset"):
        list(read_wordnet(package(tmp_path, {**LINES, "noun": f"{DOG}\n{line}\n"})))


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks data\.adv"):
        list(read_wordnet(package(tmp_path, {name: LINES[name] for name in ("noun", "verb", "adj")})))
    path = package(tmp_path, LINES)
    whole = path.read_bytes()
    for content in (b"", b"PK\3\4" * 50, whole[:-40], whole[:200], whole.replace(b"data.tar", b"none.tar")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"wordnet-base_3\.0_all\.deb"):
            list(read_wordnet(path))


def test_the_real_one_is_whole() -> None:
    if find("wordnet") is None:
        pytest.skip("the data set wordnet is not here: set NEXTVEC_DATA")
    synsets = list(read_wordnet())
    assert len(synsets) == 117_659
    ids = {synset.id for synset in synsets}
    assert all(synset.definition for synset in synsets)
    assert all(parent in ids for synset in synsets for parent in synset.hypernyms)
    assert sum(len(synset.examples) for synset in synsets) > 48_000
