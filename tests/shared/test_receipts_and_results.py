"""Signatures, receipts and published results: what was forged, edited, mixed or replayed is refused."""

import json
import math
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from outlearn.errors import IntegrityError, NotFoundError, OutdatedError
from outlearn.receipts import Receipt, ReceiptBook, read_receipts
from outlearn.results import ResultBook, VerifiedResult, results_file
from outlearn.signing import KEY_BYTES, PublicSigner, Signer, canonical_json, check_public

RUN, OTHER = "run-aaaaaaaaaa", "run-bbbbbbbbbb"


def receipt(**changes: Any) -> Receipt:
    fields: dict[str, Any] = {
        "run_id": RUN,
        "agent": "ada",
        "method": "vanilla",
        "method_sha256": "0" * 64,
        "task": "toy",
        "task_fingerprint": "f" * 64,
        "seed": 0,
        "weights_sha256": ("1" * 64,),
        "predictions": (0.25, 1.0, 0.0),
    }
    return Receipt(**(fields | changes))


def result(**changes: Any) -> VerifiedResult:
    fields = {"run_id": RUN, "agent": "ada", "method": "vanilla", "task": "toy", "seeds": 5, "pgr": 0.5, "pgr_se": 0.1}
    return VerifiedResult(**(fields | changes))


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    return tmp_path / "home" / "vault"


@pytest.fixture
def book(vault: Path) -> ReceiptBook:
    """A book with two receipts of one run."""
    book = ReceiptBook(vault)
    for seed in (1, 0):
        book.issue(receipt(seed=seed))
    return book


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes) + "\n")


# the key


def test_the_key_is_made_once_for_its_owner_only(vault: Path) -> None:
    Signer.from_vault(vault, "receipt")
    key = vault / "signing.key"
    first = key.read_bytes()
    Signer.from_vault(vault, "result")
    assert key.read_bytes() == first
    assert len(first) == KEY_BYTES
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(vault.stat().st_mode) == 0o700
    assert [one.name for one in vault.iterdir()] == ["signing.key"]


def test_processes_that_make_the_key_at_once_agree(vault: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from outlearn.files import create_once; import secrets\n"
        "sys.stdin.readline()\n"
        "print(create_once(Path(sys.argv[1]), secrets.token_bytes(32)).hex())"
    )
    command = [sys.executable, "-c", code, str(vault / "signing.key")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    keys = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert keys == {(vault / "signing.key").read_bytes().hex()}


@pytest.mark.parametrize("contents", [b"", b"short"])
def test_a_key_that_is_too_short_is_refused(vault: Path, contents: bytes) -> None:
    vault.mkdir(parents=True)
    (vault / "signing.key").write_bytes(contents)
    with pytest.raises(IntegrityError, match="delete it to renew it"):
        ReceiptBook(vault)


def test_canonical_json_does_not_depend_on_order_and_refuses_nan() -> None:
    assert canonical_json({"b": 1, "a": "ä"}) == canonical_json({"a": "ä", "b": 1}) == '{"a":"ä","b":1}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(math.nan)


def test_a_signature_is_for_one_purpose(vault: Path) -> None:
    signed = Signer.from_vault(vault, "receipt").sign(receipt())
    Signer.from_vault(vault, "receipt").check(signed)
    with pytest.raises(IntegrityError, match="Receipt has a wrong signature"):
        Signer.from_vault(vault, "result").check(signed)


# receipts


def test_receipts_come_back_as_they_were_issued_by_seed(book: ReceiptBook) -> None:
    read = book.read(RUN)
    assert [one.seed for one in read] == [0, 1]
    assert read[0].predictions == (0.25, 1.0, 0.0)
    assert book.read(OTHER) == ()


def test_reading_where_nothing_was_signed_makes_no_key(vault: Path) -> None:
    assert read_receipts(vault, RUN) == ()
    assert not vault.exists()
    ReceiptBook(vault).issue(receipt())
    assert read_receipts(vault, RUN) == ReceiptBook(vault).read(RUN) != ()


def test_what_is_no_run_id_is_told_with_one_to_agents_and_operators(vault: Path) -> None:
    with pytest.raises(NotFoundError, match=r"'../x' is not a run id such as 'run-0.*`list_runs` and a team's report"):
        ReceiptBook(vault).read("../x")


def test_a_receipt_is_readable_by_its_owner_only(book: ReceiptBook, vault: Path) -> None:
    files = list((ReceiptBook(vault).folder / RUN).iterdir())
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 2


@given(st.lists(st.floats(0, 1), min_size=9, max_size=9))
def test_a_receipt_is_as_long_whatever_was_predicted(predictions: list[float]) -> None:
    """A method that can ask for its size would learn how many hidden items its student is sure of."""
    texts = [receipt(predictions=one).model_dump_json(exclude={"signed_at"}) for one in (predictions, [1.0] * 9)]
    assert len(texts[0]) == len(texts[1])


def test_a_receipts_folder_has_a_name_that_only_the_vault_tells(vault: Path) -> None:
    ReceiptBook(vault).issue(receipt())
    assert ReceiptBook(vault).folder == ReceiptBook(vault).folder != ReceiptBook(vault.parent / "other").folder
    assert [path.name for path in vault.glob("*/*/*.json")] == ["0.json"]
    assert re.fullmatch(r"receipts-[0-9a-f]{16}", ReceiptBook(vault).folder.name)


@given(st.lists(st.floats(0, 1, allow_subnormal=True), max_size=30).map(tuple))
def test_any_predictions_survive_the_round_trip(predictions: tuple[float, ...]) -> None:
    signer = Signer(b"k" * KEY_BYTES, "receipt")
    signed = signer.sign(receipt(predictions=predictions))
    back = Receipt.model_validate_json(signed.model_dump_json())
    signer.check(back)
    assert back.predictions == predictions


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1])
def test_a_prediction_that_is_no_probability_cannot_be_put_on_a_receipt(value: float) -> None:
    with pytest.raises(ValidationError):
        receipt(predictions=(0.5, value))


