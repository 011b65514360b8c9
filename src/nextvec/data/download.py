"""Fetch one file over HTTPS: resumed where it stopped, bounded, verified, and only then visible."""

from __future__ import annotations

import contextlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from nextvec import files
from nextvec.types import InputError, NextvecError, NotFoundError, OfflineError, Progress

__all__ = ["download"]

_BLOCK = 1 << 18
_ATTEMPTS = 3
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def download(
    url: str,
    target: Path,
    *,
    size: int,
    sha256: str,
    hint: str = "",
    progress: Progress | None = None,
    timeout: float = 30.0,
) -> None:
    """Fetch ``url`` to ``target`` (nothing is done where it is there already with the right SHA-256).

    What has arrived is kept in ``target`` + ".part" and continued with an HTTP Range request, also by a later call;
    a server that ignores ranges makes it start anew. Never more than ``size`` bytes are written. Only https is used
    (http for this machine alone), on redirects too. ``hint`` says what to do without a network.

    Raises OfflineError (not reachable, or the connection broke), NotFoundError (404 or 410), InputError (a refused
    address, or contents of another size or SHA-256: the part is removed), StorageError.
    """
    _check_scheme(url)
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target):
            if target.exists() and files.sha256(target) == sha256:
                return
            _receive(url, part, size=size, hint=hint, progress=progress, timeout=timeout)
            _accept(url, part, target, sha256)
    except OSError as error:
        if isinstance(error, NextvecError):
            raise
        raise files.storage_error(error, target) from error


@contextlib.contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Two processes must not write one part: the second waits, then finds the file there."""
    from filelock import FileLock

    with FileLock(target.with_name(target.name + ".lock")):
        yield


def _receive(url: str, part: Path, *, size: int, hint: str, progress: Progress | None, timeout: float) -> None:
    """Bring ``part`` to ``size`` bytes; a broken connection is resumed a few times as long as bytes arrive."""
    problem = "the connection broke"
    for _ in range(_ATTEMPTS):
        have = part.stat().st_size if part.exists() else 0
        if have > size:
            part.unlink()
            have = 0
        if have == size:
            return
        try:
            with _request(url, have, timeout) as answer:
                resumed = answer.status == 206 and _starts_at(answer.headers.get("Content-Range"), have)
                with part.open("ab" if resumed else "wb") as stream:
                    _copy(url, answer, stream, have if resumed else 0, size, progress)
                    stream.flush()
                    os.fsync(stream.fileno())
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                raise NotFoundError(f"{url} is gone (HTTP {error.code}); {hint}") from error
            if error.code == 416:
                part.unlink(missing_ok=True)
            problem = f"the server answered HTTP {error.code}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            problem = str(getattr(error, "reason", None) or error or type(error).__name__)
    if part.exists() and part.stat().st_size == size:
        return
    raise OfflineError(
        f"cannot fetch {url}: {problem}; try again (what arrived is kept){'; or ' if hint else ''}{hint}"
    )


def _copy(url: str, answer: Any, stream: IO[bytes], have: int, size: int, progress: Progress | None) -> None:
    while block := answer.read(_BLOCK):
        have += len(block)
        if have > size:
            stream.truncate(0)
            raise InputError(f"{url} sends more than the catalogued {size:,} bytes: refused")
        stream.write(block)
        if progress is not None:
            progress(have, size)


def _accept(url: str, part: Path, target: Path, sha256: str) -> None:
    got = files.sha256(part)
    if got != sha256:
        part.unlink()
        raise InputError(
            f"{url} is not the catalogued file: SHA-256 {got[:16]}..., expected {sha256[:16]}...; nothing was kept"
        )
    part.replace(target)


def _starts_at(content_range: str | None, offset: int) -> bool:
    return (content_range or "").strip().lower().startswith(f"bytes {offset}-")


def _check_scheme(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise InputError(f"{url}: only https addresses are fetched")


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _request(url: str, offset: int, timeout: float) -> Any:
    headers = {"User-Agent": "nextvec", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    opener = urllib.request.build_opener(_Redirects)
    return opener.open(urllib.request.Request(url, headers=headers), timeout=timeout)
