"""The claim of SMB-Structure on made patients whose true states are known (``data/synthetic/patients.py``).

tokens        codes alone
joint         codes and later states together
curriculum    codes first, then later states alone
untold        as joint, without being told what is done next (control)
untrained     random weights (control)

event_K     area under the ROC curve of a linear map from a visit's state: will the event be recorded within the next
            K visits? The very next is left out of the question (the leakage buffer): what it holds may be known
state       R^2 of a linear map to the true state
survival    concordance of a Cox model from the state at the 6th visit, on the days until the event is next recorded
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.data.synthetic.patients import Simulated, simulate
from nextvec.evaluate.probes import fit_ridge, held_out_r2
from nextvec.evaluate.sts import average_ranks
from nextvec.evaluate.survival import concordance, fit_cox
from nextvec.language_claims import LanguageScale, train
from nextvec.methods.smb_structure import SmbStructure
from nextvec.text_claims import scale_named
from nextvec.types import Check, Claim, InputError, Run

ARMS = ("tokens", "joint", "curriculum", "untold", "untrained")
WITHIN = (2, 5, 10)
_INDEX = 5  # the visit whose state the survival model reads


@dataclass(frozen=True, kw_only=True)
class Scale(LanguageScale):
    """count: patients to learn from; tests: to measure on, and as many to fit probes to; least, most: visits."""

    count: int = 40
    tests: int = 40
    least: int = 12
    most: int = 14


_CPU = Scale(
    count=4000,
    tests=2000,
    least=16,
    most=30,
    length=448,
    dim=96,
    layers=3,
    heads=3,
    steps=1000,
    batch=16,
    lr=1e-3,
)
SCALES = {
    "smoke": replace(Scale(), length=192),
    "cpu": _CPU,
    "gpu": replace(
        _CPU, count=20_000, tests=4000, dim=256, layers=6, heads=8, steps=20_000, batch=128,
        device="auto",
    ),
}  # fmt: skip


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    scale = scale_named(SCALES, name)
    return Claim(
        statement="States that must foretell later states tell more of what will happen than states that foretell codes"
        " alone, the more so the further ahead, and more of the true state; codes first is the better order. The"
        " paper's figures are means over many tasks (1.7B).",
        arms={arm: partial(_arm, arm=arm, scale=scale) for arm in ARMS},
        checks=(
            Check(
                says="within ten visits joint is better than codes", better="joint.event_10", worse="tokens.event_10"
            ),
            Check(says="the gain grows with the horizon", better="joint.far", worse="tokens.far"),
            Check(says="the true state is read better", better="joint.state", worse="tokens.state"),
            Check(says="codes first is better than together", better="curriculum.event_10", worse="joint.event_10"),
            Check(says="it helps to be told what is done (control)", better="joint.state", worse="untold.state"),
            Check(says="codes teach something at all (control)", better="tokens.state", worse="untrained.state"),
        ),
        paper={"joint.event_10": 72.7, "tokens.event_10": 71.5},
        config=asdict(scale),
    )


def _arm(run: Run, *, arm: str, scale: Scale) -> Mapping[str, float]:
    made = simulate(np.random.default_rng([run.seed, 0]), scale.count, least=scale.least, most=scale.most)
    patients = [one.patient for one in made]
    shape = scale.shape()
    weights: dict[str, Any] = {"tokens": 1.0, "latent": 0.0 if arm in ("tokens", "curriculum") else 1.0}
    config = SmbStructure.Config(**shape, **weights, action=arm != "untold")
    method = SmbStructure.start(patients, config, seed=run.seed)
    if arm != "untrained":
        half = replace(scale, steps=scale.steps // 2) if arm == "curriculum" else scale
        train(method, method.source(patients, batch=scale.batch, seed=run.seed), half, run, name="codes")
    if arm == "curriculum":
        method.save(run.folder / "begun")
        config = SmbStructure.Config(**shape, tokens=0.0, latent=1.0, start_from=str(run.folder / "begun"))
        method = SmbStructure.start(patients, config, seed=run.seed)
        train(method, method.source(patients, batch=scale.batch, seed=run.seed + 1), half, run, name="states")
    method.eval()
    held = simulate(np.random.default_rng([run.seed, 1]), 2 * scale.tests, least=scale.least, most=scale.most)
    states = [one.numpy() for one in method.visit_states([one.patient for one in held])]
    measures = {f"event_{k}": _event(states, held, k, scale.tests) for k in WITHIN}
    measures["far"] = measures["event_10"] - measures["event_2"]
    measures["state"] = _true_state(states, held, scale.tests)
    measures["survival"] = _survival(states, held, scale.tests)
    return measures


def _kept(states: NDArray[np.float32], one: Simulated) -> int:
    """How many visits were cut off at the beginning."""
    return len(one.states) - len(states)


def _event(states: Sequence[NDArray[np.float32]], held: Sequence[Simulated], within: int, split: int) -> float:
    """Area under the curve, in percent, on the second half of the patients; every third visit is asked."""
    sides: list[tuple[list[NDArray[np.float32]], list[float]]] = [([], []), ([], [])]
    for i, (own, one) in enumerate(zip(states, held, strict=True)):
        skipped = _kept(own, one)
        for v in range(2, len(own), 3):
            after = one.events[skipped + v + 2 : skipped + v + 1 + within]
            if skipped + v + 1 + within <= len(one.events):
                sides[i >= split][0].append(own[v])
                sides[i >= split][1].append(float(after.any()))
    (x, y), (x_test, y_test) = ((np.array(vectors), np.array(labels)) for vectors, labels in sides)
    if len(set(y.tolist())) < 2 or len(set(y_test.tolist())) < 2:
        raise InputError(f"within {within} visits the event happens to all or to none: measure on more patients")
    # A linear map by least squares orders as well as the logistic one does, and in a fraction of the time.
    score = fit_ridge(x, y, alpha=1e-2).predict(x_test)[:, 0]
    positive = y_test > 0
    count = int(positive.sum())
    above = average_ranks(score)[positive].sum() - count * (count + 1) / 2
    return 100 * float(above / (count * (len(y_test) - count)))


def _true_state(states: Sequence[NDArray[np.float32]], held: Sequence[Simulated], split: int) -> float:
    sides = []
    for part in (slice(None, split), slice(split, None)):
        x = np.concatenate(list(states[part]))
        y = np.concatenate([one.states[_kept(own, one) :] for own, one in zip(states[part], held[part], strict=True)])
        sides.append((x, y))
    return held_out_r2(sides[0], sides[1], alpha=1e-2)


def _survival(states: Sequence[NDArray[np.float32]], held: Sequence[Simulated], split: int) -> float:
    rows = []
    for own, one in zip(states, held, strict=True):
        skipped, visits = _kept(own, one), one.patient.visits
        index = max(_INDEX, skipped)
        later = np.flatnonzero(one.events[index + 2 :])  # the next visit is the buffer
        end = index + 2 + int(later[0]) if len(later) else len(visits) - 1
        rows.append((own[index - skipped], visits[end].time - visits[index].time, bool(len(later))))
    x, time, event = (np.array(column) for column in zip(*rows, strict=True))
    probe = fit_cox(x[:split], time[:split], event[:split])
    return concordance(time[split:], event[split:], probe.risk(x[split:]))
