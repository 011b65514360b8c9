"""The catalogue of tasks by name, and what a list of names, groups and folders stands for.

Groups are the kinds of tasks: "sts" (sentences), "words", "pairs" (belong together or not), "classification",
"clustering" and "retrieval"; "all" is all of them. A folder in BEIR's layout is a task too. Licences are those of the
data sets, which ``nextvec data list`` shows: results may be published, most of the data may not.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nextvec.data import labelled, paraphrases, relevance, sts, titles, wordsim
from nextvec.evaluate.task_kinds import (
    RETRIEVAL_MEASURES,
    ClassTask,
    ClusterTask,
    Encode,
    FolderTask,
    PairTask,
    Ranker,
    RetrievalTask,
    ScoreTask,
    Task,
)
from nextvec.types import InputError, NotFoundError, did_you_mean

__all__ = ["GROUPS", "Chosen", "Encode", "Ranker", "Task", "choose", "task", "tasks"]

GROUPS = ("sts", "words", "pairs", "classification", "clustering", "retrieval")
_ALL = "all"


@functools.cache
def tasks() -> dict[str, Task]:
    """All named tasks, in the order of ``GROUPS``."""
    return {one.name: one for one in (*_sentences(), *_words(), *_pairs(), *_classes(), *_clusters(), *_retrieval())}


def task(name: str) -> Task:
    """The task called ``name``; NotFoundError, with the closest name, where there is none."""
    known = tasks()
    if name not in known:
        hint = did_you_mean(name, [*known, *GROUPS, _ALL])
        raise NotFoundError(
            f"no task or group {name!r}: expected a task ('nextvec evaluate --list' shows them), one of "
            f"{', '.join((*GROUPS, _ALL))}, or a folder with corpus.jsonl, queries.jsonl and qrels/{hint}"
        )
    return known[name]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The tasks to run, each once, and why others of the groups named cannot run here, by name."""

    tasks: list[Task]
    left_out: dict[str, str]


def choose(names: Sequence[str]) -> Chosen:
    """The tasks that ``names`` stand for: names of tasks, groups, and folders in BEIR's layout.

    A task of a group that cannot run here (its data or a package are absent) is left out; one that was named is not:
    NotFoundError or MissingExtraError, with what to do. NotFoundError also for an unknown name and where nothing is
    left, InputError for no name at all.
    """
    found: dict[str, Task] = {}
    left_out: dict[str, str] = {}
    for name in names:
        if name in (*GROUPS, _ALL):
            members = [one for one in tasks().values() if name in (one.kind, _ALL)]
            left_out |= {one.name: reason for one in members if (reason := one.missing()) is not None}
            found |= {one.slug: one for one in members if one.missing() is None}
        else:
            one = _folder(name) if name not in tasks() and _is_path(name) else task(name)
            one.require()
            found[one.slug] = one
    if not names:
        raise InputError(f"no task is named: name tasks, groups ({', '.join((*GROUPS, _ALL))}) or folders")
    if not found:
        reasons = "; ".join(sorted(set(left_out.values())))
        raise NotFoundError(f"no task of {', '.join(names)} can run here: {reasons} ('nextvec data list' shows more)")
    return Chosen(list(found.values()), left_out)


def _is_path(name: str) -> bool:
    return "/" in name or name in (".", "..") or name.startswith("~") or Path(name).is_dir()


def _folder(name: str) -> FolderTask:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise NotFoundError(f"no folder {name!r}: expected one with corpus.jsonl, queries.jsonl and qrels/")
    if not relevance.is_beir(folder):
        raise NotFoundError(f"{name!r} is no BEIR folder: expected corpus.jsonl, queries.jsonl and qrels/ in it")
    return FolderTask(folder)


