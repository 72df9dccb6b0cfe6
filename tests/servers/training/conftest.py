"""A home folder whose toy task has a real, randomly initialised Qwen3 model of a few thousand parameters."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from outlearn.identity import Caller
from outlearn.tasks import TaskCard, load_public
from outlearn_training.queue.run_queue import RunQueue
from outlearn_training.settings import TrainingSettings
from outlearn_training.workers.executor import LocalExecutor

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # tiny models gain nothing from more, and lose much where cores are shared

AGENTS = count(1)
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


@pytest.fixture(scope="session")
def warm_home(
    tmp_path_factory: pytest.TempPathFactory, toy_model: Path, write_task_for: Callable[[Path, str], TaskCard]
) -> Iterator[Path]:
    """A home folder whose worker stays from test to test."""
    home = tmp_path_factory.mktemp("warm") / "home"
    write_task_for(home, str(toy_model))
    yield home
    LocalExecutor(TrainingSettings(home=home, workers=1)).stop()


@pytest.fixture
def warm(warm_home: Path) -> Iterator[TrainingSettings]:
    """An agent of its own in a home folder with a warm worker, for tests that look at their own runs alone."""
    caller, limits = Caller(agent=f"ada-{next(AGENTS)}"), {"memory_gb": 1, "log_bytes": 10_000}
    settings = TrainingSettings(home=warm_home, workers=1, agent=caller.agent, worker_idle_seconds=3600, **limits)
    yield settings
    queue = RunQueue(settings.database("training"))
    for status in ("queued", "running"):
        for run in queue.page(caller, status=status, limit=50, before=None)[0]:
            queue.cancel(run.run_id, caller)


@pytest.fixture
def card(home: Path) -> TaskCard:
    return load_public(home, "toy").card