@pytest.mark.parametrize(
    "changes",
    [
        {"predictions": [1.0, 1.0, 1.0]},
        {"predictions": [0.25, 1.0]},
        {"predictions": ["NaN", 1.0, 0.0]},
        {"agent": "bob"},
        {"seed": 3},
        {"method": "better"},
        {"task_fingerprint": "e" * 64},
        {"weights_sha256": []},
        {"signed_at": "2020-01-01T00:00:00Z"},
        {"signature": ""},
        {"signature": "ä"},
        {"signature": None},
    ],
)
def test_an_edited_receipt_is_refused(book: ReceiptBook, vault: Path, changes: dict[str, Any]) -> None:
    edit(ReceiptBook(vault).folder / RUN / "0.json", **changes)
    with pytest.raises(IntegrityError):
        book.read(RUN)


@pytest.mark.parametrize("contents", [b"", b"{}", b"null", b"\xff\xfe", b'{"run_id": "run-aaaaaaaaaa"'])
def test_a_damaged_receipt_is_refused(book: ReceiptBook, vault: Path, contents: bytes) -> None:
    (ReceiptBook(vault).folder / RUN / "1.json").write_bytes(contents)
    with pytest.raises(IntegrityError, match=r"receipt '1.json' of 'run-aaaaaaaaaa' is damaged"):
        book.read(RUN)


def test_a_receipt_signed_with_another_vaults_key_is_refused(book: ReceiptBook, vault: Path, tmp_path: Path) -> None:
    forger = ReceiptBook(tmp_path / "elsewhere")
    forger.issue(receipt(seed=2, predictions=(1.0, 1.0, 1.0)))
    shutil.copy(ReceiptBook(tmp_path / "elsewhere").folder / RUN / "2.json", ReceiptBook(vault).folder / RUN)
    with pytest.raises(IntegrityError, match="wrong signature"):
        book.read(RUN)


def test_a_result_does_not_pass_for_a_receipt(book: ReceiptBook, vault: Path) -> None:
    signed = ResultBook(vault.parent).publish(result())
    edit(ReceiptBook(vault).folder / RUN / "0.json", signature=signed.signature)
    with pytest.raises(IntegrityError):
        book.read(RUN)


def test_receipts_replayed_under_another_run_are_refused(book: ReceiptBook, vault: Path) -> None:
    shutil.copytree(ReceiptBook(vault).folder / RUN, ReceiptBook(vault).folder / OTHER)
    with pytest.raises(IntegrityError, match=f"filed under '{OTHER}' are of '{RUN}'"):
        book.read(OTHER)


def test_one_receipt_filed_for_two_seeds_is_refused(book: ReceiptBook, vault: Path) -> None:
    folder = ReceiptBook(vault).folder / RUN
    shutil.copy(folder / "0.json", folder / "2.json")
    with pytest.raises(IntegrityError, match="not of one run with distinct seeds"):
        book.read(RUN)


