"""Distillation: the student's vector points where the teacher's does.

    loss_i = 1 - cos(student_i, teacher_i)

Source: regression of sentence vectors as in Reimers and Gurevych 2020 (arXiv 2004.09813), with the cosine in place of
the squared error because only directions are compared later. Legend: B items, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nextvec.objectives.base import Columns, Objective, Outputs, Scope
from nextvec.types import Column, InputError, Term

__all__ = ["Distill"]


class Distill(Objective):
    """Reads ``student`` [B, D] and ``teacher`` [B, D] (no gradient flows into it). Logs ``distill_cosine``."""

    scope: Scope = "example"

    def __init__(self, *, student: str = "student", teacher: str = "teacher") -> None:
        super().__init__()
        self.reads = (student, teacher)

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Distill, dict[str, Tensor], dict[str, Column]]:
        random = torch.Generator().manual_seed(seed)
        student, teacher = (torch.randn(rows, 8, generator=random, dtype=torch.float64) for _ in range(2))
        return cls(), {"student": student.requires_grad_(), "teacher": teacher}, {}

    def forward(self, out: Outputs, batch: Columns) -> Term:
        student, teacher = (out[name] for name in self.reads)
        if student.shape != teacher.shape:
            raise InputError(
                f"Distill compares vectors of one shape; got {list(student.shape)} and {list(teacher.shape)}: "
                "project the teacher first"
            )
        cosine = functional.cosine_similarity(student, teacher.detach(), dim=-1)
        loss = (1 - cosine).sum()
        return Term(loss, float(len(student)), {"distill_cosine": float(cosine.detach().mean())})
