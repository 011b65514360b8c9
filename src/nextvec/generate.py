"""Decoding: prompts of different lengths continued together, plainly or with drafts that one pass verifies.

Every token is read once: prompts lie end to end in one pass that fills a ``KVCache``, new tokens are appended to it,
and rejected drafts are rolled back. Rows that are done leave the batch.

Self-speculation (NextLat, arXiv 2511.05963): a model that was trained with latent dynamics drafts for itself. From the
last verified state h_t and the chosen x_{t+1},

    h^_{t+1} = dynamics(h_t, embed(x_{t+1})),    x^_{t+2} ~ q = p(. | h^_{t+1}),    h^_{t+2} = ...

for k tokens, without the backbone; one cached pass over x_{t+1} and the k drafts gives the true p at every one of
them. With sampling, x^ is kept with probability min(1, p(x^) / q(x^)), the first that is not is replaced by a draw
from the positive part of p - q, and where all are kept one more is drawn from p: the tokens are distributed as those
of plain sampling are (Leviathan et al. 2023, arXiv 2211.17192, theorem in appendix A.1; Chen et al. 2023,
arXiv 2302.01318). Without sampling a draft is kept while it is the most probable token, so that the output is that of
plain decoding, token for token. Rounding is the one reservation for both: a pass over k + 1 tokens per row adds up in
another order than a pass over one, so logits differ in their last digits, and two tokens that tie to within them
(about 1e-6 of the logits in float32, 1e-2 in bfloat16) may be chosen otherwise.

Legend: B prompts not yet done, N tokens of the prompts end to end, k drafts per row, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from nextvec.nn.backbones.transformer import Transformer
from nextvec.types import InputError, Ragged

__all__ = ["Choose", "Draft", "Dynamics", "Generated", "LatentDraft", "generate"]

Choose = Callable[[Tensor], "tuple[Tensor, Tensor | None]"]
"""Logits [B, V] to ids int64 [B] and the distribution [B, V] they were drawn from (None: the most probable ones)."""


class Dynamics(Protocol):
    """The step of a latent model: states h [..., D] and embeddings e [..., D] of the next tokens to the next states."""

    def __call__(self, h: Tensor, e: Tensor) -> Tensor: ...


class Draft(Protocol):
    """What guesses tokens ahead. ``length``: the most it drafts at a time, k."""

    length: int

    def propose(self, hidden: Tensor, tokens: Tensor, count: int, choose: Choose) -> tuple[Tensor, Tensor | None]:
        """``count`` tokens per row after ``tokens`` int64 [B], which were chosen from the states ``hidden`` [B, D]:
        ids int64 [B, count] and the distributions [B, count, V] they were drawn from (None: they were not drawn, but
        follow from what was read)."""
        ...


class LatentDraft:
    """Drafts from a model's own latent dynamics and its own head."""

    def __init__(self, dynamics: Dynamics, backbone: Transformer, length: int) -> None:
        """length: drafts per pass, k; a row gains between 1 and k + 1 tokens in a pass."""
        if length < 1:
            raise InputError(f"a draft of {length} tokens: at least 1 is needed")
        self.dynamics, self.backbone, self.length = dynamics, backbone, length

    def propose(self, hidden: Tensor, tokens: Tensor, count: int, choose: Choose) -> tuple[Tensor, Tensor | None]:
        """See :class:`Draft`."""
        ids, laws = [], []
        for _ in range(count):
            hidden = self.dynamics(hidden, self.backbone.embed(tokens))
            tokens, law = choose(self.backbone.logits(hidden))
            ids.append(tokens)
            if law is not None:
                laws.append(law)
        return torch.stack(ids, 1), torch.stack(laws, 1) if laws else None


@dataclass(frozen=True, slots=True)
class Generated:
    """What ``generate`` returns.

    ids: the new ids of each prompt, a stop id included where one ended it; forward_passes: how often the backbone ran,
    the pass over the prompts included; passes: in how many of them each prompt took part; drafted: tokens proposed by
    the draft, in all; accepted: the share of them that is in ``ids`` (0 without a draft).
    """

    ids: list[list[int]]
    forward_passes: int
    passes: list[int]
    drafted: int
    accepted: float

    @property
    def tokens(self) -> int:
        """How many new ids there are in all."""
        return sum(len(row) for row in self.ids)

    @property
    def tokens_per_pass(self) -> float:
        """New ids per prompt and pass: 1 without a draft, up to k + 1 with one."""
        return self.tokens / sum(self.passes)


