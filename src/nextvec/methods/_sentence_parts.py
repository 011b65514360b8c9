"""What the file ``sentence_prediction`` stands on: its data, decoding, solving, and the lens.

Legend: B questions, R sentences of a chain, N tokens end to end, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nextvec.data.reasoning import Chain
from nextvec.data.sources import ragged
from nextvec.nn.backbones.cache import KVCache
from nextvec.nn.backbones.flops import matrix_flops, reading_flops
from nextvec.types import InputError, Ragged

if TYPE_CHECKING:
    from nextvec.methods.sentence_prediction import SentencePrediction

__all__ = ["Solution", "decode", "flops", "lens", "sentences_of", "solve"]


def sentences_of(chain: Chain) -> list[str]:
    """The chain's steps, and its answer as the last sentence."""
    return [*chain.steps, f"answer {chain.answer}"]


@dataclass
class Solution:
    """What was found: the sentences that were decoded (continuous: the last alone), the answer (None where the last
    sentence is none), predicted embeddings [D], one per sentence, and whether it was cut off. What it took: ``asked``,
    places of the question; ``decoded`` and ``encoded``, the places that each run of the decoder and encoder read."""

    sentences: list[str] = field(default_factory=list)
    answer: str | None = None
    states: list[Tensor] = field(default_factory=list)
    cut: bool = False
    asked: int = 0
    decoded: list[int] = field(default_factory=list)
    encoded: list[int] = field(default_factory=list)

    @property
    def reasoner_places(self) -> int:
        """Places that the reasoner read: the question, and every embedding but the last."""
        return self.asked + max(len(self.states) - 1, 0)

    @property
    def decoder_places(self) -> int:
        """Places that the autoencoder read, decoding and encoding."""
        return sum(self.decoded) + sum(self.encoded)

    @property
    def passes(self) -> int:
        """Passes of all transformers: the reasoner's, one over the question and one for every embedding that was fed;
        the decoder's, one per place; the encoder's, one per sentence."""
        return len(self.states) + sum(self.decoded) + len(self.encoded)


def flops(method: SentencePrediction, solution: Solution) -> float:
    """Operations of ``solution``: those of the transformers, of logits of what was decoded, and of the layers between
    the reasoner and embeddings."""
    predicted = len(solution.states)
    total = reading_flops(method.reasoner, solution.asked)
    total += reading_flops(method.reasoner, predicted - 1, after=solution.asked)
    total += predicted * (matrix_flops(method.leave) + matrix_flops(method.stop))
    total += (predicted - 1) * matrix_flops(method.enter)
    total += sum(reading_flops(method.autoencoder, places, spoken=places) for places in solution.decoded)
    return total + sum(reading_flops(method.autoencoder, places) for places in solution.encoded)


@torch.no_grad()
def decode(method: SentencePrediction, vectors: Tensor, *, most: int) -> list[list[int]]:
    """The likeliest sentences of embeddings [B, D]: ids without the end, at most ``most``. A sentence of n ids takes
    n + 1 places, at most ``most``: the embedding and every id but the last that there may be."""
    model = method.autoencoder
    cache = model.new_cache(len(vectors), capacity=most)
    found: list[list[int]] = [[] for _ in vectors]
    rows = list(range(len(vectors)))
    states = model.forward_cached(vectors[:, None], cache)[:, -1]
    for step in range(most):
        tokens = model.logits(states).argmax(dim=1)
        said = tokens.tolist()
        going = [at for at, token in enumerate(said) if token != method.end]
        for at in going:
            found[rows[at]].append(said[at])
        if not going or step + 1 == most:
            break
        rows = _keep(cache, rows, going)
        states = model.forward_cached(tokens[going][:, None], cache)[:, -1]
    return found


