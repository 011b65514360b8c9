"""LIMIT: how many documents can vectors of a given width tell apart, when every pair of them is some query's answer?

Free embeddings: no encoder stands in the way, the vectors themselves are optimised. For n documents and all C(n, k)
queries, each of which wants another k-subset S of them,

    s_qj  = <u_q, v_j> / tau                                          unit queries u, unit documents v
    loss  = - 1/(Q k)  sum_q sum_{i in S_q} log softmax_j(s_q)_i      Adam; rows made unit again after every step
    solved: min_{i in S_q} <u_q, v_i>  >  max_{j not in S_q} <u_q, v_j>   for every q, checked in float64

``critical_n`` is the largest n solved at width d. It is a lower bound on what vectors of that width can hold, found by
one optimiser from one random start: more steps or another seed may find more, and ``limit_exact`` builds vectors of
width 2 k that solve every n. What the curve shows is what gradient descent finds at float32, not what exists. The loss
averages over positives: with a sum of the positives inside the logarithm, one of them suffices.

    C(n, k) <= (1 + 1/gamma)^d        where every subset is realised with margin 2 gamma        (``least_width``)

Source: Weller et al. 2025 (arXiv 2508.21038, v2), settings of its published code: tau 0.1, Adam at 0.01, at most
100,000 steps, stop when the loss has not improved by 1e-5 for 1,000 steps, check every 50. Differs: the gradient is
written out (the same to rounding, and twice as fast at these sizes), ties count as not solved, and sizes below the best
one found are not tried again.

    python -m nextvec.evaluate.limit --dims 2 3 4 5 --out FILE

Legend: n documents, k relevant per query, Q queries, d width, gamma half the margin.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nextvec.evaluate.intervals import t_interval
from nextvec.evaluate.limit_exact import all_subsets, margins, realised
from nextvec.extras import require
from nextvec.files import atomic_write
from nextvec.types import InputError, NextvecError, Progress

__all__ = [
    "PAPER",
    "Critical",
    "Cubic",
    "Free",
    "FreeSettings",
    "critical_n",
    "curve",
    "fit_cubic",
    "least_width",
    "optimise_free",
]

_PAPER_N = (
    *(10, 14, 19, 24, 28, 32, 36, 42, 47, 54, 62, 70, 79, 89, 99, 109, 120, 132, 144, 157, 170),
    *(184, 198, 213, 229, 245, 261, 278, 296, 314, 333, 352, 372, 392, 413, 434, 460, 484, 505, 545, 605, 626),
)
PAPER: dict[int, int] = dict(enumerate(_PAPER_N, 4))
"""The paper's critical n for k = 2 at widths 4 to 45 (its Table 6)."""


@dataclass(frozen=True, slots=True)
class FreeSettings:
    """tau, Adam's learning rate, the most steps, and when to give up: ``patience`` steps without the loss falling by
    ``tolerance``. ``check_every``: steps between looks whether all is solved."""

    temperature: float = 0.1
    learning_rate: float = 0.01
    max_steps: int = 100_000
    patience: int = 1000
    tolerance: float = 1e-5
    check_every: int = 50


@dataclass(frozen=True, slots=True)
class Free:
    """What one optimisation found: queries [Q, d] and documents [n, d], float32, unit rows; ``margin`` is the least
    over the queries (float64), ``share`` that of queries whose margin is positive."""

    queries: NDArray[np.float32]
    documents: NDArray[np.float32]
    solved: bool
    share: float
    margin: float
    loss: float
    steps: int


@dataclass(frozen=True, slots=True)
class Critical:
    """``n``: the largest size solved at width ``dim``; ``tried``: every size that was tried, with what came of it."""

    dim: int
    k: int
    seed: int
    n: int
    tried: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Cubic:
    """y = c0 + c1 d + c2 d^2 + c3 d^3, and the R^2 of the fit."""

    coefficients: tuple[float, float, float, float]
    r2: float

    def at(self, dim: float) -> float:
        """The polynomial at ``dim``; beyond the fitted widths an extrapolation, and nothing more than that."""
        return sum(c * dim**i for i, c in enumerate(self.coefficients))


def least_width(documents: int, k: int, margin: float) -> int:
    """The least width d that any embeddings need to realise all k-subsets with half-margin ``margin`` (gamma):
    ceil(ln C(n, k) / ln(1 + 1/gamma)) (Theorem of arXiv 2508.21038, v2)."""
    if not 1 <= k <= documents or not margin > 0:
        raise InputError(f"least_width of n={documents}, k={k}, margin={margin}; expected 1 <= k <= n, margin > 0")
    return math.ceil(math.log(math.comb(documents, k)) / math.log1p(1 / margin))