@pytest.mark.parametrize(
    "changes", [{"run_id": OTHER}, {"agent": "bob"}, {"method_sha256": "2" * 64}, {"task_fingerprint": "e" * 64}]
)
def test_receipts_of_two_runs_do_not_mix(book: ReceiptBook, vault: Path, changes: dict[str, Any]) -> None:
    stranger = receipt(seed=2, **changes)
    book.issue(stranger)
    source = ReceiptBook(vault).folder / stranger.run_id / "2.json"
    if stranger.run_id != RUN:
        shutil.move(source, ReceiptBook(vault).folder / RUN)
    with pytest.raises(IntegrityError, match="not of one run"):
        book.read(RUN)


def test_a_draft_that_a_crash_left_is_no_receipt(book: ReceiptBook, vault: Path) -> None:
    (ReceiptBook(vault).folder / RUN / ".0123456789abcdef.draft").write_bytes(b"{")
    assert len(book.read(RUN)) == 2


def as_before_versions(path: Path) -> None:
    """As a file was before there were versions: without one, and signed without one."""
    fields = {name: value for name, value in json.loads(path.read_text()).items() if name != "schema_version"}
    path.write_text(json.dumps(fields | {"signature": "5" * 64}) + "\n")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema_version": 0}, "older version of outlearn .it has version 0.; run it again"),
        ({"schema_version": -1, "seed": None}, "older version"),
        ({"schema_version": 2, "predictions": {"a": 1}}, "newer version of outlearn .it has version 2.; update it"),
        ({"schema_version": 10**30}, "newer version"),
    ],
)
def test_a_receipt_of_another_version_is_not_accepted_and_need_not_be_forged(
    book: ReceiptBook, vault: Path, changes: dict[str, Any], reason: str
) -> None:
    edit(ReceiptBook(vault).folder / RUN / "0.json", **changes)
    with pytest.raises(OutdatedError, match=rf"receipt '0.json' of '{RUN}' was made by an? {reason}"):
        book.read(RUN)


def test_so_is_one_from_before_there_were_versions_until_the_run_is_done_again(book: ReceiptBook, vault: Path) -> None:
    as_before_versions(ReceiptBook(vault).folder / RUN / "0.json")
    with pytest.raises(OutdatedError, match="run it again"):
        book.read(RUN)
    book.issue(receipt(seed=0))
    assert [one.schema_version for one in book.read(RUN)] == [Receipt.VERSION] * 2


@pytest.mark.parametrize("old", [0, 1])
def test_a_forged_receipt_does_not_hide_behind_one_that_says_that_it_is_old(
    book: ReceiptBook, vault: Path, old: int
) -> None:
    edit(ReceiptBook(vault).folder / RUN / f"{old}.json", schema_version=0)
    edit(ReceiptBook(vault).folder / RUN / f"{1 - old}.json", agent="bob")
    with pytest.raises(IntegrityError, match="wrong signature"):
        book.read(RUN)


def test_the_version_is_signed(book: ReceiptBook, vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Receipt, "VERSION", 7)
    for seed in (0, 1):
        edit(ReceiptBook(vault).folder / RUN / f"{seed}.json", schema_version=7)
    with pytest.raises(IntegrityError, match="wrong signature"):
        book.read(RUN)


BAD_IDS = [
    "",
    ".",
    "..",
    "../signing.key",
    "run-aaaaaaaaaa/..",
    "run-AAAAAAAAAA",
    f"{RUN}\n",
    f"{RUN}\0",
    "run-" + "a" * 40,
]


@pytest.mark.parametrize("run_id", BAD_IDS)
def test_a_run_id_cannot_be_a_path(book: ReceiptBook, vault: Path, run_id: str) -> None:
    with pytest.raises(NotFoundError, match="is not a run id"):
        book.read(run_id)
    with pytest.raises(ValidationError):
        receipt(run_id=run_id)
    assert ResultBook(vault.parent).lookup(run_id) is None


# results


def test_a_published_result_is_read_back_signed(vault: Path) -> None:
    published = ResultBook(vault.parent).publish(result())
    assert ResultBook(vault.parent).lookup(RUN) == published
    assert str(published) == "PGR 0.50 ± 0.10 (5 seeds)"
    assert ResultBook(vault.parent).lookup(OTHER) is None