def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]] | Ragged,
    *,
    max_new: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Collection[int] = (),
    seed: int = 0,
    draft: Draft | None = None,
) -> Generated:
    """Continue each of ``prompts`` (token ids) by up to ``max_new`` tokens.

    temperature: 0 takes the most probable token; above, tokens are drawn from softmax(logits / temperature); top_k:
    only from the k most probable; top_p: only from the fewest whose probabilities (after temperature and top_k) reach
    top_p; stop: ids that end a row, which keeps them as its last; seed: the same seed, prompts and settings draw the
    same ids on the same machine; draft: guesses ahead, which change the speed but not what is said (see above).

    The model runs in evaluation mode and without gradients; its modes are as before when it returns. Raises InputError
    for anything unusable: no prompts, an empty one, ids outside the vocabulary, prompts that would outgrow learned
    positions, a model that is not causal or whose logits are not finite, settings out of range.
    """
    device = model.head_weight().device
    ragged = _prompts(prompts, model.config.vocab)
    _check_settings(max_new, temperature, top_k, top_p, stop, model.config.vocab)
    longest, limit = int(ragged.lengths.max()), model.positions.limit
    if limit is not None and longest + max_new > limit:
        raise InputError(
            f"a prompt of {longest} tokens and max_new={max_new} make {longest + max_new}, but "
            f"{model.config.positions} positions end at max_length={limit}: cut the prompt or lower max_new"
        )
    chooser: _Greedy | _Sampling = _Greedy()
    if temperature > 0:
        generator = torch.Generator(device).manual_seed(seed)
        chooser = _Sampling(temperature, top_k=top_k, top_p=1.0 if top_p is None else top_p, generator=generator)
    dynamics = getattr(draft, "dynamics", None)
    parts = [model, dynamics] if isinstance(dynamics, nn.Module) else [model]
    with _evaluating(parts), torch.no_grad():
        return _decode(model, ragged.to(device), chooser, draft, max_new, frozenset(stop))


def _decode(
    model: Transformer,
    prompts: Ragged,
    chooser: _Greedy | _Sampling,
    draft: Draft | None,
    max_new: int,
    stop: frozenset[int],
) -> Generated:
    cache = model.new_cache(len(prompts))
    # A row holds: in the cache all its tokens but the last, ``tokens``; and ``hidden``, the state that chose it.
    hidden = model.prefill(prompts, cache)[(prompts.lengths.cumsum(0) - 1).to(prompts.values.device)]
    logits = model.logits(hidden)
    if not bool(torch.isfinite(logits).all()):
        raise InputError("the model's logits are not finite (NaN or infinity): its weights are damaged or diverged")
    tokens, _ = chooser.choose(logits)
    ids = [[token] for token in tokens.tolist()]
    rows, passes, calls, drafted, accepted = list(range(len(ids))), [1] * len(ids), 1, 0, 0
    while True:
        live = [i for i, row in enumerate(rows) if len(ids[row]) < max_new and ids[row][-1] not in stop]
        if not live:
            return Generated(ids, calls, passes, drafted, accepted / max(drafted, 1))
        if len(live) < len(rows):
            index = torch.tensor(live)
            cache.select(index)
            rows = [rows[i] for i in live]
            hidden, tokens = (x.index_select(0, index.to(x.device)) for x in (hidden, tokens))
        filled = cache.lengths
        count = _draft_length(draft, max_new - min(len(ids[row]) for row in rows), model, int(filled.max()))
        guesses, laws = tokens.new_empty(len(rows), 0), None
        if draft is not None and count:
            guesses, laws = draft.propose(hidden, tokens, count, chooser.choose)
        states = model.forward_cached(torch.cat((tokens[:, None], guesses), 1), cache)
        kept, tokens = chooser.verify(model.logits(states), guesses, laws)
        hidden = states[torch.arange(len(rows), device=states.device), kept]
        cache.truncate(filled + 1 + kept.cpu())
        calls, drafted = calls + 1, drafted + count * len(rows)
        for row, n, guess, last in zip(rows, kept.tolist(), guesses.tolist(), tokens.tolist(), strict=True):
            passes[row] += 1
            fresh = _until([*guess[:n], last][: max_new - len(ids[row])], stop)
            accepted += min(n, len(fresh))
            ids[row] += fresh


def _draft_length(draft: Draft | None, wanted: int, model: Transformer, filled: int) -> int:
    """How many tokens to draft: no more than the row furthest from its end can use, nor than positions have room for
    (a row near its own end is read beyond it with the others, and cut afterwards)."""
    if draft is None:
        return 0
    room = math.inf if model.positions.limit is None else model.positions.limit - filled
    return int(min(draft.length, wanted - 1, room - 1))


def _until(ids: list[int], stop: frozenset[int]) -> list[int]:
    """``ids`` up to the first stop id, which is kept."""
    end = next((i + 1 for i, token in enumerate(ids) if token in stop), len(ids))
    return ids[:end]


class _Greedy:
    """Takes the most probable token; of equals, the first."""

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """See ``Choose``."""
        return logits.argmax(-1), None

    def verify(self, logits: Tensor, guesses: Tensor, laws: Tensor | None) -> tuple[Tensor, Tensor]:
        """How many of ``guesses`` int64 [B, k] each row keeps, int64 [B], and the token after them, int64 [B].
        logits [B, k + 1, V]: the true ones, before each guess and after the last."""
        best = logits.argmax(-1)
        kept = _leading(best[:, :-1] == guesses)
        return kept, best.gather(1, kept[:, None])[:, 0]


