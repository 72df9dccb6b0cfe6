"""Hugging Face hub datasets, by the field names that their dataset cards and users' code give.

They are read through `datasets`, which downloads them on first use and keeps them in its cache. None of these sources
(HelpSteer2, HelpSteer3, RewardBench 2, RM-Bench, OpenR1-Math, CodeContests) was ever run against the real hub: they
were tested with datasets of the same columns. Where a dataset has other columns, all its rows are refused as malformed;
it can be saved and read with `--source local --map ...` then.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from outlearn.errors import InvalidInputError
from outlearn.sources import BAD_LABEL, MISSING_COLUMN, UNUSABLE, BadRow, Example, Kind, Row, SourceRequest
from outlearn_training.data.files import rows_of

Record = Mapping[str, Any]
Reader = Callable[[int, Record], Iterator[Row]]
PYTHON3 = 3  # in code_contests' list of languages


@dataclass(frozen=True)
class Hub:
    """A dataset of the hub. The options `split` and `revision` choose among what it has."""

    name: str
    read: Reader
    kind: Kind | None
    licence: str
    split: str = "train"
    config: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ("split", "revision")

    def rows(self, request: SourceRequest) -> Iterator[Row]:
        """All rows of the split.

        Raises:
            InvalidInputError: a file was named, `datasets` is missing, or the dataset cannot be loaded.
        """
        if request.files:
            raise InvalidInputError(f"{self.name} comes from the hub; leave --file out, or use --source local")
        split = request.options.get("split", self.split)
        for line, record in rows_of(self._load(split, request.options.get("revision")), split, request.on_share):
            try:
                yield from self.read(line, _without_nulls(record))  # type: ignore[arg-type]
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                yield BadRow(line, MISSING_COLUMN, f"{type(error).__name__}: {error}")

    def _load(self, split: str, revision: str | None) -> Any:
        try:
            import datasets
        except ModuleNotFoundError as error:
            raise InvalidInputError(f"hub data needs datasets ({error}): pip install 'outlearn[training]'") from error
        try:
            return datasets.load_dataset(self.name, split=split, revision=revision, **self.config)
        except (OSError, ValueError, RuntimeError) as error:
            raise InvalidInputError(f"cannot load {self.name!r} ({split}) from the hub: {error}") from error


def _without_nulls(record: Record) -> Record:
    """A column that is null is missing."""
    return {name: value for name, value in record.items() if value is not None}


def _helpsteer2(line: int, record: Record) -> Iterator[Row]:
    """`preference_strength`: -3 to 3, negative where response 1 is better."""
    responses = (record["response_1"], record["response_2"])
    yield _signed(line, record["prompt"], responses, record["preference_strength"])


def _helpsteer3(line: int, record: Record) -> Iterator[Row]:
    """`context` is a conversation; `overall_preference`: -3 to 3, negative where response 1 is better."""
    responses = (record["response1"], record["response2"])
    yield _signed(line, conversation(record["context"]), responses, record["overall_preference"])


def _signed(line: int, prompt: str, responses: tuple[str, str], preference: float) -> Row:
    if not preference:
        return BadRow(line, BAD_LABEL, "a tie")
    return Example(line, prompt, prompt, responses, int(preference > 0))


def _best_of(line: int, record: Record) -> Iterator[Row]:
    """Lists of `chosen` and `rejected` responses: each chosen one against each rejected one."""
    for index, (good, bad) in enumerate(product(record["chosen"], record["rejected"])):
        yield Example(line, record["prompt"], record["prompt"], (good, bad), 0, f"{record['id']}/{index}")


def _openr1(line: int, record: Record) -> Iterator[Row]:
    """`generations`, and for each whether math-verify found its answer right."""
    verdicts = record["correctness_math_verify"]
    if len(verdicts) != len(record["generations"]):
        yield BadRow(line, UNUSABLE, "not one verdict for each generation")
        return
    for solution, correct in zip(record["generations"], verdicts, strict=True):
        yield Example(line, record["problem"], record["problem"], (solution,), int(bool(correct)))


def _code_contests(line: int, record: Record) -> Iterator[Row]:
    """`solutions` and `incorrect_solutions`, each with parallel lists `language` and `solution`; Python 3 only."""
    for column, label in (("incorrect_solutions", 0), ("solutions", 1)):
        for language, program in zip(record[column]["language"], record[column]["solution"], strict=True):
            if language == PYTHON3:
                yield Example(line, record["name"], record["description"], (program,), label)


def conversation(turns: object) -> str:
    """A conversation as text: a single turn as it is, several with their roles."""
    messages = json.loads(turns) if isinstance(turns, str) else turns
    if not isinstance(messages, list):
        raise TypeError("a conversation is a list of turns")
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in messages)


HELPSTEER2 = Hub("nvidia/HelpSteer2", _helpsteer2, "chat", "CC BY 4.0 (NVIDIA)", config={"data_dir": "preference"})
HELPSTEER3 = Hub("nvidia/HelpSteer3", _helpsteer3, "chat", "CC BY 4.0 (NVIDIA)", config={"name": "preference"})
REWARD_BENCH_2 = Hub("allenai/reward-bench-2", _best_of, "chat", "ODC-BY (Ai2)", split="test")
RM_BENCH = Hub("THU-KEG/RM-Bench", _best_of, "chat", "ODC-BY (THU-KEG)")
OPENR1_MATH = Hub("open-r1/OpenR1-Math-220k", _openr1, "math", "Apache 2.0 (open-r1)", config={"name": "default"})
CODE_CONTESTS = Hub("deepmind/code_contests", _code_contests, "code", "CC BY 4.0 (Google DeepMind)")
