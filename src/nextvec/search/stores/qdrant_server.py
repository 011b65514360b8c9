"""Where a collection on Qdrant is: addresses taken apart, clients shared by handles, and errors as one line."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from nextvec.extras import require
from nextvec.search.stores.remote import check_name
from nextvec.types import ConflictError, InputError, NextvecError, NotFoundError, StorageError

WHY = "a collection on Qdrant"


class Place:
    """An address, taken apart."""

    def __init__(self, address: str) -> None:
        self.address = address
        parts = urlsplit(address)
        folder, _, name = unquote(parts.path).rpartition("/")
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise InputError(
                f"the address of {name!r} has a user or options: expected qdrant://HOST:PORT/NAME; a key is taken from "
                "$QDRANT_API_KEY"
            )
        self.name = check_name(name, address)
        local = parts.scheme in ("qdrant+file", "qdrant+memory")
        fine = {"qdrant+file": folder, "qdrant+memory": not folder}.get(parts.scheme, parts.hostname and not folder)
        if not fine or (local and parts.netloc):
            raise InputError(
                f"{address!r} is not an address of Qdrant: expected qdrant://HOST:PORT/NAME, qdrant+https://HOST/NAME, "
                "qdrant+file:///FOLDER/NAME or qdrant+memory:///NAME"
            )
        if parts.scheme == "qdrant+file":
            self.key = str(Path(folder).resolve())
        elif parts.scheme == "qdrant+memory":
            self.key = ":memory:"
        else:
            try:
                port = parts.port or 6333
            except ValueError as error:
                raise InputError(f"{address!r}: {error}") from error
            host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
            self.key = f"{'https' if parts.scheme == 'qdrant+https' else 'http'}://{host}:{port}"
        self.local = local


class Server:
    """A client and how many handles use it. Local mode allows one client per folder, so that handles share it."""

    _shared: ClassVar[dict[str, Server]] = {}
    _sharing: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, place: Place) -> None:
        qdrant = require("qdrant_client", why=WHY)
        self.place, self.handles = place, 0
        # Local mode is not made for threads; a server is.
        self._lock = threading.RLock() if place.local else contextlib.nullcontext()
        with self.told(place):
            if place.key == ":memory:":
                self.client = qdrant.QdrantClient(":memory:")
            elif place.local:
                self.client = qdrant.QdrantClient(path=place.key)
            else:
                key = os.environ.get("QDRANT_API_KEY") or None
                self.client = qdrant.QdrantClient(url=place.key, api_key=key, check_compatibility=False, timeout=60)

    @classmethod
    def of(cls, place: Place) -> Server:
        """The client for this place, shared in local mode. ``release`` it once."""
        with cls._sharing:
            server = cls._shared.get(place.key) or cls(place)
            if place.local:
                cls._shared[place.key] = server
            server.handles += 1
            return server

    def release(self) -> None:
        """One handle less; the last one closes the client."""
        with self._sharing:
            self.handles -= 1
            if not self.handles:
                self._shared.pop(self.place.key, None)
                self.client.close()

    @contextlib.contextmanager
    def told(self, place: Place) -> Iterator[None]:
        """One call at a time in local mode; errors of client and server as one line."""
        errors = require("qdrant_client.http.exceptions", why=WHY)
        try:
            with self._lock:
                yield
        except NextvecError:
            raise
        except errors.UnexpectedResponse as error:
            if error.status_code == 404:
                raise no_collection(place) from error
            if error.status_code == 409:
                raise ConflictError(f"collection {place.address!r} exists: open it") from error
            raise StorageError(f"Qdrant refused {place.address!r}: {_line(error)}") from error
        except errors.ResponseHandlingException as error:
            raise StorageError(f"no Qdrant answers at {place.key!r}: {_line(error)}") from error
        except RuntimeError as error:
            if "already accessed" not in str(error):
                raise StorageError(f"Qdrant refused {place.address!r}: {_line(error)}") from error
            raise ConflictError(
                f"folder {place.key!r} is in use by another process: qdrant-client's local mode allows one at a time"
            ) from error
        except (ValueError, OSError) as error:
            if "not found" in str(error):
                raise no_collection(place) from error
            raise StorageError(f"Qdrant refused {place.address!r}: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def no_collection(place: Place) -> NotFoundError:
    return NotFoundError(f"{place.address!r} is not a collection (no such name there): create it first")