@torch.no_grad()
def solve(
    method: SentencePrediction, questions: Sequence[str], *, continuous: bool, budget: int, most: int
) -> list[Solution]:
    """Predict sentences until the stopping head says that the last was the answer, at most ``budget`` of them.

    continuous: predicted embeddings are fed back as they are, and the last one alone is decoded; else each is decoded,
    read again by the encoder, and what that gives is fed. The reasoner reads every place once; questions that are
    solved leave the batch.
    """
    device = next(method.parameters()).device
    prompts = ragged(method.ids(questions)).to(device)
    cache = method.reasoner.new_cache(len(questions), capacity=int(prompts.lengths.max()) + budget)
    hidden = method.reasoner.prefill(prompts, cache)
    states = hidden[prompts.lengths.cumsum(0).to(device) - 1]
    solutions = [Solution(asked=int(length)) for length in prompts.lengths]
    rows = list(range(len(questions)))
    for step in range(budget):
        predicted = method.leave(states)
        stops = (method.stop(states).squeeze(1) > 0).tolist()
        last = [stop or step + 1 == budget for stop in stops]
        for at, i in enumerate(rows):
            solutions[i].states.append(predicted[at].cpu())
            solutions[i].cut = last[at] and not stops[at]
        spoken = [at for at, ended in enumerate(last) if ended or not continuous]
        if spoken:
            _say(method, predicted[spoken], [solutions[rows[at]] for at in spoken], most)
        going = [at for at, ended in enumerate(last) if not ended]
        if not going:
            break
        rows, fed = _keep(cache, rows, going), predicted[going]
        if not continuous:
            fed = _read_again(method, [questions[i] for i in rows], [solutions[i] for i in rows]).to(fed)
        states = method.reasoner.forward_cached(method.enter(fed)[:, None], cache)[:, -1]
    for solution in solutions:
        said = solution.sentences[-1] if solution.sentences else ""
        solution.answer = said.removeprefix("answer ").strip() if said.startswith("answer ") else None
    return solutions


def _keep(cache: KVCache, rows: list[int], going: list[int]) -> list[int]:
    """``rows`` at ``going``; the others leave the cache."""
    if len(going) < len(rows):
        cache.select(torch.tensor(going))
    return [rows[at] for at in going]


def _say(method: SentencePrediction, vectors: Tensor, solutions: Sequence[Solution], most: int) -> None:
    """Decode an embedding [B, D] for each of ``solutions``."""
    ids = decode(method, vectors, most=most)
    for solution, own, text in zip(solutions, ids, method.texts(ids), strict=True):
        solution.sentences.append(text)
        solution.decoded.append(min(len(own) + 1, most))


def _read_again(method: SentencePrediction, questions: Sequence[str], solutions: Sequence[Solution]) -> Tensor:
    """Embeddings [B, D] of the last sentences that were said, all questions together."""
    texts = [[question, *solution.sentences] for question, solution in zip(questions, solutions, strict=True)]
    for solution, ids in zip(solutions, method.given(texts), strict=True):
        solution.encoded.append(len(ids))
    return method.embed(texts)


@torch.no_grad()
def lens(
    method: SentencePrediction, question: str, solution: Solution, *, most: int
) -> Iterator[tuple[int, int, str, float]]:
    """SentenceLens: what every layer of the reasoner would say at every step of a continuous ``solution``, as (step,
    layer, sentence, cosine with what the last layer says). Layer 0 are the embeddings."""
    device = next(method.parameters()).device
    ids = torch.tensor(method.ids([question])[0], device=device)
    rows = [method.reasoner.embed(ids)]
    if solution.states[:-1]:
        rows.append(method.enter(torch.stack(solution.states[:-1]).to(device)))
    vectors = torch.cat(rows)
    states = method.reasoner(Ragged(vectors, torch.tensor([len(vectors)])), all_states=True)
    norm = method.reasoner.final_norm
    begin = len(ids) - 1
    final = method.leave(states[-1][begin:])
    for layer, state in enumerate(states):
        read = state if layer + 1 == len(states) or norm is None else norm(state)
        predicted = method.leave(read[begin:])
        alike = torch.cosine_similarity(predicted, final, dim=1)
        texts = method.texts(decode(method, predicted, most=most))
        for step, (text, cosine) in enumerate(zip(texts, alike.tolist(), strict=True), start=1):
            yield step, layer, text, cosine


def check_lengths(sentences: Sequence[Sequence[str]]) -> None:
    """InputError for a chain with an empty sentence, or none."""
    for i, chain in enumerate(sentences):
        if not chain or not all(text.strip() for text in chain):
            raise InputError(f"example {i} has an empty sentence: every step and the answer need some text")
