"""Distillation: a student learns what a teacher's vectors, or a teacher's scores, say.

    Distill              loss_i = 1 - cos(student_i, teacher_i)
    DistillVectors       loss_i = mean over D of (student_i - teacher_i)^2
    DistillSimilarities  loss_i = KL( softmax_j(c'_ij / t') || softmax_j(c_ij / t) )
    DistillScores        loss_i = mean over h of ( (s_i+ - s_ih) - (T_i+ - T_ih) )^2,   or of (s_ih - T_ih)^2

Source: regression of sentence vectors, Reimers and Gurevych 2020 (arXiv 2004.09813), with the cosine in place of the
squared error where only directions are compared later. Similarities: the contrastive distillation of KaLM-Embedding-V2
(arXiv 2506.20923), c and c' the cosines of query and candidate for student and teacher. Scores: Margin-MSE, Hofstaetter
et al. 2020 (arXiv 2010.02666); the plain squared error as in DSE (arXiv 1908.05161), where s are a student's logits.
Legend: B items, D width, E the teacher's width, K candidates, H hard negatives of a query.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional

from nextvec.objectives.base import Columns, Objective, Outputs, Scope
from nextvec.types import Column, InputError, Ragged, Term

__all__ = ["Distill", "DistillScores", "DistillSimilarities", "DistillVectors"]


class Distill(Objective):
    """Reads ``student`` [B, D] and ``teacher`` [B, D] (no gradient flows into it). Logs ``distill_cosine``."""

    scope: Scope = "example"

    def __init__(self, *, student: str = "student", teacher: str = "teacher") -> None:
        super().__init__()
        self.reads = (student, teacher)

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Self, dict[str, Tensor], dict[str, Column]]:
        random = torch.Generator().manual_seed(seed)
        student, teacher = (torch.randn(rows, 8, generator=random, dtype=torch.float64) for _ in range(2))
        return cls(), {"student": student.requires_grad_(), "teacher": teacher}, {}

    def forward(self, out: Outputs, batch: Columns) -> Term:
        student, teacher = (out[name] for name in self.reads)
        if student.shape != teacher.shape:
            raise InputError(
                f"{type(self).__name__} compares vectors of one shape; got {list(student.shape)} and "
                f"{list(teacher.shape)}: project the teacher first"
            )
        return self._term(student, teacher.detach())

    def _term(self, student: Tensor, teacher: Tensor) -> Term:
        cosine = functional.cosine_similarity(student, teacher, dim=-1)
        loss = (1 - cosine).sum()
        return Term(loss, float(len(student)), {"distill_cosine": float(cosine.detach().mean())})


class DistillVectors(Distill):
    """Reads ``student`` [B, D] and ``teacher`` [B, D] (no gradient flows into it), whose lengths count too: a student
    of another width is projected before. Logs ``distill_mse``."""

    def _term(self, student: Tensor, teacher: Tensor) -> Term:
        loss = (student - teacher).square().mean(dim=-1).sum()
        count = float(len(student))
        return Term(loss, count, {"distill_mse": float(loss.detach()) / max(count, 1.0)})


class DistillSimilarities(Objective):
    """Reads ``query`` and ``document`` [B, D] and the outputs [B, D] that ``negatives`` names; of each the teacher's
    vectors, float [B, E] of any width, whose name begins with ``prefix``. They are columns of the batch, made once and
    stored, or with ``live`` outputs of the method; no gradient flows into them. ``Matryoshka`` cuts outputs and leaves
    columns whole.

    The candidates of every query are all documents and all negatives: a likely right answer among them does no harm,
    since the teacher says so. Vectors are normalised here. ``teacher_temperature``: None for ``temperature``. The loss
    is not multiplied by a temperature. ``block``: the scores are made that many rows at a time, so that memory grows
    with B and not with B * K. Logs ``distill_kl`` and ``distill_agreement``: how often both have the same best one.
    """

    scope: Scope = "batch"

    def __init__(
        self,
        *,
        query: str = "query",
        document: str = "document",
        negatives: Sequence[str] = (),
        prefix: str = "teacher_",
        live: bool = False,
        temperature: float = 0.05,
        teacher_temperature: float | None = None,
        block: int = 4096,
    ) -> None:
        super().__init__()
        teacher_temperature = temperature if teacher_temperature is None else teacher_temperature
        if not (0 < temperature < math.inf and 0 < teacher_temperature < math.inf) or block < 1:
            raise InputError(
                f"temperatures are {temperature} and {teacher_temperature}, block is {block}; expected positive numbers"
            )
        if isinstance(negatives, str) or not prefix:
            raise InputError(
                f"negatives is {negatives!r} and prefix {prefix!r}; expected a sequence of names and a text"
            )
        self.names = (query, document, *negatives)
        self.teachers = tuple(prefix + name for name in self.names)
        self.reads = (*self.names, *self.teachers) if live else self.names
        self.columns = () if live else self.teachers
        self.temperature, self.teacher_temperature, self.block = temperature, teacher_temperature, block

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Self, dict[str, Tensor], dict[str, Column]]:
        random = torch.Generator().manual_seed(seed)
        objective = cls(negatives=("neg0",), temperature=0.3, teacher_temperature=0.2, block=3)
        out = {name: torch.randn(rows, 8, generator=random, dtype=torch.float64) for name in objective.names}
        known: dict[str, Column] = {
            name: torch.randn(rows, 5, generator=random, dtype=torch.float64) for name in objective.teachers
        }
        return objective, {name: x.requires_grad_() for name, x in out.items()}, known

    def forward(self, out: Outputs, batch: Columns) -> Term:
        query, *rest = (functional.normalize(out[name], dim=-1) for name in self.names)
        target, *known = (functional.normalize(x, dim=-1) for x in self._teacher(out, batch, len(query)))
        loss, agreed = _SoftmaxKL.apply(  # type: ignore[no-untyped-call]
            query / self.temperature,
            torch.cat(rest),
            target / self.teacher_temperature,
            torch.cat(known),
            self.block,
        )
        count = float(len(query))
        return Term(
            loss, count, {"distill_kl": float(loss.detach()) / count, "distill_agreement": float(agreed) / count}
        )

    def _teacher(self, out: Outputs, batch: Columns, rows: int) -> list[Tensor]:
        """The teacher's vectors of all that is read, [B, E] each."""
        found: list[Tensor] = []
        for own, name in zip(self.names, self.teachers, strict=True):
            vectors = batch.get(name) if self.columns else out[name]
            if vectors is None or isinstance(vectors, Ragged) or vectors.ndim != 2 or len(vectors) != rows:
                what = "none" if vectors is None else "ragged" if isinstance(vectors, Ragged) else list(vectors.shape)
                raise InputError(f"DistillSimilarities needs the teacher's {name!r}, {rows} vectors; got {what}")
            if len(out[own]) != rows:
                raise InputError(f"DistillSimilarities: {own!r} has {len(out[own])} rows for {rows} queries")
            found.append(vectors.detach().to(out[own]))
        return found


