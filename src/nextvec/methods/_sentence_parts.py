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
from nextvec.types import InputError, Ragged

if TYPE_CHECKING:
    from nextvec.methods.sentence_prediction import SentencePrediction

__all__ = ["Solution", "decode", "lens", "sentences_of", "solve"]


def sentences_of(chain: Chain) -> list[str]:
    """The chain's steps, and its answer as the last sentence."""
    return [*chain.steps, f"answer {chain.answer}"]


@dataclass
class Solution:
    """What was found: the sentences that were decoded (continuous: the last alone), the answer (None where the last
    sentence is none), predicted embeddings [D], how many places the reasoner and the autoencoder read, and whether it
    was cut off."""

    sentences: list[str] = field(default_factory=list)
    answer: str | None = None
    states: list[Tensor] = field(default_factory=list)
    reasoner_places: int = 0
    decoder_places: int = 0
    cut: bool = False


@torch.no_grad()
def decode(method: SentencePrediction, vectors: Tensor, *, most: int) -> list[list[int]]:
    """The likeliest sentences of embeddings [B, D]: ids without the end, at most ``most``."""
    model = method.autoencoder
    cache = model.new_cache(len(vectors), capacity=most + 1)
    found: list[list[int]] = [[] for _ in vectors]
    states = model.forward_cached(vectors[:, None], cache)[:, -1]
    open_rows = set(range(len(vectors)))
    for _ in range(most):
        tokens = model.logits(states).argmax(dim=1)
        for i, token in enumerate(tokens.tolist()):
            if i in open_rows and token == method.end:
                open_rows.discard(i)
            elif i in open_rows:
                found[i].append(token)
        if not open_rows:
            break
        states = model.forward_cached(tokens[:, None], cache)[:, -1]
    return found


@torch.no_grad()
def solve(
    method: SentencePrediction, questions: Sequence[str], *, continuous: bool, budget: int, most: int
) -> list[Solution]:
    """Predict sentences until the stopping head says that the last was the answer, at most ``budget`` of them.

    continuous: predicted embeddings are fed back as they are, and the last one alone is decoded; else each is decoded,
    read again by the encoder, and what that gives is fed. The reasoner reads every place once.
    """
    device = next(method.parameters()).device
    prompts = ragged(method.ids(questions)).to(device)
    cache = method.reasoner.new_cache(len(questions), capacity=int(prompts.lengths.max()) + budget + 1)
    hidden = method.reasoner.prefill(prompts, cache)
    states = hidden[prompts.lengths.cumsum(0).to(device) - 1]
    solutions = [Solution(reasoner_places=int(length)) for length in prompts.lengths]
    going = set(range(len(questions)))
    for step in range(budget):
        predicted = method.leave(states)
        stops = (method.stop(states).squeeze(1) > 0).tolist()
        last = {i for i in going if stops[i] or step + 1 == budget}
        spoken = sorted(last if continuous else going)
        if spoken:
            texts = method.texts(decode(method, predicted[spoken], most=most))
            for i, text in zip(spoken, texts, strict=True):
                solutions[i].sentences.append(text)
                solutions[i].decoder_places += len(method.ids([text])[0]) + 1
        for i in going:
            solutions[i].states.append(predicted[i].cpu())
        for i in last:
            solutions[i].cut = not stops[i]
        going -= last
        if not going:
            break
        fed = predicted
        if not continuous:
            fed = predicted.clone()
            for i in going:
                given = [questions[i], *solutions[i].sentences]
                fed[i] = method.embed([given], solutions[i].sentences[-1:])[0]
                solutions[i].decoder_places += sum(map(len, method.ids(given))) + 1
        states = method.reasoner.forward_cached(method.enter(fed)[:, None], cache)[:, -1]
        for i in going:
            solutions[i].reasoner_places += 1
    for solution in solutions:
        said = solution.sentences[-1] if solution.sentences else ""
        solution.answer = said.removeprefix("answer ").strip() if said.startswith("answer ") else None
    return solutions


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