class _Sampling:
    """Draws from softmax(logits / temperature), cut to the top."""

    def __init__(self, temperature: float, *, top_k: int | None, top_p: float, generator: torch.Generator) -> None:
        self.temperature, self.top_k, self.top_p, self.generator = temperature, top_k, top_p, generator

    def law(self, logits: Tensor) -> Tensor:
        """The distribution float32 [..., V] that ids are drawn from."""
        scores = logits.float()
        # Less the largest first: a temperature near 0 must not make infinity minus infinity.
        scores = (scores - scores.amax(-1, keepdim=True)) / self.temperature
        if self.top_k is None and self.top_p == 1:
            return scores.softmax(-1)
        best, order = scores.topk(min(self.top_k or scores.shape[-1], scores.shape[-1]), dim=-1)
        chances = best.softmax(-1)
        before = chances.cumsum(-1) - chances
        chances = chances.masked_fill(before >= self.top_p, 0)
        chances = chances / chances.sum(-1, keepdim=True)
        return torch.zeros_like(scores).scatter(-1, order, chances)

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """See ``Choose``."""
        law = self.law(logits)
        return self._draw(law), law

    def verify(self, logits: Tensor, guesses: Tensor, laws: Tensor | None) -> tuple[Tensor, Tensor]:
        """As ``_Greedy.verify``; laws [B, k, V]: what the guesses were drawn from."""
        true = self.law(logits)
        if laws is None:
            # Guesses that were not drawn: all of their probability lies on them.
            laws = one_hot(guesses, true.shape[2]).to(true)
        p, q = (law.gather(2, guesses[:, :, None])[:, :, 0] for law in (true[:, :-1], laws))
        kept = _leading(_accepts(p, q, torch.rand(p.shape, device=p.device, generator=self.generator)))
        # After the last guess there is nothing to subtract: the bonus token is drawn from p itself.
        drawn_from = torch.cat((laws, torch.zeros_like(true[:, :1])), 1)
        at = kept[:, None, None].expand(-1, 1, true.shape[2])
        return kept, self._draw(_remainder(true.gather(1, at)[:, 0], drawn_from.gather(1, at)[:, 0]))

    def _draw(self, law: Tensor) -> Tensor:
        return torch.multinomial(law, 1, generator=self.generator)[:, 0]


def _accepts(p: Tensor, q: Tensor, uniform: Tensor) -> Tensor:
    """Whether a token of true probability p that was drawn with q > 0 is kept: with probability min(1, p / q)."""
    return uniform * q < p


def _remainder(p: Tensor, q: Tensor) -> Tensor:
    """The law [B, V] of a token in the place of a rejected one: the positive part of p - q, normalised."""
    rest = (p - q).clamp_min(0)
    total = rest.sum(-1, keepdim=True)
    # p and q equal up to rounding: a rejection is then next to impossible, and p as good as what is left of it.
    return torch.where(total > 0, rest / total, p)


def _leading(kept: Tensor) -> Tensor:
    """How many leading entries of each row of a bool [B, k] are True, int64 [B]."""
    return kept.long().cumprod(1).sum(1)


def _prompts(prompts: Sequence[Sequence[int]] | Ragged, vocab: int) -> Ragged:
    if isinstance(prompts, Ragged):
        ragged = prompts
    else:
        try:
            values = torch.tensor([token for prompt in prompts for token in prompt])
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"prompts: expected lists of token ids ({error})") from error
        ragged = Ragged(values, torch.tensor([len(prompt) for prompt in prompts], dtype=torch.long))
    empty = (ragged.lengths == 0).nonzero()[:, 0].tolist()
    if empty or not len(ragged):
        which = f"prompt {empty[0]} is empty" if empty else "no prompts"
        raise InputError(f"{which}: at least one prompt, and one token in each, is needed (a start token, for example)")
    if ragged.values.ndim != 1 or ragged.values.dtype not in (torch.int64, torch.int32):
        raise InputError(
            f"prompts: {ragged.values.dtype} {list(ragged.values.shape)}; expected token ids, int64 [N], end to end"
        )
    _check_ids("prompt", ragged.values, vocab)
    return ragged


def _check_ids(what: str, ids: Tensor, vocab: int) -> None:
    outside = ids[(ids < 0) | (ids >= vocab)]
    if len(outside):
        raise InputError(f"{what} id {int(outside[0])} is outside the vocabulary of {vocab:,} (0 to {vocab - 1})")


def _check_settings(
    max_new: int, temperature: float, top_k: int | None, top_p: float | None, stop: Collection[int], vocab: int
) -> None:
    if max_new < 1:
        raise InputError(f"max_new={max_new}: at least 1 new token is needed")
    if not 0 <= temperature < math.inf:
        raise InputError(f"temperature={temperature}: expected 0 (the most probable token) or a positive number")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k={top_k}: expected at least 1, or None for no limit")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p={top_p}: expected above 0 and at most 1")
    _check_ids("stop", torch.tensor(sorted(stop), dtype=torch.long), vocab)


@contextmanager
def _evaluating(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Evaluation mode for ``parts``; every module's own mode is put back, however different they were."""
    modes = [(module, module.training) for part in parts for module in part.modules()]
    for part in parts:
        part.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
