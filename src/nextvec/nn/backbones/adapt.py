"""Any local Hugging Face checkpoint as a trainable backbone: texts end to end in, hidden states end to end out.

The architecture is ``transformers``' own class, its weights in float32. Padding is added inside, where texts differ in
length, and taken off again, so that a method sees real tokens only. Two things can be asked for:

bidirectional   a causal checkpoint reads both ways (as in LLM2Vec, arXiv 2404.05961, which trains one so), through
                ``config.is_causal``, which transformers >= 5.2 obeys in its masks and its kernels. The setting is part
                of the saved configuration: what was trained so opens so elsewhere. Whether an architecture obeys it
                is not taken on trust but tried, when the checkpoint is loaded.
LoRA            W + alpha / rank * B A with W frozen, A [rank, in] random, B [out, rank] zero at first
                (arXiv 2106.09685), through ``peft``; saved merged, as an ordinary checkpoint.

Only safetensors are read and written, and never a model's own code.

Legend: B texts, N tokens (sum of lengths), T longest text, D width.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from nextvec.extras import require
from nextvec.nn.backbones.hf import LOCAL, opening, quiet
from nextvec.nn.save import new_folder
from nextvec.types import InputError, Ragged

__all__ = ["Adapted", "LoRAConfig"]


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """Low-rank adapters. rank: of B A; alpha: B A is multiplied by alpha / rank; dropout: of what enters A; targets:
    the last parts of the names of the linear layers to adapt, such as ("q_proj", "v_proj"); none: every linear layer
    (as QLoRA found best, arXiv 2305.14314, section 4)."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0 or not 0 <= self.dropout < 1:
            raise InputError(
                f"LoRA with rank={self.rank}, alpha={self.alpha}, dropout={self.dropout}: expected a rank of at least "
                "1, a positive alpha, and a dropout of at least 0 and below 1"
            )


class Adapted(nn.Module):
    """A checkpoint with its tokenizer. Make one with :meth:`load`."""

    def __init__(self, model: Any, tokenizer: Any = None) -> None:
        """model: a ``transformers`` model without a head; tokenizer: what :meth:`save` puts beside it."""
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self._limit = _position_limit(model)
        pooler = getattr(model, "pooler", None)
        if isinstance(pooler, nn.Module):
            # Hidden states do not pass through it: trained weights without gradient would only mislead.
            pooler.requires_grad_(False)
        self.train(model.training)

    @classmethod
    def load(cls, folder: Path, *, bidirectional: bool | None = None, lora: LoRAConfig | None = None) -> Adapted:
        """The checkpoint in ``folder``, in evaluation mode, on the CPU.

        bidirectional: whether tokens see those after them; None leaves it as the checkpoint has it; lora: train
        adapters only. Raises NotFoundError and InputError for folders that are no complete model, weights that are
        pickles, encoder-decoders, an architecture that does not obey ``bidirectional``, targets that match no layer;
        MissingExtraError without ``peft`` (LoRA) or ``transformers``.
        """
        folder = Path(folder)
        if lora is not None:
            require("peft", why="LoRA")
        with opening(folder) as transformers:
            config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
            if getattr(config, "is_encoder_decoder", False):
                raise InputError(
                    f"{str(folder)!r} is an encoder-decoder ({config.model_type}): a single stack is needed"
                )
            if bidirectional is not None:
                config.is_causal = not bidirectional
            tokenizer = None
            if (folder / "tokenizer.json").is_file():
                tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **LOCAL)
            model = transformers.AutoModel.from_pretrained(
                folder, config=config, use_safetensors=True, dtype="float32", **LOCAL
            )
            adapted = cls(model, tokenizer)
            found = _sees_future(adapted)
        if found not in ({True}, {False}) or bidirectional not in (None, *found):
            says = "in some batches only" if len(found) > 1 else "still" if True in found else "not"
            raise InputError(
                f"{str(folder)!r} ({config.model_type}) with bidirectional={bidirectional}: its tokens see those "
                f"after them {says}, so this architecture cannot be used with this setting"
            )
        if lora is not None:
            _inject(model, lora)
        return adapted

    @property
    def dim(self) -> int:
        """The width D of a hidden state."""
        return int(self.model.config.hidden_size)

    @overload
    def forward(self, inputs: Ragged, *, all_states: Literal[False] = ...) -> Tensor: ...

    @overload
    def forward(self, inputs: Ragged, *, all_states: Literal[True]) -> list[Tensor]: ...

    def forward(self, inputs: Ragged, *, all_states: bool = False) -> Tensor | list[Tensor]:
        """Hidden states [N, D] of token ids int64 [N] with lengths of at least 1.

        all_states: return the layers + 1 states instead, the embeddings first. Raises InputError for ids outside the
        vocabulary, an empty text, and a text longer than learned positions reach.
        """
        ids, lengths = inputs.values, inputs.lengths
        self._check(ids, lengths)
        longest = int(lengths.max())
        real = mask = None
        if int(lengths.min()) == longest:
            batch = ids.view(len(lengths), longest)
        else:
            real = (torch.arange(longest) < lengths[:, None]).to(ids.device)
            batch = ids.new_zeros(real.shape).masked_scatter(real, ids)
            mask = real.long()
        options = {"use_cache": False} if getattr(self.model.config, "use_cache", None) is not None else {}
        out = self.model(input_ids=batch, attention_mask=mask, output_hidden_states=all_states, **options)
        states = out.hidden_states if all_states else (out.last_hidden_state,)
        flat = [state.flatten(0, 1) if real is None else state[real] for state in states]
        return flat if all_states else flat[0]

    def _check(self, ids: Tensor, lengths: Tensor) -> None:
        if ids.ndim != 1 or ids.dtype not in (torch.int64, torch.int32):
            raise InputError(f"token ids: {ids.dtype} {list(ids.shape)}; expected int64 [N], texts end to end")
        if not len(lengths) or int(lengths.min()) < 1:
            raise InputError(
                f"texts of lengths {lengths.tolist()[:8]}: at least one text, and a token in each, is needed"
            )
        limit = _position_limit(self.model)
        if limit is not None and int(lengths.max()) > limit:
            raise InputError(f"a text of {int(lengths.max())} tokens, but learned positions end at {limit}: cut it")
        # On a GPU this check would wait for the device; there the kernel's own assertion speaks.
        if ids.device.type == "cpu":
            vocab = self.model.get_input_embeddings().num_embeddings
            outside = ids[(ids < 0) | (ids >= vocab)]
            if len(outside):
                raise InputError(
                    f"token id {int(outside[0])} is outside the vocabulary of {vocab:,} (0 to {vocab - 1})"
                )

    def save(self, folder: Path) -> Path:
        """Write the model as a plain Hugging Face folder (safetensors), adapters merged; returns ``folder``.

        The model itself is not changed: it can be trained on. Raises ConflictError where ``folder`` exists and is not
        empty, StorageError when the disk refuses.
        """
        folder = Path(folder)
        with new_folder(folder) as temporary, quiet(require("transformers", why=f"saving {folder.name!r}")):
            self.model.save_pretrained(temporary, safe_serialization=True, state_dict=_merged(self.model))
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(temporary)
        return folder


