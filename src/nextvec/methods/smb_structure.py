"""SMB-Structure: a patient is not a document. Codes are foretold, and so is the patient's later state.

A record is read as codes, visit by visit. A causal transformer foretells the next code; at the end of every visit its
state is also asked what state the patient will be in some visits later, given what is done next. That later state is
the one of a slowly moving copy of the transformer, which has read the record up to then.

    h_v   = state at the end of visit v
    a_v   = mean embedding of the treatments of visit v + 1                    what is done next (0: nothing)
    p_v,k = predictor([h_v ; a_v ; horizon k])                                 k visits later
    L     = w_t CE(next code)  +  w_s mean over v, k of  d(p_v,k, h'_{v+k})     h': the copy, moved after every step
    copy <- decay * copy + (1 - decay) * transformer

Regimes: both together ("joint": both weights above 0), or codes first and states afterwards (two runs: ``tokens`` and
``latent`` say with which weights; ``start_from``).

    symbol   here                                     shape
    codes    batch "text"                             Ragged int64 [N], each visit with its gap and its end
    h        out "states"                             [R, D], visits of all patients end to end
    h'       out "target"                             [R, D]
    p        out "pred_k"                             [R_k, D]
    visits   batch "visits"                           Ragged int64 [R], only its lengths are used

Source: "The Patient is not a Moving Document", arXiv 2601.22128. Differences and own choices: see
``SmbStructure.card``. Legend: N codes end to end, R visits (R_k with k visits after them), D width, V codes of the
vocabulary.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from nextvec.data.ehr import Patient, read_ehr
from nextvec.data.sources import Shuffled, Source, ragged
from nextvec.data.synthetic.patients import simulate
from nextvec.engine import ema
from nextvec.language_method import LanguageConfig, LanguageMethod
from nextvec.objectives.base import Objective
from nextvec.objectives.next_embedding import NextEmbedding, foretelling
from nextvec.objectives.next_token import NextToken, predicted, text_of
from nextvec.types import Batch, Card, Claim, InputError, Ragged

GAPS = (0.5, 7.0, 30.0, 90.0, 365.0)
"""Days since the visit before, as tokens: less than half a day, a week, a month, a quarter, a year, more."""
SPECIAL = ("<unknown>", "<end>", *(f"<gap {i}>" for i in range(len(GAPS) + 1)))
UNKNOWN, END = 0, 1


class SmbStructure(LanguageMethod):
    """A language model of patient records that foretells states."""

    card = Card(
        name="smb_structure",
        title="SMB-Structure: the patient is not a moving document",
        arxiv="2601.22128",
        year=2026,
        family="next-embedding prediction",
        claim="Foretelling the patient's later state in latent space beside the next code gives states from which"
        " events are read better, the more so the further ahead; codes first and states afterwards is better still.",
        differs=(
            "Loss, its weight, the decay and the predictor are not known to us: cosine distance, weight 1, 0.99, and"
            " an MLP of two layers that is told the horizon.",
            "A record is codes from a vocabulary that is learned, with gaps in time as tokens; the paper's are texts"
            " that a pretrained language model reads.",
            "Small models from random weights.",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = ("optim.lr=1e-3", "optim.weight_decay=0.01", "batch=16")
    sample: ClassVar[str] = "patients"
    direction: ClassVar[Mapping[str, str]] = {"next_token": "down", "next_embedding": "down"}

    @dataclass(kw_only=True)
    class Config(LanguageConfig):
        """tokens, latent: weights of the next code and of later states (0: without). ahead: k, visits; action: whether
        the predictor is told what is done next; decay: of the copy; start_from: a run that goes on. most: codes of the
        vocabulary, the commonest; codes: which, filled in by ``prepare``. ``length`` bounds the tokens of a record: of
        a longer one, the last visits are kept. The others are those of ``LanguageConfig``."""

        tokens: float = 1.0
        latent: float = 1.0
        ahead: tuple[int, ...] = (1, 3)
        action: bool = True
        decay: float = 0.99
        start_from: str = ""
        most: int = 5000
        codes: tuple[str, ...] = ()

    def __init__(self, config: Any, *, tokenizer: None = None) -> None:
        super().__init__(config)
        if min(config.tokens, config.latent) < 0 or not max(config.tokens, config.latent) > 0:
            raise InputError(
                f"weights tokens={config.tokens}, latent={config.latent}; expected neither below 0 and one above"
            )
        if not config.ahead or min(config.ahead) < 1 or not 0 <= config.decay <= 1:
            raise InputError(f"ahead {config.ahead}, decay {config.decay}; expected visits of at least 1, and 0 to 1")
        dim = self.backbone.config.dim
        self.horizon_table = nn.Embedding(max(config.ahead) + 1, dim)
        self.predictor = nn.Sequential(nn.Linear(3 * dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.target = copy.deepcopy(self.backbone).requires_grad_(False)
        self.numbers = {code: i + len(SPECIAL) for i, code in enumerate(config.codes)}
        treated = [i for code, i in self.numbers.items() if code.startswith(("rx:", "px:"))]
        self.register_buffer("is_treatment", torch.zeros(config.vocab, dtype=torch.bool), persistent=False)
        self.is_treatment[treated] = True

    is_treatment: Tensor

    def after_step(self, step: int) -> None:
        ema.update(self.target, self.backbone, self.config.decay)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``logits``; ``states``, ``target`` and ``pred_k``."""
        text, prompt = text_of(batch)
        hidden = self.backbone(text)
        ends = (text.values == END).nonzero().squeeze(1)
        out = {"states": hidden[ends]}
        if self.config.tokens:
            out["logits"] = self.backbone.logits(hidden[predicted(text, prompt)])
        if self.config.latent:
            with torch.no_grad():
                out["target"] = self.target(text)[ends]
            done = self._done_next(text, len(ends))
            for k in self.config.ahead:
                rows = foretelling(batch.ragged("visits"), ahead=k)
                told = self.horizon_table.weight[k].expand(len(rows), -1)
                out[f"pred_{k}"] = self.predictor(torch.cat([out["states"][rows], done[rows], told], dim=1))
        return out

    def _done_next(self, text: Ragged, count: int) -> Tensor:
        """The mean embedding of the treatments of the visit after each, [R, D]; 0 where there are none."""
        embedded = self.backbone.embed(text.values)
        number = (text.values == END).long().cumsum(0) - (text.values == END).long()  # of a token's visit
        chosen = self.is_treatment[text.values].nonzero().squeeze(1) if self.config.action else text.values[:0]
        total = embedded.new_zeros(count + 1, embedded.shape[1]).index_add(0, number[chosen], embedded[chosen])
        each = torch.bincount(number[chosen], minlength=count + 1).clamp(min=1)
        mean = total / each[:, None].to(total.dtype)
        return torch.cat([mean[1:count], mean.new_zeros(1, mean.shape[1])])

    def objective(self) -> Objective:
        config = self.config
        later = NextEmbedding(distance="cosine", ahead=config.ahead, sequence="visits")
        if not config.tokens:
            return float(config.latent) * later
        spoken = float(config.tokens) * NextToken()
        return spoken + float(config.latent) * later if config.latent else spoken

    def encoder(self) -> None:
        """No encoder of texts: ``visit_states`` gives a vector per visit of a patient."""

    # ------------------------------------------------------------------ records

    def ids(self, patient: Patient) -> tuple[list[int], int]:
        """The tokens of a record, and of how many visits, the last ones that fit: at most ``length`` tokens."""
        parts: list[list[int]] = []
        before = 0.0
        for visit in patient.visits:
            gap = sum(visit.time - before >= bound for bound in GAPS)
            codes = [self.numbers.get(code, UNKNOWN) for code in visit.codes]
            parts.append([2 + gap, *codes[: self.config.length - 2], END])
            before = visit.time
        kept: list[list[int]] = []
        for part in reversed(parts):
            if sum(map(len, kept)) + len(part) > self.config.length:
                break
            kept.insert(0, part)
        return [i for part in kept for i in part], len(kept)

    def columns(self, patients: Sequence[Patient]) -> dict[str, Any]:
        """``text`` and ``visits``. InputError for a patient without visits."""
        rows = [self.ids(patient) for patient in patients]
        for patient, (_, count) in zip(patients, rows, strict=True):
            if not count:
                raise InputError(f"patient {patient.id!r} has no visits: leave it out")
        return {"text": [ids for ids, _ in rows], "visits": [[0] * count for _, count in rows]}

    def source(self, patients: Sequence[Patient], *, batch: int, seed: int) -> Source:
        """Shuffled batches of records."""
        return Shuffled(self.columns(patients), batch=min(batch, len(patients)), seed=seed)

    @torch.no_grad()
    def visit_states(self, patients: Sequence[Patient], *, batch: int = 64) -> list[Tensor]:
        """Of every patient the states [visits, D] at the ends of the visits that were read: each knows what came before
        it and nothing after."""
        device = next(self.parameters()).device
        found: list[Tensor] = []
        for start in range(0, len(patients), batch):
            columns = self.columns(patients[start : start + batch])
            text = ragged(columns["text"]).to(device)
            ends = (text.values == END).nonzero().squeeze(1)
            states = self.backbone(text)[ends].float().cpu()
            found += torch.split(states, [len(visits) for visits in columns["visits"]])
        return found

    @classmethod
    def start(cls, patients: Sequence[Patient], config: Any, *, seed: int) -> Self:
        """A model whose vocabulary is the commonest codes, or that of the run ``config.start_from``, with its
        weights."""
        if config.start_from:
            codes = cls.of_run(config.start_from).config.codes
        else:
            counts = Counter(code for patient in patients for visit in patient.visits for code in visit.codes)
            codes = tuple(sorted(counts, key=lambda code: (-counts[code], code))[: config.most])
        torch.manual_seed(seed)
        method = cls(dataclasses.replace(config, codes=codes, vocab=len(SPECIAL) + len(codes)))
        if config.start_from:
            method.go_on_from(config.start_from)
            ema.update(method.target, method.backbone, 0.0)
        return method

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight made patients of four or five visits."""
        patients = [one.patient for one in simulate(np.random.default_rng(seed), 8, least=4, most=5)]
        method = cls.start(patients, cls.Config(dim=32, layers=2, heads=2, length=96), seed=seed)
        return method, method.source(patients, batch=8, seed=seed).batch(0)

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """data: OMOP, MIMIC or eICU tables in a folder or zip, or JSON lines; see ``data/ehr.py``."""
        patients = read_ehr(data).patients
        method = cls.start(patients, config, seed=seed)
        return method, method.source(patients, batch=batch, seed=seed)

    @staticmethod
    def claim(scale: str) -> Claim:
        """Made patients whose true states are known."""
        from nextvec.methods import _smb_claim

        return _smb_claim.claim(scale)
