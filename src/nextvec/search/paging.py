"""Cursors: where a search goes on, as a short text that fits any process which has the same collection.

A cursor holds a version, how many hits (or groups) came before, a fingerprint of the search, and a checksum. It is
opaque but no secret: who makes up a valid one gets another page of a search that they could have asked for anyway.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
import threading
from collections import OrderedDict
from dataclasses import dataclass

from nextvec.search.ranking import Ranking
from nextvec.types import InputError

__all__ = ["Cursor", "Remembered"]

_FORMAT = 1
_LAYOUT = struct.Struct("<BQQ12s")
_CHECK = 8
_KEPT = 8


@dataclass(frozen=True, slots=True)
class Cursor:
    """``done``: hits or groups before the next page; ``search``: fingerprint of the search, 12 bytes."""

    version: int
    done: int
    search: bytes

    def text(self) -> str:
        """As it is handed out."""
        payload = _LAYOUT.pack(_FORMAT, self.version, self.done, self.search)
        return base64.urlsafe_b64encode(payload + _check(payload)).rstrip(b"=").decode()

    @classmethod
    def read(cls, text: object) -> Cursor:
        """What ``text`` gave. InputError for anything else, however slightly changed."""
        refused = InputError(f"the cursor {str(text)[:60]!r} is not one that a search gave: pass it on unchanged")
        if not isinstance(text, str):
            raise InputError(f"cursor is a {type(text).__name__}: expected the text of Hits.cursor")
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            payload, check = raw[: _LAYOUT.size], raw[_LAYOUT.size :]
            form, version, done, search = _LAYOUT.unpack(payload)
        except (ValueError, binascii.Error, struct.error):
            raise refused from None
        cursor = cls(version, done, search)
        # The same bytes have several spellings in base64; only ours is taken.
        if check != _check(payload) or form != _FORMAT or cursor.text() != text or version >= 1 << 63:
            raise refused
        return cursor


def _check(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=_CHECK, person=b"nextvec cursor").digest()


class Remembered:
    """The rankings of the last few searches that were paged through, so that the next page does not start over."""

    def __init__(self) -> None:
        self._rankings: OrderedDict[tuple[int, bytes], Ranking] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, version: int, search: bytes) -> Ranking | None:
        """The ranking of this search in this version, if it is still there. Those of other versions are let go."""
        with self._lock:
            for key in [key for key in self._rankings if key[0] != version]:
                del self._rankings[key]
            return self._rankings.get((version, search))

    def keep(self, version: int, search: bytes, ranking: Ranking) -> None:
        """Keep it until eight others were kept."""
        with self._lock:
            self._rankings[version, search] = ranking
            self._rankings.move_to_end((version, search))
            if len(self._rankings) > _KEPT:
                self._rankings.popitem(last=False)
