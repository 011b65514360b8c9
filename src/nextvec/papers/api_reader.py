"""What readers' programs do in their name, under ``/api``: votes and reading lists, with a token that is for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from nextvec.papers import api_models
from nextvec.papers.accounts import lists, votes
from nextvec.papers.accounts.guard import MAX_BODY
from nextvec.papers.accounts.lists import MAX_NAME, MAX_NOTE, Entry, ReadingList
from nextvec.papers.api_models import ERRORS, Moment, flat
from nextvec.papers.api_queries import find_paper
from nextvec.papers.api_tokens import Asking, ForLists, ForVotes
from nextvec.types import InputError, NotFoundError

__all__ = ["as_lines", "router"]

router = APIRouter()
_FRESH = {"Cache-Control": "private, no-store", "Vary": "Authorization"}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: ERRORS[status] for status in (400, 401, 404, 405, 410, 429, 503, "default")
} | {
    403: {
        "model": api_models.Problem,
        "description": "The token is for something else; WWW-Authenticate names its scope",
    }
}
_BODY_ERRORS = {413: {"model": api_models.Problem, "description": "The body is larger than 64 kB"}}
PaperId = Annotated[str, Path(alias="id", description="arXiv id", examples=["2412.06769"])]
ListId = Annotated[str, Path(alias="list", description="id of a list, from GET /api/lists", max_length=64)]


# -- shapes --------------------------------------------------------------------------------------------------------
class Voted(api_models.Model):
    """A paper after a vote was given or taken back."""

    id: str
    upvotes: int = Field(ge=0)
    voted: bool = Field(description="whether your vote is in them")


class ListOfPapers(api_models.Model):
    """A reading list."""

    id: str
    name: str
    papers: int = Field(ge=0, description="how many there are")
    shared: bool = Field(description="whether whoever has its address can read it")
    created_at: Moment


class ListedEntry(api_models.Model):
    """A paper of a list."""

    paper: api_models.FlatPaper
    note: str
    added_at: Moment


class NewList(BaseModel):
    """What makes a list."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=MAX_NAME)


class NewEntry(BaseModel):
    """What puts a paper into a list, or changes its note."""

    model_config = ConfigDict(extra="forbid")
    id: str = Field(min_length=1, max_length=80, description="arXiv id", examples=["2412.06769"])
    note: str = Field("", max_length=MAX_NOTE)


# -- bodies --------------------------------------------------------------------------------------------------------
async def _body(request: Request, asking: ForLists) -> bytes:
    """The body of a request that may write; it is read only once that is clear."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise InputError(f"the body is {kind[:40] or 'of no type'!r}; expected application/json")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"the body is larger than {MAX_BODY // 1024} kB")
    return body


Body = Annotated[bytes, Depends(_body)]
M = TypeVar("M", bound=BaseModel)


def _read(model: type[M], body: bytes) -> M:
    """``body`` as a ``model``. InputError that names the field."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        came = (
            f"{name} is {first.get('input')!r:.40}" if name else f"the body is {body[:40].decode(errors='replace')!r}"
        )
        raise InputError(f"{came}; {first['msg'].replace('Input should', 'it should')}") from None


def _offer(method: str, path: str, model: Any, summary: str, scope: str, **more: Any) -> Callable[..., Any]:
    """Register an endpoint with its place in the specification; ``body``: the model of what it takes."""
    taken: type[BaseModel] | None = more.pop("body", None)
    errors = _ERRORS | (_BODY_ERRORS if taken else {}) | more.pop("responses", {})
    extra: dict[str, Any] = {"security": [{"token": [scope]}]}
    if taken:
        extra["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": taken.model_json_schema()}},
        }

    def add(function: Callable[..., Response]) -> Callable[..., Response]:
        router.add_api_route(
            path, function, methods=[method], response_model=model, summary=summary, responses=errors,
            openapi_extra=extra, **more,
        )  # fmt: skip
        if method == "GET":
            router.add_api_route(path, function, methods=["HEAD"], include_in_schema=False)
        return function

    return add


def _answer(value: Any, status: int = 200) -> Response:
    return Response(api_models.as_json(value), status, media_type="application/json", headers=_FRESH)


# -- votes ---------------------------------------------------------------------------------------------------------
@_offer("POST", "/papers/{id:path}/vote", Voted, "Vote for a paper", "vote")
def vote(asking: ForVotes, identifier: PaperId) -> Response:
    """However often it is sent, it counts once."""
    return _voted(asking, identifier, up=True)