@pytest.mark.parametrize("field", ["pgr", "pgr_se"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_result_is_finite(field: str, value: float) -> None:
    with pytest.raises(ValidationError):
        result(**{field: value})


def by_hand(path: Path) -> None:
    path.write_text(result(pgr=0.99, signature="0" * 64).model_dump_json() + "\n")


def edited(path: Path) -> None:
    edit(path, pgr=0.99)


def renamed(path: Path) -> None:
    edit(path, run_id=OTHER)


@pytest.mark.parametrize("forge", [by_hand, edited, renamed])
def test_a_forged_result_is_refused(vault: Path, forge: Callable[[Path], None]) -> None:
    ResultBook(vault.parent).publish(result())
    forge(results_file(vault.parent))
    with pytest.raises(IntegrityError):
        ResultBook(vault.parent).lookup(OTHER if forge is renamed else RUN)


@pytest.mark.parametrize(
    "forged", [result(pgr=0.99, signature="0" * 64).model_dump_json(), "[1]", "{}", "{", "5" * 9, "[" * 100_000]
)
def test_what_is_added_to_published_results_hides_none(vault: Path, forged: str) -> None:
    book = ResultBook(vault.parent)
    published = book.publish(result())
    with results_file(vault.parent).open("a") as file:
        file.write(f"{forged}\n{forged}")
    assert book.lookup(RUN) == ResultBook(vault.parent).lookup(RUN) == published
    other = book.publish(result(run_id=OTHER))  # after a line that was cut short
    assert book.lookup(OTHER) == ResultBook(vault.parent).lookup(OTHER) == other


def test_a_result_that_a_crash_cut_short_is_none_until_it_is_published_again(vault: Path) -> None:
    book, path = ResultBook(vault.parent), results_file(vault.parent)
    published = book.publish(result())
    assert book.lookup(RUN) == published
    path.write_bytes(path.read_bytes()[:-20])
    assert book.lookup(RUN) is ResultBook(vault.parent).lookup(RUN) is None
    assert book.publish(published) == book.lookup(RUN) == ResultBook(vault.parent).lookup(RUN)


def test_results_are_checked_without_the_vault_and_change_when_they_are_published_again(vault: Path) -> None:
    ResultBook(vault.parent).publish(result())
    shutil.move(vault, vault.with_name("far away"))
    book = ResultBook(vault.parent)
    assert book.lookup(RUN) == book.lookup(RUN) == ResultBook(vault.parent).lookup(RUN)
    assert not vault.exists()
    shutil.move(vault.with_name("far away"), vault)
    ResultBook(vault.parent).publish(result(pgr=0.6))
    assert getattr(book.lookup(RUN), "pgr", None) == 0.6


def test_a_result_of_another_version_is_none_until_it_is_published_again(vault: Path) -> None:
    book = ResultBook(vault.parent)
    book.publish(result())
    as_before_versions(results_file(vault.parent))
    with pytest.raises(OutdatedError, match="evaluate it again, which is free"):
        book.lookup(RUN)
    assert book.publish(result()) == book.lookup(RUN)


@pytest.mark.parametrize("key", [None, "", "zz" * 32, "0" * 64, "00" * 31])
def test_without_the_right_public_key_nothing_counts(vault: Path, key: str | None) -> None:
    book = ResultBook(vault.parent)
    book.publish(result())
    book.lookup(RUN)
    path = vault.parent / "results" / "public.key"
    path.unlink() if key is None else path.write_text(key)
    with pytest.raises(IntegrityError):
        book.lookup(RUN)
    book.publish(result())
    assert book.lookup(RUN)


@given(st.integers(0, 63), st.integers(1, 255))
def test_a_public_signature_holds_for_one_vault_one_purpose_and_every_byte(place: int, flip: int) -> None:
    signer = PublicSigner(b"k" * KEY_BYTES, "result")
    signed = signer.sign(result())
    check_public(signed, signer.public_key)
    for other in (PublicSigner(b"k" * KEY_BYTES, "receipt"), PublicSigner(b"l" * KEY_BYTES, "result")):
        with pytest.raises(IntegrityError):
            check_public(signed, other.public_key)
    raw = bytearray.fromhex(signed.signature)
    raw[place] ^= flip
    with pytest.raises(IntegrityError):
        check_public(signed.model_copy(update={"signature": raw.hex()}), signer.public_key)
