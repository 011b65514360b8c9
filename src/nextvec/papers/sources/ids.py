"""What a paper is called: arXiv ids with and without version, ids of the ACL Anthology in both spellings, DOIs.

A name is ``scheme:value`` in one spelling, so that two sources that mean the same thing write the same word.
"""

from __future__ import annotations

import re

from nextvec.papers.records import is_arxiv_id

__all__ = ["acl_id", "address_of", "arxiv_id", "doi", "names", "names_of_id"]

_NEW_ACL = re.compile(r"\d{4}\.[a-z0-9]+-[a-z0-9]+\.\d{1,4}")
_OLD_ACL = re.compile(r"[A-Z]\d{2}-\d{4}")
_LOOSE_ACL = re.compile(r"([A-Z]\d{2})-(\d{1,2})\.(\d{1,3})")
_DOI = re.compile(r"10\.\d{4,9}/[^\s\"<>{}|\\^`]{1,180}")
_ARXIV_DOI = "10.48550/arxiv."
_ACL_DOI = re.compile(r"10\.(?:18653|3115)/v1/(.+)")


def arxiv_id(text: str) -> str | None:
    """``arXiv:2405.13729v2`` -> ``2405.13729``; None for what is no arXiv id. New ids need a month that exists."""
    bare = re.sub(r"v\d{1,3}$", "", re.sub(r"^arxiv:", "", text.strip(), flags=re.IGNORECASE))
    if not is_arxiv_id(bare):
        return None
    if re.match(r"\d", bare):
        return bare if 1 <= int(bare[2:4]) <= 12 and bare[:4] >= "0704" else None
    return re.sub(r"\.[A-Z]{2}/", "/", bare)  # math.GT/0309136 and math/0309136 are one


def acl_id(text: str) -> str | None:
    """An id of the ACL Anthology in its canonical spelling: ``X98-1.22`` -> ``X98-1022``; None for anything else.

    Source of the widths: the Anthology's own rule (workshops, C69 and late D19 volumes have two digits each).
    """
    value = text.strip()
    if _NEW_ACL.fullmatch(value) or _OLD_ACL.fullmatch(value):
        return value
    loose = _LOOSE_ACL.fullmatch(value)
    if not loose:
        return None
    collection, volume, paper = loose[1], int(loose[2]), int(loose[3])
    wide = collection.startswith("W") or collection == "C69" or (collection == "D19" and volume >= 5)
    number = f"{volume:02d}{paper:02d}" if wide else f"{volume}{paper:03d}"
    return f"{collection}-{number}" if len(number) == 4 else None


def doi(text: str) -> str | None:
    """A DOI in lower case, from itself or its address; None for anything else."""
    value = re.sub(r"^(?:https?://(?:dx\.)?doi\.org/|doi:\s*)", "", text.strip(), flags=re.IGNORECASE).rstrip(".,;")
    return value.lower() if _DOI.fullmatch(value) else None


def names_of_id(identifier: str) -> tuple[str, ...]:
    """The names that a paper's id on the site itself gives: none for one that somebody made up."""
    if found := arxiv_id(identifier):
        return (f"arxiv:{found}",)
    if found := acl_id(identifier):
        return (f"acl:{found}",)
    return ()


def names(*, arxiv: str | None = None, acl: str | None = None, dois: tuple[str, ...] = ()) -> tuple[str, ...]:
    """All names of a paper, the surest first; what is no such id is left out. DOIs that contain an id name it too."""
    found: dict[str, None] = {}
    for scheme, value in (("arxiv", arxiv_id(arxiv or "")), ("acl", acl_id(acl or ""))):
        if value:
            found[f"{scheme}:{value}"] = None
    for text in dois:
        value = doi(text)
        if value is None:
            continue
        within = _ACL_DOI.fullmatch(value)
        if value.startswith(_ARXIV_DOI):
            inner = names(arxiv=value.removeprefix(_ARXIV_DOI))
        elif within:
            inner = names(acl=within[1] if "." in within[1] else within[1].upper())
        else:
            inner = ()
        found |= dict.fromkeys(inner or ())
        if not value.startswith(_ARXIV_DOI):
            found[f"doi:{value}"] = None
    return tuple(found)


def address_of(name: str) -> tuple[str, str]:
    """(what people call the place, the address) of a name."""
    scheme, _, value = name.partition(":")
    return {
        "arxiv": ("arXiv", f"https://arxiv.org/abs/{value}"),
        "acl": ("ACL Anthology", f"https://aclanthology.org/{value}/"),
        "doi": ("DOI", f"https://doi.org/{value}"),
    }[scheme]