@torch.no_grad()
def _sees_future(adapted: Adapted) -> set[bool]:
    """Whether the last token of a text changes the states before it: in a batch without padding, and in one with."""
    top = adapted.model.get_input_embeddings().num_embeddings - 1
    first = torch.arange(1, 7) % top
    found = set()
    for lengths in ([6], [6, 3]):
        states = []
        for last in (0, top):
            values = torch.cat([first[:5], torch.tensor([last]), first[:3]])[: sum(lengths)]
            states.append(adapted(Ragged(values, torch.tensor(lengths)))[:5])
        changed = (states[0] - states[1]).abs().max()
        # Rounding may differ where the last token changes how work is divided (experts); what is seen changes more.
        found.add(bool(changed > 1e-5 * states[0].abs().max()))
    return found


def _position_limit(model: Any) -> int | None:
    """The longest text for which there are learned positions; None where positions are computed."""
    limits = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and re.fullmatch(r"(.*\.)?(wpe|\w*position\w*)", name):
            # RoBERTa's family counts from the row after the one for padding.
            limits.append(module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    if not limits:
        return None
    return min([*limits, int(getattr(model.config, "max_position_embeddings", limits[0]))])


def _inject(model: Any, lora: LoRAConfig) -> None:
    """Put adapters into ``model``; everything else is frozen."""
    peft = require("peft", why="LoRA")
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets) or "all-linear",
        exclude_modules=r"(.*\.)?pooler\..*" if hasattr(model, "pooler") else None,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about layouts (Conv1D, experts) that it then handles
            peft.inject_adapter_in_model(config, model)
    except ValueError as error:
        names = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, nn.Linear)}
        wanted = ", ".join(lora.targets) or "this model"
        raise InputError(
            f"LoRA cannot adapt {wanted}; its linear layers: {', '.join(sorted(names)) or 'none'}"
        ) from error


@torch.no_grad()
def _merged(model: Any) -> dict[str, Tensor]:
    """The weights under their own names, with every adapter's product added to the matrix it adapts.

    Not ``merge_and_unload`` of a copy: only the adapted matrices are held twice, and what is trained stays as it is.
    """
    state = {}
    for name, value in model.state_dict().items():
        if ".lora_" in name:
            continue
        path, _, leaf = name.rpartition(".")
        # Usually one wrapper around one matrix; around the stacked matrices of experts there is one for each of them.
        while path.endswith(".base_layer"):
            path = path.removesuffix(".base_layer")
            wrapper = model.get_submodule(path)
            if getattr(wrapper, "parameter_name", "weight") == leaf:
                value = value + wrapper.get_delta_weight("default")
        state[f"{path}.{leaf}".removeprefix(".")] = value
    return state
