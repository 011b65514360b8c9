"""A claim from end to end: arms x seeds in processes that resume, statistics, verdict, one JSON file and a plot."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from filelock import FileLock, Timeout

from nextvec import __version__, catalog
from nextvec.claims.facts import commit, hardware, versions
from nextvec.claims.jobs import Job, digest, slug, work_folder
from nextvec.claims.pool import FailedRunError, Note, default_parallel, run_jobs
from nextvec.claims.results import KIND, SCHEMA, Scale, read_result
from nextvec.claims.verdict import check, overall, rank_tests, split, summary
from nextvec.files import atomic_write, storage_error
from nextvec.types import Card, Claim, ConflictError, InputError, MissingExtraError, Progress, did_you_mean

__all__ = ["METHODS", "reproduce"]

METHODS = "nextvec.methods"


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What was asked for, checked."""

    package: str
    method: str
    scale: str
    seeds: int
    out: Path
    key: str
    card: Card
    claim: Claim
    asked: tuple[str, ...]

    def job(self, arm: str, seed: int) -> Job:
        work = work_folder(self.out, self.method, self.scale, self.key)
        made = {"package": self.package, "method": self.method, "scale": self.scale, "key": self.key}
        return Job(arm=arm, seed=seed, work=work, **made)

    def jobs(self) -> list[Job]:
        # Seed by seed: after an interruption whole comparisons are there, not one arm of all seeds.
        return [self.job(arm, seed) for seed in range(self.seeds) for arm in self.asked]

    def command(self) -> str:
        words = ["nextvec", "reproduce", self.method, "--scale", self.scale, "--seeds", str(self.seeds)]
        words += [] if self.package == METHODS else ["--package", self.package]
        # Relative where it can be: the result may be read on another machine.
        here, out = Path.cwd(), self.out.resolve()
        shown = out.relative_to(here).as_posix() if out.is_relative_to(here) else str(self.out)
        return shlex.join([*words, "--out", shown])


def reproduce(
    name: str,
    *,
    scale: Scale = "cpu",
    seeds: int = 3,
    out: str | Path = "claims",
    jobs: int | None = None,
    arms: Sequence[str] | None = None,
    fresh: bool = False,
    package: str = METHODS,
    progress: Progress | None = None,
    note: Note | None = None,
) -> dict[str, Any]:
    """Run the claim of the method ``name`` and return its result, which is also written to ``out/name.json``.

    scale: "smoke" (seconds), "cpu", "gpu". seeds: 0 to seeds - 1. jobs: runs at a time (default: one per core, at gpu
    scale one per GPU). arms: only these (checks on others stay inconclusive unless they were run before). Finished runs
    of the same method, version, scale, arm and seed are kept in ``out/name.runs`` and not run again; ``fresh`` forgets
    them. Raises FailedRunError where a run failed (the others are kept), ConflictError where ``out`` is in use or holds
    the result of another scale, InputError for what cannot be run.
    """
    note = note or (lambda message: None)
    plan = _plan(name, scale=scale, seeds=seeds, out=Path(out), arms=arms, package=package)
    if jobs is not None and jobs < 1:
        raise InputError(f"{jobs} jobs at a time: at least 1 is needed")
    began = time.perf_counter()
    with _alone(plan):
        if fresh:
            _forget(plan)
        parallel = jobs or default_parallel(scale)
        _run(plan, parallel=parallel, progress=progress or (lambda done, total: None), note=note)
        document = _document(plan) | {"wall_seconds": round(time.perf_counter() - began, 3)}
        document["plot"] = _draw(document, plan, note)
        _write(document, plan.out / f"{name}.json")
    return document


def _plan(name: str, *, scale: str, seeds: int, out: Path, arms: Sequence[str] | None, package: str) -> _Plan:
    if scale not in get_args(Scale):
        raise InputError(f"scale is {scale!r}; expected one of {', '.join(get_args(Scale))}")
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise InputError(f"seeds is {seeds!r}; expected how many, 1 or more")
    method = catalog.find(package, name)
    claim: Claim = method.claim(scale)
    _check_claim(claim, name)
    known = list(claim.arms)
    for arm in arms or ():
        if arm not in known:
            raise InputError(f"{name} has no arm {arm!r}; it has {', '.join(known)}{did_you_mean(arm, known)}")
    if arms is not None and not arms:
        raise InputError(f"no arm was named; {name} has {', '.join(known)}")
    path = out / f"{name}.json"
    before = read_result(path)
    if before and before["scale"] != scale:
        raise ConflictError(f"{str(path)!r} holds the result at {before['scale']} scale: choose another --out")
    return _Plan(
        package=package,
        method=name,
        scale=scale,
        seeds=seeds,
        out=out,
        key=digest(method, version=__version__),
        card=method.card,
        claim=claim,
        asked=tuple(arm for arm in known if arms is None or arm in arms),
    )


