"""Local files: every format gives the same rows, and every sort of malformed row is told apart, with its line."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlearn.errors import InvalidInputError, NotFoundError
from outlearn.sources import (
    BAD_LABEL,
    BAD_SYNTAX,
    DUPLICATE_ID,
    EMPTY_TEXT,
    MISSING_COLUMN,
    NO_TEXT,
    NOT_UTF8,
    UNUSABLE,
    BadRow,
    Example,
    SourceRequest,
)
from outlearn_training.data import alpaca_eval, gsm8k, hub, local
from outlearn_training.data.files import _parse, sha256_of
from outlearn_training.data.scan import Scan, keep_first

ROWS = [{"q": "1+1", "a": "2", "ok": "true"}, {"q": "1+2", "a": "4, surely", "ok": "false"}]
COLUMNS = {"prompt": "q", "response": "a", "label": "ok"}
PAIR_COLUMNS = {"prompt": "q", "a": "x", "b": "y", "label": "best"}


def read(path: Path, **options: object) -> list[Example | BadRow]:
    return list(local.SOURCE.rows(SourceRequest(files=(path,), columns=COLUMNS, **options)))  # type: ignore[arg-type]


def write_lines(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def in_format(folder: Path, name: str) -> Path:
    path = folder / name
    text = "\n".join(json.dumps(row) for row in ROWS)
    if ".json" in name and ".jsonl" not in name:
        array = json.dumps(ROWS, indent=1).encode()
        path.write_bytes(gzip.compress(array) if name.endswith(".gz") else array)
    elif ".jsonl" in name:
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    elif name == "data.parquet":
        import pyarrow as pa
        from pyarrow.parquet import write_table

        write_table(pa.Table.from_pylist(ROWS), path)
    elif name == "dataset":
        import datasets

        datasets.Dataset.from_list(ROWS).save_to_disk(str(path))
    else:
        comma = "," if ".csv" in name else "\t"
        table = f'q{comma}a{comma}ok\n1+1{comma}2{comma}true\n1+2{comma}"4, surely"{comma}false\n'
        path.write_bytes(gzip.compress(table.encode()) if name.endswith(".gz") else table.encode("utf-8-sig"))
    return path


@pytest.mark.parametrize(
    "name",
    ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz", "a.csv", "a.csv.gz", "a.tsv", "data.parquet", "dataset"],
    ids=str,
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    shares: list[float] = []
    found = read(in_format(tmp_path, name), on_share=shares.append)
    assert [(one.prompt, one.responses, one.label) for one in found if isinstance(one, Example)] == [
        ("1+1", ("2",), 1),
        ("1+2", ("4, surely",), 0),
    ]
    assert shares[-1] == 1
    assert all(0 <= share <= 1 for share in shares)


def test_each_sort_of_malformed_row_is_named_with_its_line(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "rows.jsonl",
        b'{"q": "1", "a": "1", "ok": true, "id": "one"}',
        b'{"q": "2", "a": ',
        b"[1, 2]",
        b'{"q": "3", "a": "\xff", "ok": true, "id": "three"}',
        b'{"q": "4", "a": "\\ud800", "ok": true, "id": "four"}',
        b'{"q": "5", "ok": true, "id": "five"}',
        b'{"q": "6", "a": " ", "ok": true, "id": "six"}',
        b'{"q": "7", "a": "7", "ok": "perhaps", "id": "seven"}',
        b"",
        b'{"q": "8", "a": "8", "ok": true, "id": "one"}',
        b"[" * 100_000,
    )
    request = SourceRequest(files=(path,), columns=COLUMNS | {"id": "id"})
    scan = Scan(tmp_path / "vault")
    scan.read(local.SOURCE.rows(request))
    assert sorted((bad.line, bad.reason) for bad in scan.bad_rows) == [
        (2, BAD_SYNTAX),
        (3, BAD_SYNTAX),
        (4, NOT_UTF8),
        (5, NOT_UTF8),
        (6, MISSING_COLUMN),
        (7, EMPTY_TEXT),
        (8, BAD_LABEL),
        (10, DUPLICATE_ID),
        (11, BAD_SYNTAX),
    ]
    assert scan.bad_counts.total() == 9
    assert [one.prompt for one in scan.examples(keep_first(scan)[0].tolist())] == ["1"]
    scan.close()


def test_malformed_csv_rows_are_named_with_their_line(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.csv", b"q,a,ok", b"1,1", b"2,\xff,true", b'3,"3" x,true', b"4,4,true")
    found = read(path)
    assert [(one.line, one.reason) for one in found if isinstance(one, BadRow)] == [
        (2, BAD_SYNTAX),
        (3, NOT_UTF8),
        (4, BAD_SYNTAX),
    ]
    assert [one.prompt for one in found if isinstance(one, Example)] == ["4"]


def test_a_row_that_is_far_too_long_is_one_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlearn_training.data.files.MAX_ROW_BYTES", 60)
    path = write_lines(tmp_path / "a.jsonl", b"x" * 1000, b'{"q": "1", "a": "1", "ok": 1}')
    first, second = read(path)
    assert first == BadRow(1, BAD_SYNTAX, "longer than 60 bytes")
    assert isinstance(second, Example)
    assert second.line == 2


@given(st.binary(max_size=60))
def test_any_bytes_are_a_record_or_a_bad_row(line: bytes) -> None:
    assert isinstance(_parse(line, 1), dict | BadRow)


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        ("a.jsonl.gz", b"no gzip", "no whole gzip"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 5000, mtime=0)[:-12], "no whole gzip"),
        ("a.parquet", b"no parquet", "Parquet"),
        ("a.xlsx", b"", "unknown format"),
        ("a.json", b'{"q": 1}', "no JSON array of objects"),
        ("a.json", b'{"q": 1}\n{"q": 2}', "one object a line is called .jsonl.*Extra data"),
        ("a.json", b"[\xff]", "no JSON array.*utf-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, data: bytes, error: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidInputError, match=error):
        read(tmp_path / name)


def test_an_array_in_a_file_of_lines_is_told_to_be_one_object_a_line(tmp_path: Path) -> None:
    for line in (b"[", b"[]"):
        [bad] = read(write_lines(tmp_path / "a.jsonl", line))
        assert bad == BadRow(1, BAD_SYNTAX, "each line must be one JSON object; an array is called .json")


def test_what_is_no_object_in_an_array_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([ROWS[0], 7]))
    assert read(tmp_path / "a.json")[1] == BadRow(2, BAD_SYNTAX, "no object")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"gone\.jsonl"):
        read(tmp_path / "gone.jsonl")
    with pytest.raises(NotFoundError, match=r"gone\.jsonl"):
        sha256_of(tmp_path / "gone.jsonl")


def test_a_dataset_with_several_splits_needs_a_choice(tmp_path: Path) -> None:
    import datasets

    both = datasets.DatasetDict({name: datasets.Dataset.from_list(ROWS) for name in ("train", "test")})
    both.save_to_disk(str(tmp_path / "both"))
    with pytest.raises(InvalidInputError, match=r"split=NAME: test, train"):
        read(tmp_path / "both")
    assert len(read(tmp_path / "both", options={"split": "test"})) == 2
    assert sha256_of(tmp_path / "both") == sha256_of(tmp_path / "both")


def test_columns_and_classes_are_the_users(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl",
        b'{"q": "hi", "x": "one", "y": "two", "best": 2.0, "meta": {"topic": "t"}}',
        b'{"q": "hi", "x": "one", "y": "two", "best": 0}',
    )
    columns = PAIR_COLUMNS | {"group": "meta.topic"}
    found = list(local.SOURCE.rows(SourceRequest(files=(path,), columns=columns, classes=("1", "2"))))
    assert found[0] == Example(1, "t", "hi", ("one", "two"), 1)
    assert found[1] == BadRow(2, MISSING_COLUMN, "no 'meta.topic'; there are 'q', 'x', 'y', 'best'")
    found = list(local.SOURCE.rows(SourceRequest(files=(path,), columns=PAIR_COLUMNS, classes=("1", "2"))))
    assert isinstance(found[1], BadRow)
    assert found[1].reason == BAD_LABEL


def test_a_whole_number_is_text_and_a_list_is_none_and_a_null_is_told_apart_from_a_wrong_name(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl",
        b'{"q": "hi", "x": 5, "y": -2, "best": "a"}',
        b'{"q": "hi", "x": 5, "y": ["two"], "best": "a"}',
        b'{"q": "hi", "x": 5.5, "y": true, "best": "a"}',
        b'{"q": "hi", "x": null, "y": "two", "best": "a"}',
    )
    assert list(local.SOURCE.rows(SourceRequest(files=(path,), columns=PAIR_COLUMNS))) == [
        Example(1, "hi", "hi", ("5", "-2"), 0),
        BadRow(2, NO_TEXT, "column 'y': neither text nor a whole number"),
        BadRow(3, NO_TEXT, "column 'x', 'y': neither text nor a whole number"),
        BadRow(4, MISSING_COLUMN, "no 'x'"),
    ]


@pytest.mark.parametrize("columns", [{}, {"prompt": "q"}, {"text": "q", "label": "ok", "response": "a"}])
def test_a_mapping_that_says_too_little_or_too_much_is_refused(tmp_path: Path, columns: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError, match="--map"):
        list(local.SOURCE.rows(SourceRequest(files=(tmp_path,), columns=columns)))


def test_the_same_classes_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="the same"):
        read(in_format(tmp_path, "a.jsonl"), classes=("Yes", "yes "))


def test_gsm8k_gives_one_row_for_each_solution(tmp_path: Path) -> None:
    row = {
        "question": "How many?",
        "ground_truth": "2",
        "6b": {"solution": "1 + 1 = <<1+1=2>>2", "is_correct": True},
        "175b": {"solution": "3", "is_correct": "no"},
        "other": {"is_correct": False},
    }
    path = write_lines(tmp_path / "a.jsonl", json.dumps(row).encode(), b'{"question": "Why?"}')
    found = list(gsm8k.SOURCE.rows(SourceRequest(files=(path,))))
    assert found[0] == Example(1, "How many?", "How many?", ("1 + 1 = 2",), 1)
    assert [one.reason for one in found[1:] if isinstance(one, BadRow)] == [BAD_LABEL, MISSING_COLUMN, MISSING_COLUMN]


def test_alpaca_eval_refuses_ties(tmp_path: Path) -> None:
    row = {"instruction": "Say hi", "output_1": "hi", "output_2": "ho", "preference": 2.0}
    lines = [json.dumps(row | {"preference": value}).encode() for value in (1.0, 2.0, 1.5)]
    found = list(alpaca_eval.SOURCE.rows(SourceRequest(files=(write_lines(tmp_path / "a.jsonl", *lines),))))
    assert [one.label for one in found if isinstance(one, Example)] == [0, 1]
    assert isinstance(found[2], BadRow)


HUB_ROWS = {
    "HELPSTEER2": {"prompt": "p", "response_1": "a", "response_2": "b", "preference_strength": 2},
    "HELPSTEER3": {
        "context": [{"role": "user", "content": "p"}],
        "response1": "a",
        "response2": "b",
        "overall_preference": 1,
    },
    "REWARD_BENCH_2": {"id": "7", "prompt": "p", "chosen": ["b"], "rejected": ["a"]},
    "RM_BENCH": {"id": "7", "prompt": "p", "chosen": ["b"], "rejected": ["a"]},
    "OPENR1_MATH": {"problem": "p", "generations": ["b"], "correctness_math_verify": [True]},
    "CODE_CONTESTS": {
        "name": "n",
        "description": "p",
        "solutions": {"language": [3, 2], "solution": ["b", "c++"]},
        "incorrect_solutions": {"language": [], "solution": []},
    },
}


@pytest.mark.parametrize("name", HUB_ROWS)
def test_hub_rows_become_examples_and_rows_of_another_shape_bad_rows(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    asked: list[object] = []

    def load(dataset: str, **how: object) -> datasets.Dataset:
        asked.append((dataset, how["split"]))
        return [HUB_ROWS[name], {"other": 1}]  # type: ignore[return-value]

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = getattr(hub, name)
    first, second = source.rows(SourceRequest())
    assert first.prompt == "p"
    better = first.responses[first.label] if len(first.responses) == 2 else first.responses[0]
    assert better == "b"
    assert second == BadRow(2, MISSING_COLUMN, second.detail)
    assert asked == [(source.name, source.split)]
    with pytest.raises(InvalidInputError, match="from the hub"):
        list(source.rows(SourceRequest(files=(Path("x"),))))


@pytest.mark.parametrize("name", HUB_ROWS)
def test_a_dataset_with_the_columns_of_one_on_the_hub_becomes_the_same_examples(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    whole = HUB_ROWS[name]
    datasets.Dataset.from_list([whole, dict.fromkeys(whole), whole]).save_to_disk(tmp_path / "saved")
    saved = datasets.load_from_disk(str(tmp_path / "saved"))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: saved)
    source, shares = getattr(hub, name), list[float]()
    first, hollow, last = source.rows(SourceRequest(on_share=shares.append))
    (alone,) = source.read(1, whole)
    assert (first, last) == (alone, replace(alone, line=3))
    assert hollow == BadRow(2, MISSING_COLUMN, hollow.detail)
    assert shares[-1] == 1


def test_a_hub_that_cannot_be_reached_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(dataset: str, **how: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(InvalidInputError, match=r"cannot load 'nvidia/HelpSteer3'.*no network"):
        list(hub.HELPSTEER3.rows(SourceRequest()))


def test_a_tie_on_the_hub_is_a_bad_row_and_turns_keep_their_roles() -> None:
    tie = HUB_ROWS["HELPSTEER3"] | {"overall_preference": 0}
    (row,) = hub.HELPSTEER3.read(1, tie)
    assert isinstance(row, BadRow)
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert hub.conversation(turns) == hub.conversation(json.dumps(turns)) == "User: a\n\nAssistant: b"


def test_a_pair_of_equal_responses_is_unusable(tmp_path: Path) -> None:
    scan = Scan(tmp_path / "vault")
    scan.read([Example(1, "g", "p", ("Same  text", "same text"), 0), Example(2, "g", "p", ("a",), 2)])
    assert [bad.reason for bad in scan.bad_rows] == [UNUSABLE, BAD_LABEL]
    scan.close()
