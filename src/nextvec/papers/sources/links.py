"""What readers hand in: the address or id of a paper on arXiv, and nothing else. It is read, never asked."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from nextvec.papers.records import clean
from nextvec.papers.sources.ids import arxiv_id
from nextvec.types import InputError

__all__ = ["MAX_LINK", "read_link"]

MAX_LINK = 200
_ARXIV = ("arxiv.org", "www.arxiv.org", "export.arxiv.org")
_PATHS = {
    **dict.fromkeys(_ARXIV, r"/(?:abs|pdf|html|format|ps)/(?P<id>.+?)(?:\.pdf)?/?"),
    "huggingface.co": r"/papers/(?P<id>.+?)/?",
    "doi.org": r"/10\.48550/arxiv\.(?P<id>.+?)/?",
    "dx.doi.org": r"/10\.48550/arxiv\.(?P<id>.+?)/?",
}
_EXPECTED = "expected a paper on arXiv, such as https://arxiv.org/abs/2405.13729 or 2405.13729"


def read_link(text: str) -> str:
    """The arXiv id, without version, that ``text`` names. InputError with one clear line for anything else."""
    if len(text) > MAX_LINK:
        raise InputError(f"the link has {len(text)} characters; at most {MAX_LINK} are accepted")
    value = clean(text)
    if not value:
        raise InputError(f"the link is empty; {_EXPECTED}")
    found = arxiv_id(value)
    if found:
        return found
    if re.match(r"(?:www\.|export\.)?arxiv\.org/|huggingface\.co/papers/", value):
        value = f"https://{value}"  # as people copy it from a page
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise InputError(f"{value[:60]!r} is not an address; {_EXPECTED}") from None
    if parts.scheme not in ("http", "https"):
        kind = f"links that begin with {parts.scheme}:" if parts.scheme and parts.netloc + parts.path else "this"
        raise InputError(f"{kind} cannot be used here; {_EXPECTED}")
    if "@" in parts.netloc:
        raise InputError(f"the link names a user before its host: refused; {_EXPECTED}")
    if port is not None:
        raise InputError(f"the link names a port: refused; {_EXPECTED}")
    if not host.isascii() or "xn--" in host:
        raise InputError(f"the host of the link is written in other letters than it seems: refused; {_EXPECTED}")
    if host not in _PATHS:
        raise InputError(f"{host[:60] or 'no host'!r} is not a place that papers come from here; {_EXPECTED}")
    match = re.fullmatch(_PATHS[host], unquote(parts.path), re.IGNORECASE)
    found = arxiv_id(match["id"]) if match else None
    if found is None:
        raise InputError(f"the link names no paper ({parts.path[:60]!r}); {_EXPECTED}")
    return found
