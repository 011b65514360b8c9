"""What the interface for programs answers with: the shapes and the field names of the Hugging Face Hub's paper API.

One name has two meanings there, and here as well: ``publishedAt`` beside ``paper`` is the moment of the listing,
``publishedAt`` inside ``paper`` is the arXiv date. A field that the original always has is null where it is not known;
one that the original may leave out, and everything that this site never knows (avatars, thumbnails, discussions,
summaries by a model), is left out. ``dailyDate`` and ``similarity`` are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, TypeAdapter, WithJsonSchema
from pydantic.alias_generators import to_camel

from nextvec.papers import records
from nextvec.papers.facets import Count

__all__ = [
    "ERRORS",
    "Author",
    "FacetCounts",
    "FlatPaper",
    "ListedPaper",
    "Model",
    "Moment",
    "Organization",
    "Paper",
    "PaperDetails",
    "Problem",
    "SimilarPaper",
    "User",
    "as_json",
    "details",
    "facet_counts",
    "flat",
    "listed",
    "similar",
]


def moment(value: datetime) -> str:
    """Naive UTC -> ``2025-02-28T09:30:00.000Z``, the form of the original."""
    return value.replace(tzinfo=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Moment = Annotated[
    datetime,
    PlainSerializer(moment, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2025-02-28T09:30:00.000Z"]}),
]


class Model(BaseModel):
    """What all shapes have in common: names as the original writes them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class User(Model):
    """Who listed a paper. Both fields hold the name of the account: no more is known."""

    user: str
    name: str


class Author(Model):
    """An author by name."""

    name: str


class Organization(Model):
    """The organisation that a paper was listed under."""

    fullname: str


class Paper(Model):
    """A paper. ``publishedAt`` is its arXiv date."""

    id: str
    authors: list[Author]
    published_at: Moment | None = Field(description="the arXiv date")
    submitted_on_daily_at: Moment | None = Field(None, description="the moment of the listing")
    submitted_on_daily_by: User | None = None
    daily_date: date | None = Field(None, description="the day of the feed; a field of this site")
    title: str
    summary: str
    upvotes: int = Field(ge=0)
    source: str | None = None
    categories: list[str] = Field([], examples=[["cs.CL", "emnlp"]])
    project_page: str | None = None
    github_repo: str | None = None
    github_stars: int | None = Field(None, ge=0)
    organization: Organization | None = None


class ListedPaper(Model):
    """A paper in the feed or among results. ``publishedAt`` is the moment of its listing, ``paper.publishedAt`` its
    arXiv date."""

    paper: Paper
    published_at: Moment | None = Field(description="the moment of the listing")
    title: str
    summary: str
    num_comments: int = Field(ge=0)
    submitted_by: User | None
    organization: Organization | None = None


class SimilarPaper(ListedPaper):
    """A paper with its cosine to the one asked about."""

    similarity: float


class FlatPaper(Paper):
    """A paper that stands alone."""

    num_comments: int = Field(ge=0)


class PaperDetails(FlatPaper):
    """A paper with what is linked to it. This site keeps no models, data sets or Spaces: there are always none."""

    linked_models: list[dict[str, Any]]
    num_total_models: int
    linked_datasets: list[dict[str, Any]]
    num_total_datasets: int
    linked_spaces: list[dict[str, Any]]


class Problem(Model):
    """What went wrong, in one line."""

    error: str


ERRORS: dict[int | str, dict[str, Any]] = {
    304: {"description": "Unchanged since the ETag that If-None-Match names"},
    400: {"model": Problem, "description": "A parameter cannot be used"},
    401: {"model": Problem, "description": "The token does not work (any more), or none came where one is needed"},
    404: {"model": Problem, "description": "There is no such thing"},
    410: {"model": Problem, "description": "The paper was taken away"},
    405: {"model": Problem, "description": "A method that is not possible here"},
    429: {"model": Problem, "description": "Too many requests; Retry-After says when to come back"},
    503: {"model": Problem, "description": "The papers cannot be read at the moment"},
    "default": {"model": Problem, "description": "Any other error"},
}
"""What may come instead of an answer, for the specification."""


class FacetValue(Model):
    """``value`` goes into the parameter that the facet is named after."""

    value: str
    papers: int


class FacetCounts(Model):
    """How many results have which value, the most first (years: the latest first)."""

    facet: str = Field(examples=["org"])
    values: list[FacetValue]


def facet_counts(name: str, counts: Sequence[Count]) -> FacetCounts:
    """A facet as the interface tells it."""
    given = [FacetValue(value="1" if name == "code" else one.value, papers=one.papers) for one in counts]
    return FacetCounts(facet=name, values=given)


def listed(paper: records.Paper) -> ListedPaper:
    """``paper`` as it stands in a list of the feed or of results."""
    return ListedPaper(paper=Paper(**_inner(paper)), **_outer(paper))


def similar(paper: records.Paper, cosine: float) -> SimilarPaper:
    """``paper`` as a neighbour."""
    return SimilarPaper(paper=Paper(**_inner(paper)), **_outer(paper), similarity=round(cosine, 4))


def flat(paper: records.Paper) -> FlatPaper:
    """``paper`` as it stands in the list of all papers."""
    return FlatPaper(**_inner(paper), num_comments=paper.num_comments)


def details(paper: records.Paper) -> PaperDetails:
    """``paper`` as it stands alone."""
    return PaperDetails(
        **_inner(paper),
        num_comments=paper.num_comments,
        linked_models=[],
        num_total_models=0,
        linked_datasets=[],
        num_total_datasets=0,
        linked_spaces=[],
    )


def as_json(value: BaseModel | Sequence[BaseModel]) -> bytes:
    """UTF-8 JSON of what was set: fields that were never given a value are left out."""
    if isinstance(value, BaseModel):
        return value.model_dump_json(by_alias=True, exclude_unset=True).encode()
    return _LIST.dump_json(list(value), by_alias=True, exclude_unset=True)


_LIST: TypeAdapter[list[Any]] = TypeAdapter(list[Any])


def _inner(paper: records.Paper) -> dict[str, Any]:
    found = {
        "submitted_on_daily_at": paper.listed_at,
        "submitted_on_daily_by": _user(paper),
        "daily_date": paper.daily_date,
        "source": paper.source,
        "project_page": paper.project_page,
        "github_repo": paper.github_repo,
        "github_stars": paper.github_stars,
        "organization": _organization(paper),
        "categories": list(paper.categories) or None,
    }
    return {name: value for name, value in found.items() if value is not None} | {
        "id": paper.id,
        "authors": [Author(name=name) for name in paper.authors],
        "published_at": paper.published_at,
        "title": paper.title,
        "summary": paper.summary,
        "upvotes": paper.upvotes,
    }


def _outer(paper: records.Paper) -> dict[str, Any]:
    organization = _organization(paper)
    return {
        "published_at": paper.listed_at,
        "title": paper.title,
        "summary": paper.summary,
        "num_comments": paper.num_comments,
        "submitted_by": _user(paper),
    } | ({"organization": organization} if organization else {})


def _user(paper: records.Paper) -> User | None:
    return User(user=paper.submitted_by, name=paper.submitted_by) if paper.submitted_by else None


def _organization(paper: records.Paper) -> Organization | None:
    return Organization(fullname=paper.organization) if paper.organization else None
