"""qdrant-client's local mode behind the part of Qdrant's REST interface that nextvec uses.

No Qdrant server can be installed with pip. This stands in for its wire: every request and answer goes through JSON and
the published models; what it cannot show is how the real engine behaves.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from qdrant_client import QdrantClient, models


def _routes(client: QdrantClient) -> dict[tuple[str, str], Callable[[str, Any], Any]]:
    """(verb, end of the path) -> function of the collection's name and the body."""

    def create(name: str, body: Any) -> Any:
        made = models.CreateCollection.model_validate(body)
        return client.create_collection(name, vectors_config=made.vectors, metadata=made.metadata)

    def upsert(name: str, body: Any) -> Any:
        return client.upsert(name, models.PointsList.model_validate(body).points)

    def retrieve(name: str, body: Any) -> Any:
        asked = models.PointRequest.model_validate(body)
        return client.retrieve(name, asked.ids, with_payload=asked.with_payload, with_vectors=asked.with_vector)

    def scroll(name: str, body: Any) -> Any:
        asked = models.ScrollRequest.model_validate(body)
        points, offset = client.scroll(
            name, asked.filter, limit=asked.limit, offset=asked.offset, with_payload=asked.with_payload
        )
        return models.ScrollResult(points=points, next_page_offset=offset)

    def query(name: str, body: Any) -> Any:
        asked = models.QueryRequest.model_validate(body)
        assert asked.params is not None
        assert asked.params.exact is True
        return client.query_points(
            name, asked.query, query_filter=asked.filter, limit=asked.limit, with_payload=asked.with_payload
        )

    def count(name: str, body: Any) -> Any:
        asked = models.CountRequest.model_validate(body)
        assert asked.exact is True
        return client.count(name, asked.filter)

    def delete(name: str, body: Any) -> Any:
        return client.delete(name, points_selector=models.PointIdsList.model_validate(body))

    return {
        ("GET", ""): lambda name, body: client.get_collection(name),
        ("GET", "exists"): lambda name, body: {"exists": client.collection_exists(name)},
        ("PUT", ""): create,
        ("PUT", "points"): upsert,
        ("POST", "points"): retrieve,
        ("POST", "points/scroll"): scroll,
        ("POST", "points/query"): query,
        ("POST", "points/count"): count,
        ("POST", "points/delete"): delete,
    }


@contextlib.contextmanager
def serving(requests: list[tuple[str, str, str | None]]) -> Iterator[str]:
    """ "HOST:PORT" of a server; ``requests`` collects (verb, path, key)."""
    client = QdrantClient(":memory:")
    routes, lock = _routes(client), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            requests.append((self.command, self.path, self.headers.get("api-key")))
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            _, _, name, *rest = self.path.partition("?")[0].split("/")
            try:
                with lock:
                    result = routes[self.command, "/".join(rest)](name, body)
                status, said = 200, {"status": "ok", "time": 0.0, "result": _plain(result)}
            except ValueError as error:
                status = 404 if "not found" in str(error) else 400
                said = {"status": {"error": str(error)}, "time": 0.0}
            data = json.dumps(said, allow_nan=False).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = answer

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        client.close()


def _plain(result: Any) -> Any:
    if isinstance(result, list):
        return [_plain(one) for one in result]
    return result.model_dump(mode="json") if hasattr(result, "model_dump") else result
