"""Where models are: what is in the way of using them, and their tokens for label words, without network or torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from outlearn.errors import InvalidInputError
from outlearn_training.places import GGUF, caveat, check_words, is_to_be_fetched, single_tokens

WORDS = (" False", " True")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the Hugging Face hub with one model in it, `some/model`, whose weights are an empty file."""
    from outlearn_training.testbed import CHECKPOINTS

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / "models--some--model"
    files = model / "snapshots" / "abc"
    files.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("abc")
    (files / "config.json").write_text("{}")
    (files / "model.safetensors").touch()
    (files / "tokenizer.json").write_bytes((CHECKPOINTS / "math/student/tokenizer.json").read_bytes())
    return files


def test_a_model_that_is_at_hand_has_no_caveat(cache: Path) -> None:
    assert caveat("some/model") == caveat(str(cache)) == ""


def test_only_a_hub_model_that_is_not_all_here_is_fetched(cache: Path) -> None:
    names = ("some/model", str(cache), str(cache / "nowhere"), "no folder", "tiny/math/student", "some/other")
    assert [name for name in names if is_to_be_fetched(name)] == ["some/other"]
    (cache / "model.safetensors").unlink()
    assert is_to_be_fetched("some/model")
    (cache / "model.safetensors.index.json").write_text('{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}')
    (cache / "1.safetensors").touch()
    assert is_to_be_fetched("some/model")
    (cache / "2.safetensors").touch()
    assert not is_to_be_fetched("some/model")
    assert is_to_be_fetched("some/model/q4.gguf")
    (cache / "q4.gguf").touch()
    assert not is_to_be_fetched("some/model/q4.gguf")


def test_whoever_set_the_hub_offline_is_not_told_of_a_download(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "`calibrate` will download it" in caveat("some/other")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE keeps it from being fetched. Without a network" in caveat("some/other")


def test_a_gguf_file_needs_a_package_too(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlearn_training.places.find_spec", lambda name: None)
    assert caveat(str(cache / "m.gguf")).endswith("m.gguf' needs a package that is not installed: " + GGUF)
    assert caveat("package:none_such/m.gguf").endswith(f"pip install --no-deps none-such; {GGUF}")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("tiny/math/student", "nothing but the built-in tasks (math, chat, code); take --profile smol"),
        ("some/other", "'some/other' is no folder here, and not in the cache of the Hugging Face hub"),
        (
            "no folder",
            "no model's folder here, and no name that the Hugging Face hub can have. Without a network take",
        ),
        ("package:none_such/x", "in a package that is not installed: pip install --no-deps none-such"),
    ],
)
def test_what_is_in_the_way_of_a_model_is_told_with_what_to_do(cache: Path, name: str, part: str) -> None:
    assert part in caveat(name)


@pytest.mark.parametrize("name", ["tiny/math/student", "some/model"])
def test_words_are_looked_up_in_the_tokenizer_that_is_at_hand(cache: Path, name: str) -> None:
    check_words(name, WORDS)
    with pytest.raises(InvalidInputError, match=f"'{name}' has no single token for ' B', .*--profile smol"):
        check_words(name, (" True", " B"))
    with pytest.raises(InvalidInputError, match="one token for both of"):
        check_words(name, (" True", " True"))


def test_words_of_a_model_that_is_elsewhere_are_left_to_calibration(cache: Path) -> None:
    for name in ("some/other", "package:none_such/x", "no folder"):
        check_words(name, (" A B", " C D"))


def test_words_have_the_tokens_that_training_uses() -> None:
    pytest.importorskip("torch")
    from outlearn.tasks import FineTuning
    from outlearn_training.model import LabelModel

    model = LabelModel("tiny/math/student", FineTuning(epochs=1, lr=1e-3))
    assert model.tokenizer.decode(model.word_ids(WORDS)) == "".join(WORDS)
    with pytest.raises(InvalidInputError, match="'tiny/math/student' has no single token for ' A' and ' B'"):
        model.word_ids((" A", " B"))
    assert single_tokens("any", WORDS, [[3], [4]]) == [3, 4]


def test_looking_needs_no_torch() -> None:
    code = (
        "import sys; from outlearn_training.places import caveat, check_words\n"
        "check_words('tiny/math/student', (' False', ' True')); caveat('some/model')\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.lower()) is False
