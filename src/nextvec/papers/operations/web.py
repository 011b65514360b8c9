"""What monitors ask a site: whether it runs, whether it can do its work, and figures."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from nextvec.papers.operations.health import check
from nextvec.papers.operations.metrics import CONTENT_TYPE, Metrics, page
from nextvec.papers.operations.watch import Watch
from nextvec.papers.responses import site_of

__all__ = ["join", "router"]

_GET = ["GET", "HEAD"]
_FRESH = {"Cache-Control": "no-store"}
router = APIRouter()


def join(app: FastAPI, *, metrics: bool) -> None:
    """Watch ``app`` from outside all that it has so far, and answer monitors. ``metrics``: give figures, too."""
    counted = Metrics()
    app.state.metrics = counted if metrics else None
    app.add_middleware(Watch, metrics=counted)
    app.include_router(router)


@router.api_route("/health", methods=_GET)
@router.api_route("/healthz", methods=_GET)
def healthz(request: Request) -> Response:
    """200 when the papers can be read: the process lives, leave it alone."""
    return JSONResponse({"status": "ok", "papers": site_of(request).db.count()}, headers=_FRESH)


@router.api_route("/readyz", methods=_GET)
def readyz(request: Request) -> Response:
    """200 when it can do all of its work, 503 when not, or not yet: send readers elsewhere."""
    well, parts = check(site_of(request))
    if (warmth := request.app.state.warmth) is not None:
        well = well and warmth.ready
        parts["lists"] = "ok" if warmth.ready else "being made"
    document = {"status": "ready" if well else "not ready", "checks": parts}
    return JSONResponse(document, 200 if well else 503, headers=_FRESH)


@router.api_route("/metrics", methods=_GET)
def figures(request: Request) -> Response:
    """Figures for Prometheus, where the site gives them."""
    metrics = cast(Metrics | None, request.app.state.metrics)
    if metrics is None:
        raise HTTPException(404)
    return PlainTextResponse(page(metrics, site_of(request)), media_type=CONTENT_TYPE, headers=_FRESH)
