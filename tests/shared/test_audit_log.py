"""The audit log: whole records in one chain, whatever is killed, full or changed."""

import json
import multiprocessing
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlearn.audit import MAX_ENTRIES, MAX_TEXT, AuditLog
from outlearn.errors import IntegrityError


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "vault")


def test_its_name_cannot_be_guessed_and_all_processes_find_it(tmp_path: Path) -> None:
    one, other = AuditLog(tmp_path / "vault"), AuditLog(tmp_path / "vault")
    assert one.path.name != other.path.name
    one.append("kind", "note")
    other.append("kind", "note")
    assert one.path == other.path
    assert len(list((tmp_path / "vault").glob("audit-*"))) == 1
    assert one.verify()[0] == 2


def test_a_log_that_has_begun_is_found_by_all_and_has_no_records(tmp_path: Path) -> None:
    one, other = AuditLog(tmp_path / "vault"), AuditLog(tmp_path / "vault")
    for log in (one, other, one):
        log.begin()
        assert (one.path, list(log.records()), log.verify()[0]) == (other.path, [], 0)
    assert stat.S_IMODE(one.path.stat().st_mode) == 0o600
    other.append("kind", "note")
    one.begin()
    assert [record.kind for record in one.records()] == ["kind"]


def test_records_follow_one_another_and_are_read_as_they_were_written(log: AuditLog) -> None:
    assert (log.verify(), list(log.records())) == ((0, "0" * 64), [])
    log.append("random masks", "quarantine", agent="ada", run_id="run-000001", task="math", evidence={"effect": 0.01})
    log.append("operator", "release", run_id="run-000001")
    first, second = log.records()
    assert (first.kind, first.action, first.agent, first.evidence) == (
        "random masks",
        "quarantine",
        "ada",
        {"effect": 0.01},
    )
    assert first.at <= second.at
    assert log.verify()[0] == 2


def test_only_the_owner_can_read_it(log: AuditLog) -> None:
    log.append("a", "note")
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.path.parent.stat().st_mode) == 0o700


def test_a_reader_sees_what_others_add(log: AuditLog) -> None:
    log.append("a", "note")
    other = AuditLog(log.path.parent)
    assert len(other.records()) == 1
    log.append("b", "flag")
    assert [one.kind for one in other.records()] == ["a", "b"]


@given(
    evidence=st.dictionaries(
        st.text(max_size=100), st.one_of(st.integers(), st.floats(), st.text(max_size=1000)), max_size=40
    ),
    agent=st.text(max_size=200),
)
def test_whatever_an_agent_wrote_is_one_bounded_line(
    evidence: dict[str, int | float | str], agent: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = AuditLog(tmp_path_factory.mktemp("vault"))
    log.append("forum claim", "flag", agent=agent, evidence=evidence)
    [line] = log.path.read_bytes().splitlines()
    assert len(line) < 200 * 1024
    [record] = log.records()
    assert len(record.evidence) <= MAX_ENTRIES
    assert all(
        len(value) <= MAX_TEXT and value.isprintable() for value in record.evidence.values() if isinstance(value, str)
    )
    assert log.verify()[0] == 1


@pytest.mark.parametrize("line", [0, 1, 2])
@pytest.mark.parametrize("change", ["edited", "removed", "doubled"])
def test_a_changed_log_is_noticed(line: int, change: str, log: AuditLog) -> None:
    for number in range(4):
        log.append("x", "note", evidence={"number": number})
    lines = log.path.read_bytes().splitlines(keepends=True)
    new = {
        "edited": [lines[line].replace(b"note", b"flag")],
        "removed": [],
        "doubled": [lines[line], lines[line]],
    }[change]
    log.path.write_bytes(b"".join([*lines[:line], *new, *lines[line + 1 :]]))
    with pytest.raises(IntegrityError, match="was changed"):
        log.verify()


def test_a_log_cut_short_has_another_end(log: AuditLog) -> None:
    log.append("a", "note")
    log.append("b", "note")
    head = log.verify()[1]
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(lines[0])
    assert log.verify()[1] != head
    assert [one.kind for one in log.records()] == ["a"]


@pytest.mark.parametrize("size", [1, 30, 9_000])
def test_what_a_crash_left_of_a_record_is_told_and_replaced(size: int, log: AuditLog) -> None:
    log.append("a", "note")
    with log.path.open("ab") as file:
        file.write(b"{" * size)
    assert [one.kind for one in log.records()] == ["a"]
    with pytest.raises(IntegrityError, match=f"last {size} bytes"):
        log.verify()
    log.append("b", "note")
    assert [one.kind for one in log.records()] == ["a", "torn line", "b"]
    assert log.records()[1].evidence == {"bytes": size}
    assert log.verify()[0] == 3


def test_a_full_disk_leaves_the_log_as_it_was(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append("a", "note")
    before, write = log.path.read_bytes(), os.write

    def fill_up(file: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return write(file, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fill_up)
        with pytest.raises(OSError, match="No space"):
            log.append("b", "note")
    assert log.path.read_bytes() == before
    log.append("c", "note")
    assert log.verify()[0] == 2


def append_many(vault: Path, name: str) -> None:
    for number in range(40):
        AuditLog(vault).append(name, "note", evidence={"number": number})


def test_processes_that_append_at_once_keep_one_chain(log: AuditLog) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=append_many, args=(log.path.parent, name)) for name in ("a", "b", "c")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert log.verify()[0] == 120
    for name in ("a", "b", "c"):
        assert [one.evidence["number"] for one in log.records() if one.kind == name] == list(range(40))


def test_lines_are_plain_json(log: AuditLog) -> None:
    log.append("a", "note", evidence={"z": float("nan"), "text": "tab\tbell\a"})
    line = json.loads(log.path.read_text())
    assert line["evidence"] == {"z": "nan", "text": "tab\ufffdbell\ufffd"}