@_offer("DELETE", "/papers/{id:path}/vote", Voted, "Take a vote back", "vote")
def unvote(asking: ForVotes, identifier: PaperId) -> Response:
    """Without a vote of yours nothing changes."""
    return _voted(asking, identifier, up=False)


def _voted(asking: Asking, identifier: str, *, up: bool) -> Response:
    paper = find_paper(asking.site, identifier).paper.id
    (votes.give if up else votes.take_back)(asking.site.db, asking.reader.id, paper)
    return _answer(Voted(id=paper, upvotes=find_paper(asking.site, paper).paper.upvotes, voted=up))


# -- lists ---------------------------------------------------------------------------------------------------------
@_offer("GET", "/lists", list[ListOfPapers], "Your reading lists", "lists")
def mine(asking: ForLists) -> Response:
    """The newest first."""
    return _answer([_told(one) for one in lists.of_reader(asking.site.db, asking.reader.id)])


@_offer("POST", "/lists", ListOfPapers, "Make a list", "lists", body=NewList, status_code=201)
def create(asking: ForLists, body: Body) -> Response:
    """It is private until it is shared on its page."""
    identifier = lists.create(asking.site.db, asking.reader.id, _read(NewList, body).name)
    return _answer(_told(_own(asking, identifier)), 201)


@_offer("GET", "/lists/{list}", ListOfPapers, "One list", "lists")
def one(asking: ForLists, chosen: ListId) -> Response:
    """Its name and how many papers it holds."""
    return _answer(_told(_own(asking, chosen)))


@_offer("DELETE", "/lists/{list}", None, "Delete a list", "lists", status_code=204)
def delete(asking: ForLists, chosen: ListId) -> Response:
    """With its notes; the papers stay on the site."""
    lists.delete(asking.site.db, asking.reader.id, chosen)
    return Response(status_code=204, headers=_FRESH)


_TEXTS: dict[int | str, dict[str, Any]] = {200: {"content": {"application/jsonl": {}, "application/x-bibtex": {}}}}


@_offer("GET", "/lists/{list}/papers", list[ListedEntry], "The papers of a list", "lists", responses=_TEXTS)
def papers(
    asking: ForLists,
    chosen: ListId,
    form: Annotated[
        Literal["json", "jsonl", "bibtex"], Query(alias="format", description="json, an object on each line, or BibTeX")
    ] = "json",
) -> Response:
    """The one put in last comes first."""
    found = lists.entries(asking.site.db, _own(asking, chosen).id)
    if form == "bibtex":
        return Response(lists.as_bibtex(found), media_type="application/x-bibtex; charset=utf-8", headers=_FRESH)
    if form == "jsonl":
        return Response(as_lines(found), media_type="application/jsonl", headers=_FRESH)
    return _answer([_entry(entry) for entry in found])


@_offer("POST", "/lists/{list}/papers", ListedEntry, "Put a paper into a list", "lists", body=NewEntry)
def add(asking: ForLists, chosen: ListId, body: Body) -> Response:
    """Of one that is in it already, the note is replaced."""
    new = _read(NewEntry, body)
    paper = find_paper(asking.site, new.id).paper.id
    lists.add(asking.site.db, asking.reader.id, chosen, paper, note=new.note)
    entry = next(entry for entry in lists.entries(asking.site.db, chosen) if entry.stored.paper.id == paper)
    return _answer(_entry(entry))


@_offer("DELETE", "/lists/{list}/papers/{id:path}", None, "Take a paper out of a list", "lists", status_code=204)
def remove(asking: ForLists, chosen: ListId, identifier: PaperId) -> Response:
    """Where it is not in it, nothing changes."""
    try:
        paper = find_paper(asking.site, identifier).paper.id
    except NotFoundError:  # one that the site has no more can still be taken out
        paper = identifier
    lists.remove(asking.site.db, asking.reader.id, chosen, paper)
    return Response(status_code=204, headers=_FRESH)


def as_lines(found: Sequence[Entry]) -> bytes:
    """The papers of a list, a JSON object on each line."""
    return b"".join(api_models.as_json(_entry(entry)) + b"\n" for entry in found)


def _own(asking: Asking, identifier: str) -> ReadingList:
    return lists.own(asking.site.db, asking.reader.id, identifier)


def _told(one: ReadingList) -> ListOfPapers:
    shared = one.address is not None
    return ListOfPapers(id=one.id, name=one.name, papers=one.size, shared=shared, created_at=one.created_at)


def _entry(entry: Entry) -> ListedEntry:
    return ListedEntry(paper=flat(entry.stored.paper), note=entry.note, added_at=entry.created_at)
