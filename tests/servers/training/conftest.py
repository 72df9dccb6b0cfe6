"""A home folder whose toy task has a real, randomly initialised Qwen3 model of a few thousand parameters."""

from collections.abc import Callable
from pathlib import Path

import pytest

from outlearn.tasks import TaskCard, load_public

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # tiny models gain nothing from more, and lose much where cores are shared

VOCABULARY = [*"0123456789", " ", "is odd", "!", " no", " yes", " False", " True", "<pad>"]


def write_toy_model(folder: Path) -> Path:
    """Write a model that `from_pretrained` loads."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    words = {word: i for i, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="!"))
    pattern = Regex(r"is odd| no| yes| False| True|.")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, "isolated")  # type: ignore[assignment]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>").save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `from_pretrained` loads."""
    return write_toy_model(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture
def home(tmp_path: Path, toy_model: Path, write_task_for: Callable[[Path, str], TaskCard]) -> Path:
    """A home folder for the training server."""
    write_task_for(tmp_path / "home", str(toy_model))
    return tmp_path / "home"


@pytest.fixture
def card(home: Path) -> TaskCard:
    return load_public(home, "toy").card
