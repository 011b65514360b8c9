"""Dictionaries: words and phrases with their definitions, from a user's file or from WordNet's package.

Legend: K entries, n definitions of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nextvec.data.pairs import field_text
from nextvec.data.readers import read_located
from nextvec.data.wordnet import read_wordnet
from nextvec.types import InputError

__all__ = ["Dictionary", "read_dictionary"]

_ENTRIES = ("entry", "word", "term", "lemma")


@dataclass(frozen=True, slots=True)
class Dictionary:
    """K different entries; definitions[i] [n] is one of the entry with the number owner[i] [n]."""

    entries: list[str]
    definitions: list[str]
    owner: list[int]

    def __len__(self) -> int:
        return len(self.entries)

    def take(self, entries: list[int]) -> Dictionary:
        """The entries with these numbers, in their order, with all their definitions."""
        place = {old: new for new, old in enumerate(entries)}
        kept = [i for i, own in enumerate(self.owner) if own in place]
        return Dictionary(
            [self.entries[i] for i in entries],
            [self.definitions[i] for i in kept],
            [place[self.owner[i]] for i in kept],
        )


def read_dictionary(path: Path) -> Dictionary:
    """Records with "entry" (or "word", "term", "lemma") and "definition", or "definitions", a list; what stands in
    several records is joined. Or WordNet's Debian package (.deb): every lemma with the definitions of its synsets.

    Raises InputError, with file and line, for a record without them, and for fewer than two entries.
    """
    if path.suffix == ".deb":
        pairs = [(word, synset.definition) for synset in read_wordnet(path) for word in synset.words]
    else:
        pairs = []
        for place, record in read_located(path):
            entry, several = field_text(record, _ENTRIES, place), record.get("definitions")
            if isinstance(several, list) and several:
                pairs += [(entry, field_text({"definition": one}, ("definition",), place)) for one in several]
            else:
                pairs.append((entry, field_text(record, ("definition", "definitions"), place)))
    number: dict[str, int] = {}
    owner = [number.setdefault(entry, len(number)) for entry, _ in pairs]
    if len(number) < 2:
        raise InputError(f"{str(path)!r} holds {len(number)} entries; at least 2 are needed to tell them apart")
    return Dictionary(list(number), [definition for _, definition in pairs], owner)