def optimise_free(
    relevant: ArrayLike, documents: int, dim: int, *, seed: int = 42, settings: FreeSettings | None = None
) -> Free:
    """Optimise queries and documents of width ``dim`` until each query's k relevant documents score above all others.

    relevant: int [Q, k], k < documents. The same seed gives the same result on the same machine and torch version.
    """
    torch = require("torch", why="optimising free embeddings")
    chosen = settings or FreeSettings()
    wanted = np.asarray(relevant, dtype=np.int64)
    if wanted.ndim != 2 or not len(wanted) or not 1 <= wanted.shape[1] < documents:
        raise InputError(
            f"relevant has shape {list(wanted.shape)}; expected [Q, k] with 1 <= k < {documents} documents"
        )
    if wanted.min() < 0 or wanted.max() >= documents:
        raise InputError(
            f"relevant names document {wanted.max() if wanted.min() >= 0 else wanted.min()} of {documents}"
        )
    if dim < 1 or min(chosen.max_steps, chosen.check_every, chosen.patience) < 1:
        raise InputError(f"dim is {dim}, settings {chosen}; all of width and steps must be at least 1")
    with torch.no_grad():
        found, loss, steps = _descend(torch, torch.from_numpy(wanted), documents, dim, seed, chosen)
    array = found.numpy()
    queries, kept = array[: len(wanted)], array[len(wanted) :]
    own = margins(queries, kept, wanted)
    return Free(queries, kept, bool((own > 0).all()), float((own > 0).mean()), float(own.min()), loss, steps)


def _descend(
    torch: Any, wanted: Any, documents: int, dim: int, seed: int, chosen: FreeSettings
) -> tuple[Any, float, int]:
    """Queries over documents in one tensor [Q + n, d], the last loss, and the steps taken."""
    count, k = wanted.shape
    both = torch.randn(count + documents, dim, generator=torch.Generator().manual_seed(seed))
    both /= torch.linalg.vector_norm(both, dim=1, keepdim=True)
    both.grad = torch.empty_like(both)
    target = torch.zeros(count, documents).scatter_(1, wanted, 1 / k)
    adam = torch.optim.Adam([both], lr=chosen.learning_rate, fused=True)
    queries, right = both[:count], both[count:]
    best, waited, loss = math.inf, 0, math.inf
    for step in range(chosen.max_steps + 1):
        scores = queries @ right.T
        if step % chosen.check_every == 0 and _all_right(scores, wanted):
            return both, loss, step
        # The gradient of the loss with respect to the scores is (softmax - target) / (Q tau).
        pull = torch.log_softmax(scores / chosen.temperature, dim=1)
        loss = -float((pull * target).sum()) / count
        best, waited = (loss, 0) if loss < best - chosen.tolerance else (best, waited + 1)
        if waited >= chosen.patience or step == chosen.max_steps:
            break
        pull.exp_().sub_(target).mul_(1 / (count * chosen.temperature))
        torch.mm(pull, right, out=both.grad[:count])
        torch.mm(pull.T, queries, out=both.grad[count:])
        adam.step()
        both /= torch.linalg.vector_norm(both, dim=1, keepdim=True)
    return both, loss, step


def _all_right(scores: Any, wanted: Any) -> bool:
    inner = scores.gather(1, wanted).amin(1)
    return bool((inner > scores.scatter(1, wanted, -math.inf).amax(1)).all())


def critical_n(
    dim: int,
    *,
    k: int = 2,
    seed: int = 42,
    settings: FreeSettings | None = None,
    sweep: int = 5,
    progress: Progress | None = None,
) -> Critical:
    """The largest n for which ``optimise_free`` solves all C(n, k) queries at width ``dim``.

    Searched as in the paper: upwards in doubling steps until a size fails, between the last solved and the failed one
    by halves, and then every size up to ``sweep`` above the largest solved, since a larger one may succeed by luck.
    The search begins at max(d, k) + 1: a simplex solves that many at any width, though descent may miss even it.
    """
    tried: dict[int, dict[str, Any]] = {}

    def solved(n: int) -> bool:
        if n <= k:
            return n == k
        if n not in tried:
            found = optimise_free(all_subsets(n, k), n, dim, seed=seed, settings=settings)
            tried[n] = {"n": n, "solved": found.solved, "steps": found.steps, "share": round(found.share, 5)}
            tried[n] |= {"loss": round(found.loss, 6), "margin": found.margin}
            if progress:
                progress(len(tried), None)
        return bool(tried[n]["solved"])

    low, stride = max(dim, k) + 1, 1
    if solved(low):
        while solved(low + stride):
            low, stride = low + stride, 2 * stride
        high = low + stride
    else:
        low, high = k, low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if solved(middle) else (low, middle)
    largest = max([low, *(n for n in range(low + 1, low + sweep + 1) if solved(n))])
    return Critical(dim, k, seed, largest, tuple(tried[n] for n in sorted(tried)))


