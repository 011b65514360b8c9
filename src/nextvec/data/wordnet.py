"""WordNet 3.0: synsets with their words, definitions and examples, read out of the Debian package that holds them.

A .deb is an ``ar`` archive whose member ``data.tar.*`` is a tar archive; it is read in memory, within limits, and
nothing is unpacked. The lines of ``data.POS`` are described in WordNet's manual page wndb(5WN).
"""

from __future__ import annotations

import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nextvec.data.catalog import locate
from nextvec.types import InputError

__all__ = ["Synset", "parse_line", "read_wordnet"]

PARTS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
# fmt: off
LEXICOGRAPHER = (
    "adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact", "noun.attribute",
    "noun.body", "noun.cognition", "noun.communication", "noun.event", "noun.feeling", "noun.food",
    "noun.group", "noun.location", "noun.motive", "noun.object", "noun.person", "noun.phenomenon", "noun.plant",
    "noun.possession", "noun.process", "noun.quantity", "noun.relation", "noun.shape", "noun.state",
    "noun.substance", "noun.time", "verb.body", "verb.change", "verb.cognition", "verb.communication",
    "verb.competition", "verb.consumption", "verb.contact", "verb.creation", "verb.emotion", "verb.motion",
    "verb.perception", "verb.possession", "verb.social", "verb.stative", "verb.weather", "adj.ppl",
)
# fmt: on
"""The lexicographer's files by number, lexnames(5WN): what a word is about, broadly."""

_AR = b"!<arch>\n"
_MOST = 64 << 20  # bytes of an archive, and of a file in it; the largest is 15 MB
_EXAMPLE = re.compile(r'"([^"]+)"?')


@dataclass(frozen=True, slots=True)
class Synset:
    """id: part of speech and offset, "n00001740"; words, with spaces; about: the lexicographer's file ("noun.food");
    definition and examples, from the gloss; hypernyms: ids of what it is a kind (or an instance) of."""

    id: str
    words: tuple[str, ...]
    about: str
    definition: str
    examples: tuple[str, ...]
    hypernyms: tuple[str, ...]


def read_wordnet(package: Path | None = None) -> Iterator[Synset]:
    """All synsets: nouns, verbs, adjectives, adverbs. package: the .deb (None: the data set "wordnet").

    Raises NotFoundError where the data set is not here, InputError for a file that is damaged or not what it should be.
    """
    if package is None:
        (package,) = locate("wordnet").glob("wordnet-base*.deb")
    files = _files(package)
    for name, part in PARTS.items():
        for number, line in enumerate(files[name].decode("utf-8", "replace").splitlines(), start=1):
            if not line.startswith("  "):  # the licence stands before the data
                try:
                    yield parse_line(line, part)
                except (ValueError, IndexError) as error:
                    raise InputError(f"{package.name}: data.{name}, line {number} is no synset ({error})") from error


def parse_line(line: str, part: str) -> Synset:
    """A line of ``data.POS``. ValueError or IndexError where it is none."""
    head, _, gloss = line.partition(" | ")
    fields = head.split(" ")
    count = int(fields[3], 16)
    words = tuple(re.sub(r"\((?:a|p|ip)\)$", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * count : 2])
    if len(words) != count:
        raise ValueError(f"{len(words)} words where there should be {count}")
    start = 5 + 2 * count
    pointers = [fields[i : i + 4] for i in range(start, start + 4 * int(fields[start - 1]), 4)]
    definition, _, rest = gloss.partition('; "')
    return Synset(
        id=f"{part}{int(fields[0]):08d}",
        words=words,
        about=LEXICOGRAPHER[int(fields[1])],
        definition=definition.strip(" ;"),
        examples=tuple(found.strip(" ;") for found in _EXAMPLE.findall('"' + rest)) if rest else (),
        hypernyms=tuple(f"{kind}{int(where):08d}" for symbol, where, kind, _ in pointers if symbol in ("@", "@i")),
    )


def _files(package: Path) -> dict[str, bytes]:
    """The content of ``data.POS`` by name of POS."""
    try:
        with tarfile.open(fileobj=io.BytesIO(_member(package))) as archive:
            found = {}
            for item in archive:
                kind = Path(item.name).name.removeprefix("data.")
                if item.isfile() and kind in PARTS and Path(item.name).name == f"data.{kind}":
                    stream = archive.extractfile(item)
                    if stream is None or item.size > _MOST:
                        raise InputError(f"{package.name}: {item.name!r} is refused ({item.size:,} bytes)")
                    found[kind] = stream.read()
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError) as error:
        raise InputError(f"{package.name} is damaged or is not a Debian package of WordNet: {error}") from error
    missing = sorted(PARTS.keys() - found)
    if missing:
        raise InputError(f"{package.name} lacks data.{missing[0]}: it is not WordNet's package")
    return found


def _member(package: Path) -> bytes:
    """The bytes of ``data.tar.*`` in the ar archive."""
    if package.stat().st_size > _MOST:
        raise InputError(f"{package.name} has {package.stat().st_size:,} bytes; at most {_MOST:,} are read")
    content = package.read_bytes()
    place = len(_AR)
    while content.startswith(_AR) and place + 60 <= len(content):
        name, size = content[place : place + 16].decode("latin-1").strip(), content[place + 48 : place + 58].strip()
        if not size.isdigit():
            break
        place += 60
        if name.startswith("data.tar"):
            if place + int(size) > len(content):
                raise InputError(f"{package.name} is cut short: {len(content):,} bytes of {place + int(size):,}")
            return content[place : place + int(size)]
        place += int(size) + int(size) % 2
    raise InputError(f"{package.name} is not a Debian package (an ar archive with a data.tar)")
