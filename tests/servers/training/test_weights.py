"""Students are removed when the disk is needed: the right ones, whoever is at work, and whenever it is killed."""

from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from outlearn.artifacts import LocalArtifactStore
from outlearn.database import open_database, reading
from outlearn.errors import IntegrityError
from outlearn.receipts import RunId
from outlearn.results import ResultBook, VerifiedResult
from outlearn_training.queue.run_queue import RunQueue
from outlearn_training.queue.seed_claims import Claims
from outlearn_training.queue.tables import Submission, metadata, stored_weights
from outlearn_training.settings import TrainingSettings
from outlearn_training.weights import WeightStore, weight_files


class Home:
    """A home folder whose runs have students of ten bytes each."""

    def __init__(self, folder: Path) -> None:
        self.settings = TrainingSettings(home=folder)
        self.url = self.settings.database("training")
        self.queue, self.claims, self.store = RunQueue(self.url), Claims(self.url), WeightStore(self.settings)

    def run(self, *students: str, agent: str = "ada", ends: bool = True) -> RunId:
        """A full run with these students, in the order of time."""
        fields: dict[str, Any] = {"task": "toy", "method": "vanilla", "params": {}, "kind": "full", "seeds": (0,)}
        submission = Submission(agent=agent, source_sha256="0" * 64, source_bytes=9, **fields)
        run_id = self.queue.submit(submission, max_waiting=99).run_id
        claim = self.claims.claim(0, lambda _: True)
        assert claim
        self.store.put(run_id, files(*students))
        if ends:
            self.claims.seed_done(claim)
        return run_id

    def evaluate(self, run_id: RunId) -> None:
        fields: dict[str, Any] = {"agent": "ada", "method": "vanilla", "task": "toy", "seeds": 5, "pgr": 0, "pgr_se": 1}
        ResultBook(self.settings.home).publish(VerifiedResult(run_id=run_id, **fields))

    def has(self, student: str) -> bool:
        return weight_files(self.settings.home).has(sha256(content(student)).hexdigest())

    def noted(self) -> set[str]:
        """The runs whose students are noted."""
        engine = open_database(self.url, metadata)
        with reading(engine) as connection:
            return set(connection.scalars(select(stored_weights.c.run_id)))


def content(student: str) -> bytes:
    return student.encode().ljust(10)


def files(*students: str) -> dict[str, bytes]:
    return {sha256(content(one)).hexdigest(): content(one) for one in students}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_the_oldest_students_go_first_and_only_as_many_as_must(home: Home) -> None:
    runs = [home.run(f"a{n}") for n in range(4)]
    assert home.store.make_room(40) == 0
    assert home.store.make_room(25) == 20
    assert [home.has(f"a{n}") for n in range(4)] == [False, False, True, True]
    assert home.noted() == set(runs[2:])
    assert home.store.make_room(25) == 0


def test_evaluated_runs_the_newest_and_unfinished_ones_keep_their_students(home: Home) -> None:
    home.evaluate(home.run("winner"))
    home.run("old")
    home.run("newest", "ensemble")
    home.run("at work", ends=False)
    assert home.store.make_room(0) == 10
    assert [home.has(one) for one in ("winner", "old", "newest", "ensemble", "at work")] == [True, False] + [True] * 3


def test_each_agent_has_room_of_its_own(home: Home) -> None:
    home.run("bobs", agent="bob")
    for n in range(3):
        home.run(f"a{n}")
    assert home.store.make_room(20) == 10
    assert home.has("bobs")


def test_a_student_that_another_run_has_too_stays(home: Home) -> None:
    first, second = home.run("same", "own"), home.run("same")
    assert home.store.make_room(0) == 10
    assert (home.has("same"), home.has("own"), home.noted()) == (True, False, {second})
    home.run("newer")
    assert home.store.make_room(0) == 10
    assert not home.has("same")
    assert first not in home.noted()


def test_a_seed_that_is_done_again_after_a_kill_stores_its_students_once(home: Home) -> None:
    run_id = home.run("a", "a", ends=False)
    WeightStore(home.settings).put(run_id, files("a", "b"))
    assert home.has("a")
    assert home.has("b")
    assert home.noted() == {run_id}


def test_a_student_that_was_stored_under_anothers_digest_is_never_handed_out(home: Home) -> None:
    [digest] = files("good")
    home.store.put(home.run("other"), {digest: content("bad")})
    with pytest.raises(IntegrityError, match="damaged"):
        weight_files(home.settings.home).get(digest)


def test_room_making_that_is_killed_midway_is_done_by_the_next(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(5):
        home.run(f"a{n}")
    remove, removed = LocalArtifactStore.remove, list[str]()

    def die_at_the_third(store: LocalArtifactStore, digest: str) -> None:
        if len(removed) == 2:
            raise KeyboardInterrupt
        removed.append(digest)
        remove(store, digest)

    monkeypatch.setattr(LocalArtifactStore, "remove", die_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        home.store.make_room(0)
    monkeypatch.undo()
    assert sum(home.has(f"a{n}") for n in range(5)) == 3
    home.store.make_room(0)
    assert [home.has(f"a{n}") for n in range(5)] == [False] * 4 + [True]
    assert len(home.noted()) == 1


def test_what_agents_saved_is_in_another_store(home: Home) -> None:
    saved = LocalArtifactStore(home.settings.home / "artifacts")
    digest = saved.put(content("old"))
    home.run("old")
    home.run("newest")
    home.store.make_room(0)
    assert saved.has(digest)
    assert not home.has("old")


def test_no_student_of_a_run_at_work_is_lost_while_others_make_room(home: Home) -> None:
    home.run("newest")
    for _ in range(10):
        home.run("same")
    unfinished = home.run("else", ends=False)

    def store(_: int) -> bool:
        WeightStore(home.settings).put(unfinished, files("same"))
        return home.has("same")

    with ThreadPoolExecutor(4) as pool:
        rooms = [pool.submit(WeightStore(home.settings).make_room, 0) for _ in range(4)]
        assert all(pool.map(store, range(8)))
        for room in rooms:
            room.result()
    assert home.has("same")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.integers(1, 3)), max_size=8), st.integers(0, 60))
def test_what_is_left_of_an_agent_fits_or_must_stay(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[str, bool, int]], room: int
) -> None:
    home = Home(tmp_path_factory.mktemp("home"))
    runs = []
    for number, (agent, evaluated, count) in enumerate(made):
        students = [f"{number}-{index}" for index in range(count)]
        runs.append((home.run(*students, agent=agent), agent, evaluated, students))
        if evaluated:
            home.evaluate(runs[-1][0])
    home.store.make_room(room)
    for agent in "ab":
        free = [(run, students) for run, whose, evaluated, students in runs if whose == agent and not evaluated]
        left = [students for _, students in free if all(map(home.has, students))]
        assert left == [students for _, students in free][len(free) - len(left) :]
        assert len(left) <= 1 or sum(10 * len(students) for students in left) <= room
    assert all(home.has(one) for _, _, evaluated, students in runs if evaluated for one in students)
