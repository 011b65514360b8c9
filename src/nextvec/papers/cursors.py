"""Where a page ends, as one opaque word of an address, with a check sum that finds a cut or changed one."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

__all__ = ["pack", "unpack"]

_SUM = 6


def pack(value: Any) -> str:
    """A JSON value as one word of letters, digits, ``_`` and ``-``."""
    body = json.dumps(value).encode()
    return base64.urlsafe_b64encode(_check_sum(body) + body).decode().rstrip("=")


def unpack(word: str) -> Any:
    """The value that ``pack`` made ``word`` of. ValueError for any other word."""
    if len(word) > 400 or not re.fullmatch(r"[\w-]+", word, re.ASCII):
        raise ValueError
    whole = base64.urlsafe_b64decode(word + "=" * (-len(word) % 4))
    if whole[:_SUM] != _check_sum(whole[_SUM:]):
        raise ValueError
    return json.loads(whole[_SUM:])


def _check_sum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_SUM, person=b"papers cursor").digest()
