"""Any Hugging Face or sentence-transformers checkpoint as a backbone: token ids to hidden states, texts end to end.

BERT-shaped models on the CPU go through the padding-free pass of ``bert_packed``; every other architecture through
its own ``transformers`` class on padded batches. Only safetensors are read, and never a model's own code.

Legend: N tokens, B texts, T longest text, D width, L layers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nextvec.extras import require
from nextvec.nn.layout import read_json, require_safetensors
from nextvec.types import InputError, NextvecError

PRECISIONS = ("auto", "fp32", "bf16")


def fast_bf16(device: str) -> bool:
    """Whether ``device`` multiplies bfloat16 in hardware: AMX or AVX512-BF16 on a CPU, Ampere or newer on a GPU."""
    torch = require("torch", why="asking for CPU features")
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    if device != "cpu":
        return False
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def pick_device(device: str) -> str:
    """``auto`` becomes "cuda" where there is one, else "cpu"; anything else is returned as it is."""
    torch = require("torch", why="choosing a device")
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Options of every ``from_pretrained``: no network, and never a model's own code."""


@contextmanager
def opening(folder: Path) -> Iterator[Any]:
    """The ``transformers`` module, quiet, for loading from the model folder ``folder`` with ``LOCAL``.

    Refuses what is no complete model in safetensors before the block runs; what ``transformers`` raises in it becomes
    an InputError of one line.
    """
    transformers = require("transformers", why=f"loading {folder.name!r}")
    read_json(folder / "config.json")
    require_safetensors(folder)
    if (folder / "adapter_config.json").is_file():
        # Where peft is installed, transformers would follow it to whatever base model it names.
        raise InputError(f"{str(folder)!r} holds an adapter (adapter_config.json): merge it into its base model first")
    try:
        with quiet(transformers):
            yield transformers
    except NextvecError:
        raise
    except Exception as error:  # transformers raises every kind for a folder that is damaged or unknown
        first = str(error).strip().split("\n")[0][:300]
        raise InputError(f"{str(folder)!r} cannot be loaded as a Hugging Face model: {first}") from error


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """No progress bars and no warnings of the module ``transformers`` in the block: the bars on the screen are ours."""
    logging = transformers.utils.logging
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


class HFBackbone:
    """A transformer checkpoint with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, *, max_length: int, device: str, lower_case: bool = False) -> None:
        """model: a ``transformers`` model; tokenizer: its fast tokenizer; max_length: tokens kept per text."""
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.device = device
        self.lower_case = lower_case
        self._passes: dict[str, Any] = {}

    @property
    def dim(self) -> int:
        """The width D of a hidden state."""
        return int(self.model.config.hidden_size)

    @property
    def layers(self) -> int:
        """The number L of transformer layers; 0 where the configuration does not say it."""
        return int(getattr(self.model.config, "num_hidden_layers", 0))

    @classmethod
    def load(cls, folder: Path, *, device: str, max_length: int | None, lower_case: bool = False) -> HFBackbone:
        """Load the checkpoint in ``folder`` in float32."""
        with opening(folder) as transformers:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **LOCAL)
            model = transformers.AutoModel.from_pretrained(folder, use_safetensors=True, dtype="float32", **LOCAL)
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(f"{str(folder)!r} has no fast tokenizer (tokenizer.json), which is needed")
        length = _max_length(model.config, tokenizer, max_length)
        return cls(model.to(device), tokenizer, max_length=length, device=device, lower_case=lower_case)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text with the model's special tokens, cut to ``max_length``."""
        fast = self.tokenizer._tokenizer
        fast.no_padding()
        fast.enable_truncation(self.max_length)
        if self.lower_case:
            texts = [text.lower() for text in texts]
        return [encoding.ids for encoding in fast.encode_batch_fast(list(texts))]

    def prompt_tokens(self, prompt: str) -> int:
        """How many leading tokens the prompt takes (special tokens in front included, at its end not)."""
        ids = self.tokenize([prompt])[0]
        return len(ids) - bool(ids and ids[-1] in self.tokenizer.all_special_ids)

    def batch_tokens(self, precision: str) -> int:
        """The batch size that suits ``precision``: above it, activations spill from cache (measured)."""
        return 1024 if self._resolved(precision) == "fp32" else 2048

    def hidden(self, ids: Sequence[Sequence[int]], *, precision: str, layers: int | None = None) -> tuple[Any, Any]:
        """Last hidden states of a batch: ([N, D], lengths int64 [B]), in the precision's dtype.

        precision: "fp32", "bf16", or "auto" (bf16 where the hardware multiplies it, else fp32); layers: run the first
        n < L layers only and return the n-th one's output, which is ``hidden_states[n]`` of transformers: a final
        norm belongs to all L layers (None) alone.
        """
        import torch

        lengths = [len(text) for text in ids]
        run = self._pass(precision)
        flat = torch.tensor([token for text in ids for token in text], dtype=torch.long, device=self.device)
        return run(flat, lengths, layers), torch.tensor(lengths, dtype=torch.long, device=self.device)

    def _resolved(self, precision: str) -> str:
        if precision not in PRECISIONS:
            raise InputError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
        if precision == "auto":
            return "bf16" if fast_bf16(self.device) else "fp32"
        return precision

    def _pass(self, precision: str) -> Any:
        import torch

        precision = self._resolved(precision)
        if precision not in self._passes:
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            self._passes[precision] = self._build(dtype)
        return self._passes[precision]

    def _build(self, dtype: Any) -> Any:
        from nextvec.nn.backbones.bert_packed import PackedBert, supports

        if self.device == "cpu" and supports(self.model.config):
            return PackedBert(self.model, dtype=dtype)
        model = self.model if next(self.model.parameters()).dtype == dtype else copy.deepcopy(self.model).to(dtype)
        return _Padded(model)


