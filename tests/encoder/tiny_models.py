"""Texts, tokenizers and configurations of small models with random weights."""

from __future__ import annotations

from pathlib import Path

WORDS = """the a of and in to we is for model learning embedding retrieval search graph token vector image text data
deep neural network attention large language reasoning compress latent predict next sentence query paper""".split()  # noqa: SIM905

TEXTS = [
    "We predict the next latent embedding of a sentence.",
    "search",
    "large language model reasoning in latent vector data " * 6,
    "A graph of tokens and images, for retrieval!",
    "deep neural network",
    "unknownword zebra the",
]


def make_tokenizer(folder: Path, *, special: bool, length: int = 64) -> None:
    """A word-level tokenizer with (or without) [CLS] and [SEP], saved as transformers saves it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate([*names, *WORDS, ".", ",", "!"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=length,
    )
    wrapped.save_pretrained(folder)


def configs() -> dict[str, object]:
    from transformers import BertConfig, LlamaConfig, ModernBertConfig, Qwen3Config, RobertaConfig

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return {
        "bert": BertConfig(vocab_size=64, max_position_embeddings=64, **small),
        "roberta": RobertaConfig(vocab_size=64, max_position_embeddings=70, pad_token_id=0, **small),
        "modernbert": ModernBertConfig(
            vocab_size=64, max_position_embeddings=64, pad_token_id=0, cls_token_id=2, sep_token_id=3, **small
        ),
        "llama": LlamaConfig(vocab_size=64, max_position_embeddings=64, num_key_value_heads=2, **small),
        "qwen3": Qwen3Config(vocab_size=64, max_position_embeddings=64, num_key_value_heads=2, head_dim=8, **small),
    }


ARCHITECTURES = ("bert", "roberta", "modernbert", "llama", "qwen3")