def fit_cubic(dims: Sequence[float], sizes: Sequence[float]) -> Cubic:
    """Least-squares cubic of ``sizes`` over ``dims``; InputError for fewer than five widths, where R^2 says nothing."""
    if len(dims) != len(sizes) or len(set(dims)) < 5:
        raise InputError(
            f"{len(dims)} widths and {len(sizes)} sizes; a cubic needs five different widths, one size each"
        )
    x, y = np.asarray(dims, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    fitted = np.polynomial.Polynomial.fit(x, y, 3)
    spread = float(((y - y.mean()) ** 2).sum())
    r2 = 1 - float(((y - fitted(x)) ** 2).sum()) / spread if spread else 1.0
    c = [*fitted.convert().coef.tolist(), 0.0, 0.0, 0.0][:4]  # convert drops leading zeros
    return Cubic((c[0], c[1], c[2], c[3]), r2)


def curve(
    dims: Sequence[int],
    seeds: Sequence[int],
    *,
    k: int = 2,
    settings: FreeSettings | None = None,
    sweep: int = 5,
    extrapolate: Sequence[int] = (512, 768, 1024, 3072, 4096),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Critical n over widths and seeds, with t intervals over the seeds, the cubic and what it says at large widths.

    Widths below 2 k are left out of the fit: there the limit is real (n = d + 1 for k = 2, see ``limit_exact``), from
    2 k on it is the optimiser's. ``existence``: what ``limit_exact`` builds at width 2 k for 10, 50 and 200 documents
    (those with 20,000 subsets at most). For JSON; nothing in it depends on how fast the machine is.
    """
    if not dims or not seeds:
        raise InputError("a curve needs at least one width and one seed")
    rows, done = [], 0
    for dim in sorted(set(dims)):
        runs = []
        for seed in seeds:
            runs.append(critical_n(dim, k=k, seed=seed, settings=settings, sweep=sweep))
            done += 1
            if progress:
                progress(done, len(set(dims)) * len(seeds))
        spread = t_interval([run.n for run in runs])
        row: dict[str, Any] = {"dim": dim, "critical_n": {str(run.seed): run.n for run in runs}, "mean": spread.mean}
        row["interval"] = [spread.low, spread.high] if len(runs) > 1 else None
        row["paper"] = PAPER.get(dim) if k == 2 else None
        row["tried"] = {str(run.seed): list(run.tried) for run in runs}
        rows.append(row)
    fitted = [row for row in rows if row["dim"] >= 2 * k]
    fit = None
    if len(fitted) >= 5:
        cubic = fit_cubic([row["dim"] for row in fitted], [row["mean"] for row in fitted])
        fit = {"coefficients": list(cubic.coefficients), "r2": cubic.r2}
        fit["extrapolated"] = {str(dim): cubic.at(dim) for dim in extrapolate}
    return {
        "kind": "limit",
        "k": k,
        "seeds": list(seeds),
        "settings": asdict(settings or FreeSettings()) | {"sweep": sweep},
        "curve": rows,
        "fit": fit,
        "existence": [asdict(realised(n, k)) for n in (10, 50, 200) if k < n and math.comb(n, k) <= 20_000],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the curve and write it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dims", type=int, nargs="+", required=True, help="widths, for example 2 3 4 5")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42], help="one search for each (default 42)")
    parser.add_argument("--k", type=int, default=2, help="relevant documents per query (default 2)")
    parser.add_argument(
        "--max-steps", type=int, default=FreeSettings().max_steps, help="most steps of one optimisation"
    )
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    given = parser.parse_args(arguments)
    settings = FreeSettings(max_steps=given.max_steps)
    try:
        found = curve(given.dims, given.seeds, k=given.k, settings=settings, progress=_tell)
        _write(given.out, found)
    except NextvecError as error:
        raise SystemExit(f"error: {error}") from error
    for row in found["curve"]:
        print(f"width {row['dim']}: n {row['critical_n']}" + (f" (paper {row['paper']})" if row["paper"] else ""))


def _tell(done: int, total: int | None) -> None:
    print(f"{done} of {total} searches", file=sys.stderr)


def _write(path: Path, found: dict[str, Any]) -> None:
    with atomic_write(path, "w") as stream:
        json.dump(found, stream, indent=1)
        stream.write("\n")


if __name__ == "__main__":
    main()