class _SoftmaxKL(torch.autograd.Function):
    """Sum over rows of KL(softmax(target_rows @ target_columns.T) || softmax(rows @ columns.T)), and how often both
    have their largest in the same place; the gradients are made in the same walk over blocks of rows."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, target_rows: Tensor, target_columns: Tensor, block: int
    ) -> tuple[Tensor, Tensor]:
        total, agreed = rows.new_zeros(()), rows.new_zeros(())
        d_rows, d_columns = torch.zeros_like(rows), torch.zeros_like(columns)
        for start in range(0, len(rows), block):
            own = rows[start : start + block]
            student = torch.log_softmax(own @ columns.T, dim=1)
            teacher = torch.log_softmax(target_rows[start : start + block] @ target_columns.T, dim=1)
            agreed += (student.argmax(1) == teacher.argmax(1)).sum()
            wanted = teacher.exp()
            total += (wanted * teacher.sub_(student)).sum()
            share = student.exp_().sub_(wanted)
            torch.mm(share, columns, out=d_rows[start : start + block])
            d_columns.addmm_(share.T, own)
        ctx.save_for_backward(d_rows, d_columns)
        ctx.mark_non_differentiable(agreed)
        return total, agreed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        d_rows, d_columns = ctx.saved_tensors
        return grads[0] * d_rows, grads[0] * d_columns, None, None, None


class DistillScores(Objective):
    """Reads ``query`` and ``document`` [B, D] and the outputs [B, D] that ``negatives`` names, row i a negative of
    query i. The column ``teacher_score`` (float [B, 1 + H]) has the teacher's scores, say a cross-encoder's: of the
    document first, then of the negatives in order; [B] will do where there are none.

    ``margin``: the student learns how far the document is before each negative (Margin-MSE); else every score itself.
    ``similarity``: "dot" or "cosine", multiplied by ``scale``, which brings cosines to the teacher's size. Logs
    ``margin_mse`` or ``score_mse``.
    """

    scope: Scope = "example"
    columns = ("teacher_score",)

    def __init__(
        self,
        *,
        query: str = "query",
        document: str = "document",
        negatives: Sequence[str] = ("neg0",),
        margin: bool = True,
        similarity: Literal["dot", "cosine"] = "dot",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if isinstance(negatives, str) or (margin and not negatives):
            raise InputError(f"negatives is {negatives!r}; expected names, such as ('neg0',), one at least for margins")
        if similarity not in ("dot", "cosine") or not 0 < scale < math.inf:
            raise InputError(f"similarity is {similarity!r} and scale {scale}; expected 'dot' or 'cosine', and above 0")
        self.reads = (query, document, *negatives)
        self.margin, self.similarity, self.scale = margin, similarity, scale

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Self, dict[str, Tensor], dict[str, Column]]:
        random = torch.Generator().manual_seed(seed)
        objective = cls(negatives=("neg0", "neg1"))
        out = {name: torch.randn(rows, 8, generator=random, dtype=torch.float64) for name in objective.reads}
        score = torch.randn(rows, 3, generator=random, dtype=torch.float64)
        return objective, {name: x.requires_grad_() for name, x in out.items()}, {"teacher_score": score}

    def count(self, batch: Columns) -> float | None:
        score = batch.get("teacher_score")
        return None if score is None else float(len(score))

    def forward(self, out: Outputs, batch: Columns) -> Term:
        query, *texts = (out[name] for name in self.reads)
        if any(rows.shape != query.shape for rows in texts) or query.ndim != 2:
            found = ", ".join(str(list(out[name].shape)) for name in self.reads)
            raise InputError(
                f"DistillScores needs outputs [B, D] of one shape for {', '.join(self.reads)}; got {found}"
            )
        known = self._known(batch, query, len(texts))
        stacked = torch.stack(texts, dim=1)
        if self.similarity == "cosine":
            query, stacked = (functional.normalize(rows, dim=-1) for rows in (query, stacked))
        scores = self.scale * torch.einsum("bd,bhd->bh", query, stacked)
        if self.margin:
            scores, known = (rows[:, :1] - rows[:, 1:] for rows in (scores, known))
        loss = (scores - known).square().mean(dim=1).sum()
        count = len(query)
        name = "margin_mse" if self.margin else "score_mse"
        return Term(loss, float(count), {name: float(loss.detach()) / max(count, 1)})

    def _known(self, batch: Columns, query: Tensor, texts: int) -> Tensor:
        """The teacher's scores [B, 1 + H], in the queries' precision."""
        score = batch.get("teacher_score")
        wanted = [(len(query), texts), (len(query),)][: 2 if texts == 1 else 1]
        if isinstance(score, Ragged) or score is None or score.shape not in wanted:
            found = "none" if score is None else "ragged" if isinstance(score, Ragged) else str(list(score.shape))
            raise InputError(
                f"DistillScores needs a column 'teacher_score' [{len(query)}, {texts}]: the teacher's scores of "
                f"{', '.join(self.reads[1:])}; got {found}"
            )
        return score.reshape(len(query), texts).to(query)