class _Padded:
    """The model's own forward pass on a right-padded batch, its padding removed again."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._cut: dict[int, Any] = {}

    def __call__(self, flat: Any, lengths: list[int], layers: int | None = None) -> Any:
        import torch

        if layers is not None and layers not in self._cut:
            self._cut[layers] = _stopping_after(self.model, layers)
        model = self.model if layers is None else self._cut[layers]
        with torch.inference_mode():
            counts = torch.tensor(lengths, device=flat.device)
            mask = torch.arange(max(lengths), device=flat.device)[None, :] < counts[:, None]
            ids = torch.zeros(mask.shape, dtype=torch.long, device=flat.device)
            ids[mask] = flat
            options = {"use_cache": False} if getattr(model.config, "use_cache", None) is not None else {}
            try:
                return model(input_ids=ids, attention_mask=mask.long(), **options).last_hidden_state[mask]
            except _Reached as reached:
                return reached.state[mask]


class _Reached(Exception):
    """Thrown by the last layer to run, with its output: whatever the model would do after it is not done."""

    def __init__(self, state: Any) -> None:
        super().__init__("the last layer asked for has run")
        self.state = state


def _stopping_after(model: Any, layers: int) -> Any:
    """A copy of ``model`` (weights shared) that raises ``_Reached`` after layer ``layers``.

    Architectures differ in what they do after their layers, but not in keeping these in one list of length L; so the
    copy differs in one place only, and threads that run other depths meanwhile are not disturbed.
    """
    from torch import nn

    total = model.config.num_hidden_layers
    lists = [name for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part) == total]
    if not lists:
        raise InputError(f"layers: a {model.config.model_type} model does not keep its layers in one list")
    *outer, name = min(lists, key=len).split(".")
    clone = at = _shallow(model)
    for step in outer:
        at._modules[step] = at = _shallow(at._modules[step])
    blocks = list(at._modules[name])
    blocks[layers - 1] = last = _shallow(blocks[layers - 1])
    run = last.forward

    def forward(*args: Any, **options: Any) -> Any:
        out = run(*args, **options)
        raise _Reached(out[0] if isinstance(out, tuple) else out)

    last.forward = forward
    at._modules[name] = nn.ModuleList(blocks)
    return clone


def _shallow(module: Any) -> Any:
    """A copy that shares every part and weight, but whose parts can be exchanged without touching the original."""
    clone = copy.copy(module)
    clone._modules = dict(module._modules)
    return clone


def _max_length(config: Any, tokenizer: Any, asked: int | None) -> int:
    """The length limit: as asked, else the smaller of what positions and tokenizer allow (as transformers does)."""
    limits = [n for n in (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length) if n]
    known = min((int(n) for n in limits if n < 1_000_000), default=512)
    return min(asked, known) if asked else known
