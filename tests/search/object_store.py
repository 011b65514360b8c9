"""An object store for tests: moto's S3, served over http by a thread of this process."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

Request = tuple[str, str]
"""Method and path with query."""

REQUESTS: list[Request] = []
"""What was asked for, in order."""

FAULTS: list[Callable[[Request], str]] = []
"""Each sees every request first and says what befalls it: "", "lost" (it is not done) or "deaf" (it is done, and the
answer is lost); after either the client hears that the server is busy."""


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The endpoint of a running server."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    app = DomainDispatcherApplication(create_backend_app)
    writing = threading.Lock()

    def answer(environ: dict[str, Any], start: Any) -> Any:
        query = environ.get("QUERY_STRING", "")
        request = environ["REQUEST_METHOD"], environ["PATH_INFO"] + (f"?{query}" if query else "")
        REQUESTS.append(request)
        fault = next((said for see in FAULTS if (said := see(request))), "")
        if fault != "lost":
            # moto looks whether an object is there, and then writes it: a store does both at once.
            with writing if request[0] in ("PUT", "POST") else contextlib.nullcontext():
                body = app(environ, (lambda *_: None) if fault else start)
            if not fault:
                return body
        start("503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"busy"]

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def asking_for_keys(endpoint: str) -> Iterator[None]:
    """The server checks signatures, and knows nobody."""
    import urllib.request

    def ask(count: str) -> None:
        text = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", count.encode(), text, method="POST")
        with urllib.request.urlopen(request) as told:
            json.load(told)

    ask("0")
    try:
        yield
    finally:
        ask("inf")


@contextlib.contextmanager
def befallen(fault: Callable[[Request], str]) -> Iterator[None]:
    FAULTS.append(fault)
    try:
        yield
    finally:
        FAULTS.remove(fault)