def _check_claim(claim: Claim, name: str) -> None:
    """InputError for a claim that could not be judged, before anything costs time."""
    if not claim.arms or not claim.checks:
        raise InputError(f"the claim of {name} needs arms and checks; it has {len(claim.arms)} and {len(claim.checks)}")
    if len({slug(arm) for arm in claim.arms}) < len(claim.arms) or not all(claim.arms):
        raise InputError(f"the arms of {name} ({', '.join(claim.arms)}) need names that differ in letters and digits")
    for one in claim.checks:
        for side in (one.better, one.worse):
            if isinstance(side, str):
                split(side, claim.arms)
        if not isinstance(one.worse, str) and not math.isfinite(one.worse):
            raise InputError(f"the check {one.says!r} of {name} compares with {one.worse}")
    for reference in claim.paper:
        split(reference, claim.arms)


def _alone(plan: _Plan) -> Any:
    """A lock on the runs of this method in ``out``."""
    folder = plan.out / f"{plan.method}.runs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise ConflictError(f"{str(folder)!r} is in use by another run of {plan.method}: wait for its end") from error
    except OSError as error:
        raise storage_error(error, folder) from error


def _forget(plan: _Plan) -> None:
    for job in [*plan.jobs(), plan.job("", 0)]:
        job.result.unlink(missing_ok=True)
        shutil.rmtree(job.folder, ignore_errors=True)


def _run(plan: _Plan, *, parallel: int, progress: Progress, note: Note) -> None:
    """All runs that are not finished yet; FailedRunError, after the others, where one failed."""
    jobs = plan.jobs()
    left = [job for job in jobs if job.finished() is None]
    done = len(jobs) - len(left)
    note(
        f"{plan.method}, {plan.scale} scale: {len(plan.asked)} arms x {plan.seeds} seeds = {len(jobs)} runs"
        f"{f', {done} finished before' if done else ''}; {min(parallel, max(1, len(left)))} at a time"
    )
    failures: list[str] = []
    shared = plan.job("", 0)
    if left and plan.claim.prepare is None:
        shared.folder.mkdir(parents=True, exist_ok=True)
    elif left and shared.finished() is None:
        note("preparing what all arms share")
        failures = run_jobs([shared], parallel=1, progress=lambda done, total: None, note=note)
    if not failures:
        failures = run_jobs(left, parallel=parallel, progress=progress, note=note, base=done)
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise FailedRunError(f"{plan.method}: {failures[0]}{more}; finished runs are kept, run it again to go on")


def _document(plan: _Plan) -> dict[str, Any]:
    """The result, from all finished runs of the claim's arms and the seeds asked for."""
    claim, kept = plan.claim, {}
    for arm in claim.arms:
        found = {seed: plan.job(arm, seed).finished() for seed in range(plan.seeds)}
        kept[arm] = {seed: run for seed, run in found.items() if run is not None}
    runs = {arm: {seed: run["measures"] for seed, run in own.items()} for arm, own in kept.items() if own}
    checks = [check(one, runs, claim.arms) for one in claim.checks]
    checks = [one | tests for one, tests in zip(checks, rank_tests(checks), strict=True)]
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "method": plan.method,
        "card": dataclasses.asdict(plan.card),
        "statement": claim.statement,
        "scale": plan.scale,
        "seeds": list(range(plan.seeds)),
        "verdict": overall([one["verdict"] for one in checks]),
        "checks": checks,
        "arms": {arm: _arm(arm, list(kept[arm].values()), runs.get(arm, {}), claim) for arm in claim.arms},
        "curves": list(claim.curves),
        "config": dict(claim.config),
        "command": plan.command(),
        "key": plan.key,
        "commit": commit(),
        "hardware": hardware(),
        "versions": versions(),
        "run_seconds": round(sum(run["seconds"] for own in kept.values() for run in own.values()), 3),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _arm(arm: str, runs: list[dict[str, Any]], measures: dict[int, dict[str, float]], claim: Claim) -> dict[str, Any]:
    kept = ("seed", "measures", "seconds", "finished", "threads", "commit")
    paper = {
        split(name, claim.arms)[1]: value for name, value in claim.paper.items() if split(name, claim.arms)[0] == arm
    }
    return {
        "runs": [{name: run[name] for name in kept} for run in runs],
        "measures": summary(measures),
        "paper": paper,
    }


def _draw(document: dict[str, Any], plan: _Plan, note: Note) -> str | None:
    """The name of the plot's file, or None (with a note) where matplotlib is absent."""
    from nextvec.claims.plot import draw

    path = plan.out / f"{plan.method}.png"
    try:
        draw(document, path)
    except MissingExtraError as error:
        note(f"no plot: {error}")
        return None
    return path.name


def _write(document: dict[str, Any], path: Path) -> None:
    try:
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"the config of the claim cannot be written as JSON: {error}") from error
    with atomic_write(path, "w") as stream:
        stream.write(text + "\n")
