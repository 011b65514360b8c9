"""Where nextvec-small begins: some of a teacher's own layers and the commonest of its word pieces.

Source of the idea: Sanh et al. 2019, "DistilBERT" (arXiv 1910.01108): a student that begins with every other layer of
its teacher. Ours: each layer's last matrix is then solved for, so that the layer ends where the teacher's layers up to
the next one that was kept end.

    W_l = argmin || A_l W + x_l - t_l ||^2 + e ||W - W0_l||^2
          A_l [N, F] what the feed-forward neurons of layer l say, x_l [N, D] what is added to it, t_l [N, D] the same
          sum in the teacher; W0: the teacher's own matrix where nothing was left out behind it, else 0

Legend: V word pieces, N tokens, F neurons, D width.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nextvec.data.tokenizers import TextTokenizer
from nextvec.nn.backbones.transformer import Block, Transformer
from nextvec.recipes.vocabulary import count_tokens
from nextvec.types import InputError, Ragged

__all__ = ["cut_tokenizer", "cut_transformer", "fit_layers"]


def cut_tokenizer(path: Path, texts: Sequence[str], *, size: int) -> tuple[TextTokenizer, NDArray[np.int64]]:
    """The WordPiece tokenizer in ``path`` (a tokenizer.json) with ``size`` of its pieces, and their ids there, int64
    [V].

    Kept are special tokens, single characters (ASCII's, and others that ``texts`` have), and of the rest those that
    ``texts`` have most often: what is cut is then spelled in smaller pieces, and a word with a character that is not
    kept is not known. InputError for another kind of tokenizer, and a size that does not hold what is always kept.
    """
    from tokenizers import Tokenizer

    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    model = settings["model"]
    if model.get("type") != "WordPiece":
        raise InputError(f"the teacher's tokenizer is {model.get('type')!r}; a WordPiece one can be cut")
    whole = Tokenizer.from_str(json.dumps(settings | {"truncation": None, "padding": None}))
    counts = count_tokens(whole, texts)
    special = {token["content"] for token in settings["added_tokens"]}
    prefix = model["continuing_subword_prefix"]

    def always(piece: str, number: int) -> bool:
        bare = piece.removeprefix(prefix)
        single = len(bare) == 1 and (bare.isascii() or counts[number] > 0)
        return piece in special or single

    pieces = sorted(model["vocab"].items(), key=lambda item: item[1])
    kept = [item for item in pieces if always(*item)]
    if len(kept) > size:
        raise InputError(f"{size} word pieces do not hold the {len(kept)} special tokens and characters")
    others = [item for item in pieces if not always(*item)]
    others.sort(key=lambda item: (-counts[item[1]], item[1]))
    kept = sorted([*kept, *others[: size - len(kept)]], key=lambda item: item[1])
    ids = {piece: number for number, (piece, _) in enumerate(kept)}
    model["vocab"] = ids
    for token in settings["added_tokens"]:
        token["id"] = ids[token["content"]]
    for token in (settings.get("post_processor") or {}).get("special_tokens", {}).values():
        token["ids"] = [ids[content] for content in token["tokens"]]
    settings |= {"truncation": None, "padding": None}
    return TextTokenizer(Tokenizer.from_str(json.dumps(settings))), np.array([i for _, i in kept], dtype=np.int64)


@torch.no_grad()
def cut_transformer(
    teacher: Transformer, pieces: NDArray[np.int64], *, layers: Sequence[int], ffn: int, positions: int
) -> Transformer:
    """A BERT of the ``layers`` of ``teacher`` with these numbers, the rows of ``pieces`` of its table, its first
    ``positions`` places, and of every layer's feed-forward neurons the ``ffn`` whose weights are largest (the product
    of the lengths of what goes in and what comes out). InputError for layers, neurons or places that it has not."""
    config = teacher.config
    if not layers or min(layers) < 0 or max(layers) >= config.layers or ffn > config.ffn_width or ffn < 1:
        raise InputError(
            f"layers {tuple(layers)} with {ffn} neurons of a teacher of {config.layers} layers with {config.ffn_width}"
        )
    if positions > config.max_length:
        raise InputError(f"{positions} places of a teacher that has {config.max_length}")
    shape = replace(config, vocab=len(pieces), layers=len(layers), ffn=ffn, max_length=positions, dropout=0.0)
    student = Transformer(shape)
    own, theirs = student.state_dict(), teacher.state_dict()
    for name, value in own.items():
        if not name.startswith("blocks."):
            source = theirs[name]
            rows = torch.from_numpy(pieces) if name == "tokens.weight" else slice(len(value))
            value.copy_(source[rows])
    for number, block in zip(layers, student.blocks, strict=True):
        _copy(cast(Block, block), cast(Block, teacher.blocks[number]), ffn)
    return student


def _copy(block: Block, source: Block, ffn: int) -> None:
    weight: Tensor = source.up.weight.norm(dim=1) * source.down.weight.norm(dim=0)
    chosen = weight.topk(ffn).indices.sort().values
    theirs = dict(source.named_parameters())
    for name, value in block.named_parameters():
        whole: Tensor = theirs[name]
        if name.startswith("up."):
            whole = whole[chosen]
        elif name == "down.weight":
            whole = whole[:, chosen]
        value.copy_(whole)


@torch.no_grad()
def fit_layers(
    student: Transformer, teacher: Transformer, pieces: NDArray[np.int64], texts: Ragged, *, layers: Sequence[int]
) -> None:
    """Solve for the last matrix of each layer of ``student``, in place, as said above. pieces, layers: as given to
    ``cut_transformer``; texts: token ids of the student's, enough of them to outnumber the neurons."""
    spoken = Ragged(torch.from_numpy(pieces)[texts.values], texts.lengths)
    ends = [layer - 1 for layer in layers[1:]] + [teacher.config.layers - 1]
    theirs = [cast(Block, block) for block in teacher.blocks]
    wanted = _inputs([theirs[end].ffn_norm for end in ends], lambda: teacher(spoken))
    for block, layer, end, target in zip(student.blocks, layers, ends, wanted, strict=True):
        own = cast(Block, block)
        said, summed = _inputs([own.down, own.ffn_norm], lambda: student(texts))
        weight = torch.cat([own.down.weight.T, own.down.bias[None]])
        ones = torch.cat([said, torch.ones(len(said), 1)], dim=1)
        rest = target - (summed - ones @ weight)
        begun = weight if end == layer else torch.zeros_like(weight)
        gram = ones.T @ ones
        gram += 1e-3 * gram.diag().mean() * torch.eye(len(gram))
        solved = begun + torch.linalg.solve(gram, ones.T @ (rest - ones @ begun))
        own.down.weight.copy_(solved[:-1].T)
        own.down.bias.copy_(solved[-1])


def _inputs(modules: Sequence[nn.Module], run: Callable[[], object]) -> list[Tensor]:
    """What each of ``modules`` is given while ``run`` runs."""
    given: dict[int, Tensor] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, args, i=i: given.__setitem__(i, args[0]))
        for i, module in enumerate(modules)
    ]
    run()
    for hook in hooks:
        hook.remove()
    return [given[i] for i in range(len(modules))]
