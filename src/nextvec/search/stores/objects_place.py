"""Where a collection on an object store is: addresses taken apart, what Lance is told, and errors as one line."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pyarrow as pa

from nextvec.types import InputError, NextvecError, NotFoundError, StorageError

MEMORY = "NEXTVEC_REMOTE_MEMORY"
_DEFAULT_MEMORY = 4 * 10**9
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]*")
# A store that does not answer is told of in seconds; Lance itself would go on for three minutes.
_PATIENCE = {"client_max_retries": "5", "client_retry_timeout": "30", "connect_timeout": "10s"}
_KEYS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "file": "",
}


class Place:
    """An address, taken apart. ``uri``: what Lance opens; ``options``: how it talks to the store, without keys, which
    it reads from the environment itself."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.scheme = parts.scheme
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise InputError(
                f"the address of {parts.path!r} has a user or options: expected {parts.scheme}://BUCKET/PREFIX; keys "
                f"are taken from the environment ({_KEYS[parts.scheme]})"
            )
        self.address = address.rstrip("/")
        names = parts.path.strip("/").split("/")
        if self.scheme == "file":
            fine = not parts.netloc and parts.path.startswith("/") and names != [""]
        else:
            fine = all(_PART.fullmatch(name) for name in [parts.netloc, *names])
        if not fine:
            raise InputError(
                f"{address!r} is not an address of an object store: expected s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, "
                "az://CONTAINER/PREFIX (names of A-Z, a-z, 0-9, '.', '_', '=', '-') or file:///FOLDER/NAME"
            )
        # As a path, since Lance would decode what looks like %20 in a URL.
        self.uri = parts.path.rstrip("/") if self.scheme == "file" else self.address
        self.options = dict(_PATIENCE) if self.scheme != "file" else {}
        if self.scheme == "s3" and _endpoint():
            # Whoever gives an endpoint over http means it.
            self.options |= {"aws_endpoint": _endpoint(), "allow_http": str(_endpoint().startswith("http:")).lower()}

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Errors of the store and of Lance as one line."""
        try:
            yield
        except NextvecError:
            raise
        except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
            raise self._error(error) from error

    def missing(self, why: str, do: str) -> NotFoundError:
        """What to raise where there is no collection."""
        return NotFoundError(f"{self.address!r} is not a collection ({why}): {do}")

    def _error(self, error: Exception) -> NextvecError:
        text = " ".join(str(error).split())
        if re.search(r"Dataset at path .* was not found", text):
            return self.missing("no table there", "create it first")
        if "NoSuchBucket" in text or "ContainerNotFound" in text:
            return NotFoundError(f"{self.address!r} names a bucket that does not exist: make it first")
        code = re.search(r"<Code>(\w+)</Code>", text)
        refused = code or re.search(r"\b(401 Unauthorized|403 Forbidden)|Failed to get AWS credentials", text)
        if refused and refused[1] not in ("SlowDown", "InternalError", "ServiceUnavailable"):
            what = refused[1] or "no credentials"
            return StorageError(f"the store of {self.address!r} refused ({what}): look at {_KEYS[self.scheme]}")
        if "no Azure account name" in text:
            return StorageError(f"no account for {self.address!r}: set {_KEYS[self.scheme]}")
        if "error sending request" in text or "dns error" in text or "timed out" in text:
            at = f" at {_endpoint()!r}" if self.scheme == "s3" and _endpoint() else ""
            return StorageError(f"no object store answers{at} for {self.address!r}: is it running, is the network up?")
        detail = re.sub(r"^(External error: )?(LanceError\(\w+\): )?(Generic [^:]*: )?", "", text)
        detail = re.split(r",? ?/\S*/(?:rust|library|src)/", detail)[0][:300] or type(error).__name__
        return StorageError(f"cannot use {self.address!r}: {detail}")


def memory_limit() -> int:
    """Bytes that the vectors of one collection may take in memory: $NEXTVEC_REMOTE_MEMORY, such as 500MB or 8GB."""
    given = os.environ.get(MEMORY, "").strip()
    if not given:
        return _DEFAULT_MEMORY
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B?)", given, re.IGNORECASE)
    unit = parts[2].upper() if parts else "?"
    unit = unit if unit in ("", "B") or unit.endswith("B") else unit + "B"
    if parts is None or unit not in _UNITS:
        raise InputError(f"${MEMORY} is {given!r}: expected a size such as 500MB or 8GB")
    return int(float(parts[1]) * _UNITS[unit])


def _endpoint() -> str:
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return next((os.environ[name] for name in names if os.environ.get(name)), "")