def _sentences() -> list[Task]:
    def year(number: int) -> ScoreTask:
        return ScoreTask(
            name=f"sts{number - 2000}",
            kind="sts",
            title=f"SemEval STS {number}, all parts together",
            sets=("sts",),
            read=lambda folder: sts.sts_year(number, folder=folder),
        )

    benchmark = ScoreTask(
        name="stsb",
        kind="sts",
        title="STS Benchmark, test",
        sets=("sts",),
        read=lambda folder: sts.sts_benchmark("test", folder=folder),
    )
    relatedness = ScoreTask(
        name="sick",
        kind="sts",
        title="SICK relatedness, test",
        sets=("sts_tsv",),
        read=lambda folder: sts.sick("test", folder=folder),
    )
    return [benchmark, *map(year, sts.YEARS), relatedness]


def _words() -> list[Task]:
    def one(name: str, title: str) -> ScoreTask:
        return ScoreTask(
            name=name,
            kind="words",
            title=title,
            sets=("wordsim",),
            read=lambda folder: wordsim.word_similarity(name, folder=folder),
        )

    return [one(name, title) for name, (_, title) in wordsim.WORD_SETS.items()]


def _pairs() -> list[Task]:
    return [
        PairTask(
            name="mrpc",
            kind="pairs",
            title="MRPC: is one sentence a paraphrase of the other?",
            sets=("mrpc",),
            read=lambda folder: paraphrases.mrpc("test", folder=folder),
        )
    ]


def _classes() -> list[Task]:
    made = (
        ("trec", "TREC: what does the question ask for, of six", "sentcls_harvardnlp", labelled.trec),
        ("subj", "Subj: subjective or objective", "sentcls_harvardnlp", labelled.subjectivity),
        ("mr", "MR: film reviews, for or against", "sentcls_harvardnlp", labelled.movie_reviews),
        ("arxiv-category", "arXiv papers: the primary category, of eight", "arxiv_daily", labelled.arxiv_categories),
    )
    return [
        ClassTask(
            name=name,
            kind="classification",
            title=title,
            sets=(data,),
            read=lambda folder, read=read: read(folder=folder),  # type: ignore[misc]
        )
        for name, title, data, read in made
    ]


def _clusters() -> list[Task]:
    made = (
        ("trec-clusters", "TREC's test questions in six clusters", "sentcls_harvardnlp", labelled.trec),
        ("arxiv-clusters", "1,000 arXiv papers in eight clusters", "arxiv_daily", labelled.arxiv_categories),
    )
    return [
        ClusterTask(
            name=name,
            kind="clustering",
            title=title,
            sets=(data,),
            read=lambda folder, read=read: read(folder=folder),  # type: ignore[misc]
        )
        for name, title, data, read in made
    ]


def _retrieval() -> list[Task]:
    return [
        RetrievalTask(
            name="cranfield",
            title="Cranfield: 225 questions on aerodynamics, 1,400 abstracts",
            sets=("cranfield",),
            read=lambda folder: relevance.cranfield(folder=folder),
        ),
        RetrievalTask(
            name="limit-small",
            title="LIMIT-small: 1,000 questions who likes what, 46 people, two answers each",
            main="recall@2",
            measures=("recall@2", *RETRIEVAL_MEASURES),
            sets=("limit",),
            read=lambda folder: relevance.limit_small(folder=folder),
        ),
        RetrievalTask(
            name="daily-titles",
            title="titles of Daily Papers look for their abstracts among 9,874",
            sets=("daily_papers",),
            read=lambda folder: titles.daily_titles(),
        ),
        RetrievalTask(
            name="arxiv-titles",
            title="titles of arXiv papers look for their abstracts among 5,000",
            sets=("arxiv_daily",),
            read=lambda folder: titles.arxiv_titles(folder=folder),
        ),
        RetrievalTask(
            name="acl-titles",
            title="titles of the ACL Anthology look for their abstracts among 2,000",
            sets=("acl_anthology_2025",),
            read=lambda folder: titles.acl_titles(folder=folder),
        ),
    ]
