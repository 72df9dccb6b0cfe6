"""From a file to a prepared task: what is left out, what goes where, what the public may see."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from outlearn.errors import ConflictError, InvalidInputError, OutlearnError, PluginError
from outlearn.prepared import card_markdown, load_prepared, read_prepared
from outlearn.tasks import LabelledItem, task_names
from outlearn_training.data.pipeline import DataRequest, Report, prepare_data
from outlearn_training.data.templates import WORDINGS, compose, wording
from outlearn_training.profiles import load_profile

CLAIMS = {"prompt": "q", "response": "a", "label": "ok"}
PAIRS = {"prompt": "q", "a": "x", "b": "y", "label": "best"}
SIZES = {"train": 20, "pool": 60, "test": 40}
VERBS = ["add", "take", "carry", "paint", "count", "sell", "weigh", "share", "wash", "stack"]


def claims(n: int = 60, each: int = 4) -> list[dict[str, Any]]:
    """Claims that are unlike each other: `each` for each of n questions."""
    words = [f"{verb}{at}" for at in range(n) for verb in VERBS]
    questions = [" ".join(words[10 * at : 10 * at + 10]) for at in range(n)]
    return [{"q": q, "a": f"answer {i} of {q[:9]}", "ok": i % 2 == 0} for q in questions for i in range(each)]


def pairs(n: int = 60) -> list[dict[str, Any]]:
    """Comparisons that the first response always wins."""
    return [{"q": row["q"], "x": f"good {row['a']}", "y": f"poor {row['a']}", "best": "A"} for row in claims(n, 3)]


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ask(path: Path, columns: dict[str, str] = CLAIMS, **changes: Any) -> DataRequest:
    kind = changes.pop("kind", "chat" if columns == PAIRS else "math")
    given = {"name": "mine", "source": "local", "files": (path,), "columns": columns, "kind": kind} | SIZES | changes
    return DataRequest(profile=load_profile("smol"), **given)


def items(home: Path) -> dict[str, list[LabelledItem]]:
    _, pool, secret = load_prepared(home, "mine")
    labelled = [
        LabelledItem(**item.model_dump(), label=label)  # type: ignore[arg-type]
        for item, label in zip(pool, secret.pool_labels, strict=True)
    ]
    return {"train": list(secret.train), "pool": labelled, "test": list(secret.test)}


def test_splits_have_their_sizes_balanced_labels_and_no_group_in_common(tmp_path: Path) -> None:
    card, report = prepare_data(tmp_path / "home", ask(write(tmp_path, claims())))
    splits = items(tmp_path / "home")
    assert {name: len(some) for name, some in splits.items()} == SIZES
    groups = {name: {item.group for item in some} for name, some in splits.items()}
    questions = {name: {item.text.split("\n")[1] for item in some} for name, some in splits.items()}
    for a, b in (("train", "pool"), ("train", "test"), ("pool", "test")):
        assert not groups[a] & groups[b]
        assert not questions[a] & questions[b]
    for some in splits.values():
        assert Counter(item.label for item in some)[1] == len(some) / 2
    assert (report.exact_overlap, report.near_overlap) == (0, 0)
    assert (card.pool_size, card.test_size, card.seeds) == (60, 40, ())


def test_nothing_is_public_before_calibration_and_no_card_tells_a_test_item_or_a_label(tmp_path: Path) -> None:
    home = tmp_path / "home"
    card, _ = prepare_data(home, ask(write(tmp_path, claims())))
    assert not (home / "data").exists()
    assert task_names(home) == []
    assert (home / "vault" / "mine" / "secret.json").stat().st_mode & 0o077 == 0
    shown = card.model_dump_json() + card_markdown(card)
    splits = items(home)
    for item in (*splits["test"], *splits["train"]):
        assert item.text not in shown
        assert item.id not in shown
    assert "label_1" not in shown
    prepared = read_prepared(home, "mine")
    assert prepared
    public = prepared.model_dump_json(exclude={"recipe"})
    assert not any(item.text in public or item.id in public for item in (*splits["test"], *splits["train"]))
    assert '"label"' not in public
    assert card_markdown(card).count("|---|---|") == 1


def test_ids_and_order_say_nothing_about_labels(tmp_path: Path) -> None:
    prepare_data(tmp_path / "home", ask(write(tmp_path, claims())))
    _, pool, secret = load_prepared(tmp_path / "home", "mine")
    assert len({item.id for item in pool}) == len(pool)
    alternating = [i % 2 for i in range(len(pool))]
    for guess in (alternating, [int(item.id, 16) % 2 for item in pool], sorted(secret.pool_labels)):
        agreement = sum(a == b for a, b in zip(guess, secret.pool_labels, strict=True)) / len(pool)
        assert 0.2 < agreement < 0.8


def test_the_seed_alone_does_not_give_positions_away(tmp_path: Path) -> None:
    orders = []
    for flip in (False, True):
        rows = pairs()
        if flip:
            rows[0] |= {"best": "B"}
        prepare_data(tmp_path / str(flip), ask(write(tmp_path, rows), PAIRS))
        orders.append(load_prepared(tmp_path / str(flip), "mine")[2].pool_labels)
    assert orders[0] != orders[1]


def test_a_second_run_changes_nothing_and_a_second_home_agrees(tmp_path: Path) -> None:
    request = ask(write(tmp_path, claims()))
    card, report = prepare_data(tmp_path / "one", request)
    files = {path: path.read_bytes() for path in (tmp_path / "one").rglob("*.*") if path.is_file()}
    times = {path: path.stat().st_mtime_ns for path in files}
    again, same = prepare_data(tmp_path / "one", request)
    assert (again, same) == (card, report)
    assert times == {path: path.stat().st_mtime_ns for path in files}
    other, _ = prepare_data(tmp_path / "two", request)
    assert other == card
    assert load_prepared(tmp_path / "two", "mine") == load_prepared(tmp_path / "one", "mine")


def test_a_changed_source_is_an_error_that_says_so(tmp_path: Path) -> None:
    request = ask(write(tmp_path, claims()))
    card, _ = prepare_data(tmp_path / "home", request)
    write(tmp_path, claims(61))
    with pytest.raises(ConflictError, match="the source of task 'mine' has changed"):
        prepare_data(tmp_path / "home", request)
    assert load_prepared(tmp_path / "home", "mine")[0] == card


def test_other_settings_are_an_error_that_names_them(tmp_path: Path) -> None:
    request = ask(write(tmp_path, claims()))
    prepare_data(tmp_path / "home", request)
    with pytest.raises(ConflictError, match="other settings \\(seed, test\\)"):
        prepare_data(tmp_path / "home", request.model_copy(update={"seed": 1, "test": 30}))


def test_malformed_rows_are_refused_with_their_lines_or_skipped_and_counted(tmp_path: Path) -> None:
    rows = claims()
    path = write(tmp_path, [*rows[:2], {"q": "x", "a": "y", "ok": "perhaps"}, {"q": "x"}, *rows[2:]])
    with pytest.raises(InvalidInputError) as refused:
        prepare_data(tmp_path / "home", ask(path))
    for part in ("2 of 242 rows", "label outside the two classes: 1, in line 3", "missing column: 1, in line 4"):
        assert part in str(refused.value)
    assert read_prepared(tmp_path / "home", "mine") is None
    card, report = prepare_data(tmp_path / "home", ask(path, on_bad_row="skip"))
    assert [(bad.line, bad.reason) for bad in report.bad_rows] == [
        (3, "label outside the two classes"),
        (4, "missing column"),
    ]
    assert card.data
    assert card.data.skipped_rows == 2


def test_duplicates_are_left_out_and_contradictions_too(tmp_path: Path) -> None:
    rows = claims()
    shouted = rows[0] | {"a": rows[0]["a"].upper() + "  "}
    opposite = rows[5] | {"ok": not rows[5]["ok"]}
    _, report = prepare_data(tmp_path / "home", ask(write(tmp_path, [*rows, shouted, opposite])))
    assert (report.duplicates, report.contradictions) == (1, 2)


def test_near_duplicates_of_other_groups_stay_in_one_split(tmp_path: Path) -> None:
    rows = claims(80)
    rows += [row | {"q": row["q"] + " today"} for row in rows[:80]]
    _, report = prepare_data(tmp_path / "home", ask(write(tmp_path, rows), test=60, pool=100, train=40, similarity=0.7))
    splits = items(tmp_path / "home")
    owner: dict[str, str] = {}
    for name, some in splits.items():
        for item in some:
            question = item.text.split("\n")[1].removesuffix(" today")
            assert owner.setdefault(question, name) == name
    assert report.linked_groups > 0
    assert report.near_overlap == 0


def test_each_position_wins_half_and_both_orders_of_a_pair_are_one_item(tmp_path: Path) -> None:
    rows = pairs()
    turned = [{"q": row["q"], "x": row["y"], "y": row["x"], "best": "B"} for row in rows]
    card, report = prepare_data(tmp_path / "home", ask(write(tmp_path, rows + turned), PAIRS))
    assert report.duplicates == len(rows)
    assert card.label_words == (" A", " B")
    for some in items(tmp_path / "home").values():
        assert Counter(item.label for item in some)[0] == len(some) / 2
        for item in some:
            a, b = item.text.split("Response A:\n")[1].split("\n\nResponse B:\n")
            assert (b if item.label else a).startswith("good")


def test_items_come_from_many_groups_rather_than_many_from_few(tmp_path: Path) -> None:
    _, report = prepare_data(tmp_path / "home", ask(write(tmp_path, claims(20, each=40))))
    assert sum(split.groups for split in report.splits.values()) > 12


def test_too_little_data_says_what_is_lacking(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"too few items .*the pool split .*ask for fewer"):
        prepare_data(tmp_path / "home", ask(write(tmp_path, claims()), pool=200))
    with pytest.raises(InvalidInputError, match=r"for --test 40 --train 20 --pool 60: .*or give .* with --no-balance"):
        prepare_data(tmp_path / "home", ask(write(tmp_path, claims(2))))


def test_an_empty_file_is_told_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"rows\.jsonl' is empty"):
        prepare_data(tmp_path / "home", ask(write(tmp_path, [])))


def test_a_reason_is_told_once_with_the_lines_that_it_is_for(tmp_path: Path) -> None:
    path = write(tmp_path, [{**row, "ok": "ja"} for row in claims()])
    with pytest.raises(
        InvalidInputError, match=r"in line 1, 2, 3, .*, 20 \(column 'ok' has none .*--classes .*\), \.\.\."
    ) as refused:
        prepare_data(tmp_path / "home", ask(path))
    assert str(refused.value).count("column 'ok'") == 1


def test_what_is_wrong_with_a_file_or_a_mapping_is_told_before_any_progress(tmp_path: Path) -> None:
    heard: list[str] = []
    (tmp_path / "a.xlsx").write_bytes(b"")
    for request in (ask(tmp_path / "gone.jsonl"), ask(tmp_path / "a.xlsx"), ask(write(tmp_path, claims()), {"a": "b"})):
        with pytest.raises(OutlearnError):
            prepare_data(tmp_path / "home", request, lambda what, share: heard.append(what))
    assert not heard


def test_models_without_single_tokens_for_the_label_words_are_refused_at_once(tmp_path: Path) -> None:
    request = ask(write(tmp_path, pairs()), PAIRS).model_copy(update={"profile": load_profile("tiny")})
    with pytest.raises(InvalidInputError, match=r"'tiny/math/teacher' has no single token for ' A' and ' B', .*smol"):
        prepare_data(tmp_path / "home", request)
    assert read_prepared(tmp_path / "home", "mine") is None
    other = load_profile("tiny", {"teacher": "tiny/chat/teacher", "student": "tiny/chat/student"})
    prepare_data(tmp_path / "home", request.model_copy(update={"profile": other}))


def test_unbalanced_labels_can_stay_as_they_are(tmp_path: Path) -> None:
    rows = [row | {"ok": index % 4 == 0} for index, row in enumerate(claims())]
    _, report = prepare_data(tmp_path / "home", ask(write(tmp_path, rows), balance=False))
    assert report.splits["pool"].share_of_label_1 < 0.4


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"kind": None}, "--kind"),
        ({"options": {"variants": "3"}}, "no options"),
        ({"files": ()}, "one file"),
        ({"source": "gsm8k", "kind": "chat"}, "is of kind 'math'"),
    ],
)
def test_requests_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], error: str) -> None:
    request = ask(write(tmp_path, claims())).model_copy(update=changes)
    with pytest.raises(InvalidInputError, match=error):
        prepare_data(tmp_path / "home", request)


def test_an_unknown_source_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"alpaca_eval.*gsm8k.*helpsteer3.*local"):
        prepare_data(tmp_path / "home", ask(write(tmp_path, claims()), source="none"))


def test_every_template_has_the_text_once_and_ends_where_the_label_follows() -> None:
    for words in (*WORDINGS.values(), wording("math", comparisons=True), wording("chat", comparisons=False)):
        assert words.template.count("{text}") == 1
        assert words.template.endswith("\nLabel:")
        assert all(word.startswith(" ") for word in words.words)
        assert all(word.strip() in words.template for word in words.words)


def test_a_text_that_is_composed_already_is_left_alone() -> None:
    from outlearn.sources import Example

    assert compose("math", Example(1, "g", "", (" 1+1=2 {text} ",), 1)) == "1+1=2 {text}"


def test_preparing_needs_no_torch_and_a_large_file_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    filler = " ".join(VERBS * 12)
    with path.open("w") as file:
        for number in range(60_000):
            file.write(json.dumps({"q": f"{number} {filler}", "a": f"{number % 7}", "ok": number % 2 == 0}) + "\n")
    assert path.stat().st_size > 40e6
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from outlearn_training.data.pipeline import DataRequest, prepare_data\n"
        "shares = []\n"
        "request = DataRequest.model_validate_json(sys.argv[1])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "prepare_data(Path(sys.argv[2]), request, lambda what, share: shares.append(share))\n"
        "assert 'torch' not in sys.modules\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(shares))\n"
    )
    request = ask(path, similarity=1.0, **{"train": 4, "pool": 4, "test": 4}).model_dump_json()
    done = subprocess.run(
        [sys.executable, "-c", code, request, str(tmp_path / "home")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    grown_kib, reports = map(int, done.stdout.split())
    assert grown_kib < 30_000
    assert reports > 20


def test_the_report_can_be_read_again(tmp_path: Path) -> None:
    _, report = prepare_data(tmp_path / "home", ask(write(tmp_path, claims())))
    kept = (tmp_path / "home" / "vault" / "mine" / "report.json").read_bytes()
    assert Report.model_validate_json(kept) == report
