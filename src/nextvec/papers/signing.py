"""What the site signs: links in mails, cookies of those who are signed in. One secret per site, one purpose per use.

The secret comes from ``NEXTVEC_SECRET`` or from the file ``secret`` in the site's home, which the first call makes from
the system's random numbers: there is no default that anybody could know.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

from nextvec.files import storage_error
from nextvec.types import InputError, StorageError

__all__ = ["SECRET_VARIABLE", "Signer", "load_secret"]

SECRET_VARIABLE = "NEXTVEC_SECRET"
_SHORTEST = 32


def load_secret(home: Path) -> bytes:
    """The site's secret, at least 32 bytes.

    InputError where the one given is too short; StorageError where the one in the file is, or can be read by others, or
    where there is none and none can be written.
    """
    given = os.environ.get(SECRET_VARIABLE)
    if given is not None:
        secret = given.strip().encode()
        if len(secret) < _SHORTEST:
            raise InputError(_too_short(secret, f"${SECRET_VARIABLE}"))
        return secret
    path = home / "secret"
    try:
        if not path.exists():
            _make(path)
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise StorageError(f"{str(path)!r} can be read by others: `chmod 600` it, or set ${SECRET_VARIABLE}")
        secret = path.read_bytes().strip()
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(error, path) from error
    if len(secret) < _SHORTEST:
        raise StorageError(_too_short(secret, repr(str(path))))
    return secret


def _too_short(secret: bytes, place: str) -> str:
    return (
        f"the secret in {place} has {len(secret)} bytes, at least {_SHORTEST} are needed: "
        "`python -c 'import secrets; print(secrets.token_urlsafe(48))'` makes one"
    )


def _make(path: Path) -> None:
    """Written whole or not at all; where two processes start at once, the first one's secret holds for both."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".secret-")  # 0600 by itself
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_urlsafe(48).encode())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()


class Signer:
    """Signs small JSON values, so that what comes back is what was given out, for the same purpose and not too late.

    A signature is public: whoever holds it can read what it signs.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, purpose: str, value: Any) -> str:
        """A token of URL-safe characters. ``purpose``: a fixed name, such as ``"sign-in"``."""
        return str(self._serializer(purpose).dumps(value))

    def read(self, purpose: str, token: str, *, seconds: int | None = None) -> Any:
        """What was signed. InputError where the signature is not ours, not for this purpose, or older than ``seconds``.

        Signatures are compared in constant time.
        """
        from itsdangerous import BadData, SignatureExpired

        try:
            return self._serializer(purpose).loads(token, max_age=seconds)
        except SignatureExpired:
            raise InputError("this link has expired: ask for a new one") from None
        except (BadData, UnicodeEncodeError):
            raise InputError("this link is not valid: it may have been cut short when it was copied") from None

    def _serializer(self, purpose: str) -> Any:
        from itsdangerous import URLSafeTimedSerializer

        return URLSafeTimedSerializer(
            self._secret, salt=f"nextvec.papers.{purpose}", signer_kwargs={"digest_method": hashlib.sha256}
        )
