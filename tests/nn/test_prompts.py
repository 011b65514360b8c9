"""Prompts for causal models: which tokens are pooled, by hand; averages over prompts; cuts; what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="backbones need torch: pip install 'nextvec[hf]'")
transformers = pytest.importorskip("transformers", reason="backbones need transformers: pip install 'nextvec[hf]'")

sys.path.insert(0, str(Path(__file__).parents[1] / "encoder"))

from tiny_models import configs, make_tokenizer  # noqa: E402

from nextvec.data.relevance import relevance_of_pairs  # noqa: E402
from nextvec.evaluate.task_kinds import retrieve  # noqa: E402
from nextvec.nn.backbones.adapt import Adapted  # noqa: E402
from nextvec.prompts import RECIPES, Prompt, PromptEncoder  # noqa: E402
from nextvec.types import InputError, NotFoundError  # noqa: E402


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    folder = tmp_path_factory.mktemp("causal")
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(3)
    model = transformers.AutoModel.from_config(configs()["llama"])
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(4)  # so that tokens do look at one another
    model.save_pretrained(folder)
    make_tokenizer(folder, special=False)
    return Adapted.load(folder)


def ids_of(backbone: Adapted, text: str) -> list[int]:
    found: list[int] = backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def states_of(backbone: Adapted, ids: list[int], layer: int = -1) -> np.ndarray:
    with torch.inference_mode():
        out = backbone.model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    states: np.ndarray = out.hidden_states[layer][0].numpy()
    return states


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def begin(backbone: Adapted) -> list[int]:
    bos = backbone.tokenizer.bos_token_id
    return [] if bos is None else [bos]


def test_the_last_token_of_the_prompt_stands_for_the_text(backbone: Adapted) -> None:
    encoder = PromptEncoder(backbone, [Prompt("the {text} is a")], layer=1)
    ids = [*begin(backbone), *ids_of(backbone, "the"), *ids_of(backbone, " cat sat"), *ids_of(backbone, " is a")]
    np.testing.assert_allclose(encoder.encode(["cat sat"])[0], unit(states_of(backbone, ids, 1)[-1]), atol=1e-5)


def test_echo_averages_the_second_copy_alone(backbone: Adapted) -> None:
    encoder = PromptEncoder(backbone, [Prompt("a {text} on {text} dog", take="text")])
    text = ids_of(backbone, " cat sat")
    before, between = [*begin(backbone), *ids_of(backbone, "a")], ids_of(backbone, " on")
    ids = [*before, *text, *between, *text, *ids_of(backbone, " dog")]
    first = len(before) + len(text) + len(between)
    expected = unit(states_of(backbone, ids)[first : first + len(text)].mean(0))
    np.testing.assert_allclose(encoder.encode(["cat sat"])[0], expected, atol=1e-5)
    # In a causal model the second copy has seen the text's end, and the first has not.
    once = PromptEncoder(backbone, [Prompt("a {text} on", take="text")]).encode(["cat sat"])[0]
    assert float(once @ expected) < 0.999


def test_several_prompts_are_averaged(backbone: Adapted) -> None:
    prompts = [Prompt("the {text} is"), Prompt("a {text} on")]
    both = PromptEncoder(backbone, prompts)
    apart = [both._vectors([ids_of(backbone, " cat")], p).numpy()[0] for p in (0, 1)]
    np.testing.assert_allclose(both.encode(["cat"])[0], unit((apart[0] + apart[1]) / 2), atol=1e-5)


def test_every_recipe_gives_one_vector_whatever_stands_beside_it(backbone: Adapted) -> None:
    texts = ["the cat sat on the mat", "a dog", "", "cat " * 300, "the dog"]
    for name in RECIPES:
        encoder = PromptEncoder(backbone, name, max_length=120)
        together = encoder.encode(texts)
        assert together.shape == (5, backbone.dim)
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), [1, 1, 0, 1, 1], atol=1e-5)
        for i in (0, 1, 3):
            np.testing.assert_allclose(encoder.encode([texts[i]])[0], together[i], atol=1e-5)


def test_a_long_text_is_cut_and_its_prompt_is_not(backbone: Adapted) -> None:
    encoder = PromptEncoder(backbone, [Prompt("the {text} is a")], max_length=10)
    room = 10 - len([*begin(backbone), *ids_of(backbone, "the"), *ids_of(backbone, " is a")])
    ids = [
        *begin(backbone),
        *ids_of(backbone, "the"),
        *ids_of(backbone, " cat" * 50)[:room],
        *ids_of(backbone, " is a"),
    ]
    assert len(ids) == 10
    np.testing.assert_allclose(encoder.encode(["cat" + " cat" * 49])[0], unit(states_of(backbone, ids)[-1]), atol=1e-5)


def test_tasks_run_on_it(backbone: Adapted) -> None:
    encoder = PromptEncoder(backbone, "echo")
    texts = ["the cat sat", "a dog on the mat", "the mat"]
    outcome = retrieve(encoder.encode, relevance_of_pairs(["a", "b", "c"], texts, texts), ("recall@1",))
    assert outcome.measures()["recall@1"] == 1.0  # each finds itself


def test_what_cannot_be_used_is_said(backbone: Adapted) -> None:
    with pytest.raises(NotFoundError, match=r"no recipe 'eco'.*did you mean 'echo'"):
        PromptEncoder(backbone, "eco")
    with pytest.raises(InputError, match=r"layer is 9; there are states 0 .* to 2"):
        PromptEncoder(backbone, "echo", layer=9)
    with pytest.raises(InputError, match="leaves no room for a text in 3 tokens"):
        PromptEncoder(backbone, "prompt_eol", max_length=3)
    with pytest.raises(InputError, match=r"has no '\{text\}'"):
        Prompt("no place")
    with pytest.raises(InputError, match="has no tokenizer"):
        PromptEncoder(Adapted(backbone.model), "echo")
