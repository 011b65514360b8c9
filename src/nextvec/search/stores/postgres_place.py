"""Where a collection on PostgreSQL is: addresses taken apart, connections, and errors as one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from nextvec.extras import require
from nextvec.search.stores.remote import check_name
from nextvec.types import ConflictError, InputError, NextvecError, NotFoundError, StorageError

LOCK_TIMEOUT = 30  # seconds a writer waits for the other writers
WHY = "a collection on PostgreSQL"


class Place:
    """An address, taken apart: what psycopg connects to, the collection's name, and what may be shown."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        options = parse_qsl(parts.query, keep_blank_values=True)
        self.shown = _without_password(parts, options)
        names = [value for name, value in options if name == "collection"]
        if len(names) != 1:
            raise InputError(f"{self.shown!r} names no collection: end it with ?collection=NAME (or &collection=NAME)")
        self.name = check_name(names[0], self.shown)
        others = [(name, value) for name, value in options if name != "collection"]
        self._conninfo = parts._replace(query=urlencode(others, quote_via=quote)).geturl()
        if not parts.netloc:  # urllib drops the empty host
            self._conninfo = self._conninfo.replace(f"{parts.scheme}:/", f"{parts.scheme}:///", 1)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Errors of the server and of the connection as one line."""
        psycopg = require("psycopg", why=WHY)
        try:
            yield
        except NextvecError:
            raise
        except psycopg.errors.LockNotAvailable as error:
            raise ConflictError(
                f"another client has been writing to collection {self.shown!r} for over {LOCK_TIMEOUT} s: try again"
            ) from error
        except psycopg.errors.UndefinedTable as error:
            raise NotFoundError(f"{self.shown!r} is not a collection (no such table): create it first") from error
        except psycopg.errors.UniqueViolation as error:
            raise ConflictError(f"another client wrote to {self.shown!r} at the same time: try again") from error
        except psycopg.Error as error:
            detail = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise StorageError(f"PostgreSQL refused {self.shown!r}: {detail}") from error

    def connect(self) -> Any:
        """A connection in autocommit mode that speaks UTC, and pgvector's types where they exist."""
        psycopg = require("psycopg", why=WHY)
        require("pgvector", why=WHY)
        with self.told():
            link = psycopg.connect(self._conninfo, autocommit=True, application_name="nextvec")
            link.execute("SET TIME ZONE 'UTC'")
            register(link)
        return link


def register(link: Any) -> None:
    """Teach the connection pgvector's types, where the database has them."""
    if link.execute("SELECT to_regtype('vector') IS NOT NULL").fetchone()[0]:
        require("pgvector.psycopg", why=WHY).register_vector(link)


def _without_password(parts: SplitResult, options: list[tuple[str, str]]) -> str:
    user, at, host = parts.netloc.rpartition("@")
    name, colon, password = user.partition(":")
    netloc = f"{name}{':***' if colon and password else ''}{at}{host}"
    shown = [(key, "***" if key in ("password", "sslpassword") else value) for key, value in options]
    query = urlencode(shown, safe="/*", quote_via=quote)
    return f"{parts.scheme}://{netloc}{parts.path}" + (f"?{query}" if query else "")
