"""What the file ``colar`` stands on: how chains are laid out and compressed, decoding in latents, and GRPO.

Legend: B questions, N tokens end to end, N' places after compression, S steps, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextvec.data.sources import ragged
from nextvec.nn.backbones.flops import matrix_flops, reading_flops
from nextvec.types import Batch, InputError, Ragged

if TYPE_CHECKING:
    from nextvec.methods.colar import Colar

__all__ = ["Thought", "collate", "flops", "reinforce", "think"]

Ids = Sequence[int]


def collate(
    rows: Sequence[tuple[Ids, Ids, Ids]], *, factor: int, separator: int, end: int, rng: np.random.Generator
) -> Batch:
    """Prompts, steps and answers (ids) as a batch whose steps are read ``factor`` tokens at a time.

    tokens   Ragged int64 [N]: prompt, separator, steps, separator, answer, end
    place    Ragged int64 [N]: the place in the compressed sequence that a token is part of
    labels   Ragged int64 [N']: the token that a place foretells, or -100; of a block of steps, one drawn at random
    latent   Ragged bool [N']: blocks of steps, whose embeddings are foretold as well
    """
    tokens, places, labels, latents = [], [], [], []
    for prompt, steps, answer in rows:
        blocks = -(-len(steps) // factor)
        begin = len(prompt) + 1
        tokens.append([*prompt, separator, *steps, separator, *answer, end])
        within = [begin + i // factor for i in range(len(steps))]
        after = range(begin + blocks, begin + blocks + 2 + len(answer))
        places.append([*range(begin), *within, *after])
        drawn = [steps[i * factor + int(rng.integers(min(factor, len(steps) - i * factor)))] for i in range(blocks)]
        labels.append([*[-100] * (begin - 1), *drawn, separator, *answer, end, -100])
        latents.append(np.isin(np.arange(begin + blocks + 2 + len(answer)), np.arange(begin, begin + blocks)))
    lengths = torch.tensor([len(one) for one in latents])
    return Batch(
        {
            "tokens": ragged(tokens),
            "place": ragged(places),
            "labels": ragged(labels),
            "latent": Ragged(torch.from_numpy(np.concatenate(latents)), lengths),
        }
    )


# ---------------------------------------------------------------------------- decoding


@dataclass
class Thought:
    """What was decoded for a question: latents float32 [S, D] in the order in which they were fed, the tokens that were
    seen after each place from the separator on (the last of them the second separator), and the answer's ids.

    cut_thinking: at its limit, so that the second separator was put there and not said; cut_answer: at its limit,
    before its end was said."""

    latents: list[Tensor] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)
    cut_thinking: bool = False
    cut_answer: bool = False

    @property
    def passes(self) -> int:
        """Passes of the backbone: one over the prompt, and one for every latent, separator and token after it."""
        return 1 + len(self.tokens) + len(self.answer)


def flops(method: Colar, prompt: Ids, thought: Thought) -> float:
    """Operations of ``thought``: those of the backbone, of logits after every pass, and of the latent head."""
    asked, fed = len(prompt) + 1, thought.passes - 1
    backbone = reading_flops(method.backbone, asked, spoken=1)
    backbone += reading_flops(method.backbone, fed, after=asked, spoken=fed)
    return backbone + len(thought.latents) * matrix_flops(method.latent_head)


@torch.no_grad()
def think(
    method: Colar,
    prompts: Sequence[Ids],
    *,
    most: int,
    answer: int,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> list[Thought]:
    """Latents until the separator is the likeliest next token, at most ``most``, then the answer's likeliest tokens, at
    most ``answer``. noise: 1 draws latents from the head's Gaussian and tokens from the model, 0 takes means and the
    likeliest. The prompt is read once: everything after it goes through the cache. A model that was trained on explicit
    chains (``latent`` of 0) is fed its tokens.
    """
    explicit = not method.config.latent
    backbone, device = method.backbone, next(method.parameters()).device
    thoughts = [Thought() for _ in prompts]
    cache = backbone.new_cache(len(prompts), capacity=max(len(one) for one in prompts) + most + answer + 2)
    begun = ragged([[*one, method.separator] for one in prompts]).to(device)
    hidden = backbone.prefill(begun, cache)
    states = hidden[begun.lengths.cumsum(0).to(device) - 1]
    answering = torch.zeros(len(prompts), dtype=torch.bool)
    done = torch.zeros(len(prompts), dtype=torch.bool)
    for _ in range(most + answer + 2):
        logits = backbone.logits(states).float()
        chosen = _choose(logits, noise, generator).tolist()
        if not explicit and not bool((answering | done).all()):
            mean, scale = (part.float() for part in method.latent_head(states))
            drawn = mean + noise * scale.exp() * torch.randn(mean.shape, generator=generator).to(mean)
        feed = torch.empty(len(prompts), backbone.config.dim, device=device)
        for i, thought in enumerate(thoughts):
            if done[i]:
                feed[i] = 0
                continue
            token = chosen[i]
            if answering[i]:
                if token == method.end or len(thought.answer) >= answer:
                    done[i], thought.cut_answer = True, token != method.end
                    feed[i] = 0
                    continue
                thought.answer.append(token)
            elif token == method.separator or len(thought.tokens) >= most:
                thought.cut_thinking = token != method.separator
                token = method.separator
                thought.tokens.append(token)
                answering[i] = True
            else:
                thought.tokens.append(token)
                if not explicit:
                    thought.latents.append(drawn[i].cpu())
                    feed[i] = drawn[i] * method.embedding_scale
                    continue
            feed[i] = backbone.embed(torch.tensor([token], device=device))[0]
        if bool(done.all()):
            break
        states = backbone.forward_cached(feed[:, None].to(states.dtype), cache)[:, -1]
    return thoughts


def _choose(logits: Tensor, noise: float, generator: torch.Generator | None) -> Tensor:
    if not noise:
        return logits.argmax(dim=1)
    shares = (logits / noise).softmax(dim=1).cpu()
    return torch.multinomial(shares, 1, generator=generator).squeeze(1)


# ---------------------------------------------------------------------------- GRPO


def log_probability(method: Colar, prompts: Sequence[Ids], thoughts: Sequence[Thought]) -> tuple[Tensor, Tensor]:
    """Of every thought the sum of log probabilities of its latents (averaged over D), of the tokens between them and of
    the answer; and how many terms it has: both [B], with gradient. Only what was drawn counts: neither a separator that
    the limit put there, nor the end of an answer that was cut off before it."""
    device = next(method.parameters()).device
    rows, lengths, begins = [], [], []
    for prompt, thought in zip(prompts, thoughts, strict=True):
        fed = [latent.to(device) * method.embedding_scale for latent in thought.latents]
        start = method.backbone.embed(torch.tensor([*prompt, method.separator], device=device))
        end = method.backbone.embed(torch.tensor([method.separator, *thought.answer], device=device))
        rows.append(torch.cat([start, *([torch.stack(fed)] if fed else []), end]))
        lengths.append(len(rows[-1]))
        begins.append(len(prompt))
    hidden = method.backbone(Ragged(torch.cat(rows), torch.tensor(lengths)))
    sums, counts = [], []
    for part, begin, thought in zip(torch.split(hidden, lengths), begins, thoughts, strict=True):
        said = [*thought.tokens, *thought.answer, method.end]
        drawn = [True] * len(said)
        drawn[len(thought.tokens) - 1], drawn[-1] = not thought.cut_thinking, not thought.cut_answer
        spoken = method.backbone.logits(part[begin:]).float().log_softmax(dim=1)
        each = spoken.gather(1, torch.tensor(said, device=device)[:, None]).squeeze(1)
        total = each[torch.tensor(drawn, device=device)].sum()
        if thought.latents:
            mean, scale = (x.float() for x in method.latent_head(part[begin : begin + len(thought.latents)]))
            latents = torch.stack(thought.latents).to(device)
            gaussian = -scale - ((latents - mean) * (-scale).exp()).square() / 2 - math.log(2 * math.pi) / 2
            total = total + gaussian.mean(dim=1).sum()
        sums.append(total)
        counts.append(float(sum(drawn) + len(thought.latents)))
    return torch.stack(sums), torch.tensor(counts, device=device)


def reinforce(
    method: Colar,
    problems: Sequence[tuple[Ids, Ids]],
    *,
    steps: int,
    questions: int = 8,
    group: int = 8,
    lr: float = 1e-5,
    most: int = 32,
    answer: int = 8,
    average: bool = True,
    seed: int = 0,
    on_step: Callable[[int, int, dict[str, float]], None] | None = None,
) -> None:
    """GRPO on (prompt, answer) ids: of every question a group of thoughts is drawn; right answers are worth 1, and what
    is above its group's mean becomes likelier, in units of the group's standard deviation.

    average: divide a thought's log probability by its terms. Then a long right chain gains less per step than a short
    one, which is what makes chains short. One update per draw: the ratio of new to old probability is 1, so that it
    needs no clipping.
    """
    if min(steps, questions) < 1 or group < 2:
        raise InputError(f"{steps} steps, {questions} questions, groups of {group}: expected at least 1, 1 and 2")
    optimiser = torch.optim.AdamW(method.parameters(), lr=lr, weight_decay=0.0)
    random = np.random.default_rng([seed, 2505])
    noise = torch.Generator().manual_seed(seed)
    for step in range(steps):
        chosen = random.choice(len(problems), size=min(questions, len(problems)), replace=False)
        asked = [problems[i] for i in chosen for _ in range(group)]
        prompts = [prompt for prompt, _ in asked]
        method.eval()
        thoughts = think(method, prompts, most=most, answer=answer, noise=1.0, generator=noise)
        right = [float(list(one.answer) == list(want)) for one, (_, want) in zip(thoughts, asked, strict=True)]
        rewards = torch.tensor(right).view(-1, group)
        gained = (rewards - rewards.mean(dim=1, keepdim=True)) / (rewards.std(dim=1, keepdim=True) + 1e-4)
        used: NDArray[np.int64] = np.flatnonzero(gained.flatten().abs().numpy() > 0)
        logs = {"reward": float(rewards.mean()), "length": float(np.mean([len(one.latents) for one in thoughts]))}
        if len(used):
            sums, counts = log_probability(method, [prompts[i] for i in used], [thoughts[i] for i in used])
            each = sums / counts if average else sums / float(most)
            loss = -(gained.flatten()[used].to(each) * each).sum() / len(asked)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
            optimiser.step()
        if on_step is not None:
            on_step(step + 1, steps, logs)
    method.eval()
