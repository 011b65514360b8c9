"""Patients whose true state is known: what is recorded of them is noise around it.

    z_{v+1} = 0.9 R z_v + push[treatment_v] + noise           R a rotation of the four values in pairs, by 20 degrees
    codes   = from 60 signs, those that z makes likely, and as many from 60 that mean nothing
    event   = with probability sigmoid(3 (w z - 2.5)) at every visit; one treatment of three, or
              none, follows each visit

Legend: n patients, K = 4 values of a state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextvec.data.ehr import Patient, Visit

__all__ = ["Simulated", "simulate"]

WIDTH, SIGNS, TREATMENTS = 4, 60, 3


@dataclass(frozen=True, slots=True)
class Simulated:
    """patient: as a reader gives it; states: float64 [visits, K]; events: bool [visits]."""

    patient: Patient
    states: NDArray[np.float64]
    events: NDArray[np.bool_]


def simulate(rng: np.random.Generator, count: int, *, least: int = 12, most: int = 30) -> list[Simulated]:
    """``count`` patients with ``least`` to ``most`` visits. The world (which signs mean what, what a treatment does) is
    always the same."""
    world = np.random.default_rng(2601)
    turn = np.deg2rad(20.0)
    pair = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    rotation = 0.9 * np.kron(np.eye(WIDTH // 2), pair)
    meaning = world.normal(size=(SIGNS, WIDTH))
    push = 0.8 * world.normal(size=(TREATMENTS, WIDTH))
    danger = world.normal(size=WIDTH)
    danger /= np.linalg.norm(danger)
    made = []
    for number in range(count):
        visits, states, events = [], [], []
        z, time, given = rng.normal(size=WIDTH), 0.0, -1
        for _ in range(int(rng.integers(least, most + 1))):
            likely = np.exp(meaning @ z)
            signs = rng.choice(SIGNS, size=int(rng.integers(3, 6)), replace=False, p=likely / likely.sum())
            idle = rng.integers(0, SIGNS, size=int(rng.integers(2, 6)))
            event = bool(rng.random() < 1 / (1 + np.exp(-3 * (danger @ z - 2.5))))
            treatments = (f"rx:t{given}",) if given >= 0 else ()
            codes = [f"dx:s{i}" for i in np.sort(signs)] + [f"lx:n{i}" for i in np.unique(idle)]
            visits.append(Visit(time, (*codes, *(["dx:event"] if event else []), *treatments), treatments))
            states.append(z)
            events.append(event)
            # What is given at the next visit has worked by then: it stands in that visit's codes.
            given = int(rng.integers(-1, TREATMENTS))
            z = rotation @ z + (push[given] if given >= 0 else 0) + 0.3 * rng.normal(size=WIDTH)
            time += float(rng.integers(7, 120))
        made.append(Simulated(Patient(f"p{number}", tuple(visits)), np.array(states), np.array(events)))
    return made
