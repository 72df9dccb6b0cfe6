"""Methods that run code which does not stand in their file, watched in processes of their own: hooks stay for ever."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outlearn.audit import AuditLog, AuditRecord
from outlearn.tasks import Item, TaskCard, load_public
from outlearn.testing import connect
from outlearn_training.queue.tables import Run
from outlearn_training.sandbox.canary import Canary
from outlearn_training.sandbox.execution_watch import MOST
from outlearn_training.sandbox.watched import Watched
from outlearn_training.server import build
from outlearn_training.settings import TrainingSettings

torch = pytest.importorskip("torch")

from outlearn_training.lab import Lab
from outlearn_training.model import LabelModel
from outlearn_training.trainer import PlainTrainer

from .test_training_server import finish, settings_for, write_method

WATCHED = """
import json, sys
from outlearn_training.sandbox.landlock import module_folders
from outlearn_training.sandbox.execution_watch import watch_execution
events = []
watch_execution("secret", "/vault", module_folders(), events.append)
module = {}
exec(compile(sys.stdin.read(), "method.py", "exec"), module)
module["method"](None, 0)
print(json.dumps(events))
"""


def watch(body: str) -> list[dict[str, str]]:
    """What is reported of a method with this body."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", WATCHED], input=f"def method(lab, seed):\n{lines}\n", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def test_running_text_is_seen_however_it_is_run() -> None:
    ways = {
        'eval("1 + 1")': "exec",
        'exec("x = 1")': "exec",
        'list(map(exec, ["x = 1"]))': "exec",
        'compile("1", "nowhere", "eval")': "compile",
        "import timeit\ntimeit.timeit('1', number=1)": "compile",
        "import ctypes\nctypes.CDLL(None)": "ctypes.dlopen",
        "import marshal\nmarshal.loads(marshal.dumps(1))": "marshal.loads",
        "import types\ntypes.FunctionType((lambda: 1).__code__, {})": "function.__new__",
        "import typing\ntyping.get_type_hints(type('', (), {'__annotations__': {'x': '1'}, '__module__': ''}))": "exec",
        "import inspect\ninspect.get_annotations(type('', (), {'__annotations__': {'x': '1'}}), eval_str=True)": "exec",
        "import jinja2\njinja2.Template('{{ 1 }}')": "exec",
    }
    seen = watch("\n".join(ways))
    assert set(ways.values()) <= {one["watched"] for one in seen}
    assert {one["where"].partition(":")[0] for one in seen} == {"method.py"}
    lines = {int(one["where"].split()[0].partition(":")[2]) for one in seen}
    assert {2, 3, 4, 5, 7, 9, 11, 13, 15, 17, 19} == lines


def test_importing_a_file_from_elsewhere_is_seen(tmp_path: Path) -> None:
    (tmp_path / "smuggled.py").write_text("x = 1\n")
    [seen] = watch(f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport smuggled")
    assert seen["watched"] == "exec"


def test_what_libraries_do_for_a_method_is_none_of_its_doing() -> None:
    assert not watch(
        """import ast, collections, copy, dataclasses, enum, inspect, json, typing
import numpy.linalg, scipy.optimize
collections.namedtuple("P", "a b")
@dataclasses.dataclass(frozen=True, slots=True)
class A:
    x: int = 0
typing.NamedTuple("N", [("a", int)])
typing.Optional["A"]
enum.Enum("E", "a b")
ast.literal_eval(ast.unparse(ast.parse("[1, 2]")))
copy.deepcopy(A())"""
    )


def test_a_canary_is_reported_though_much_else_was() -> None:
    noise = "\n".join("eval('1')" for _ in range(2 * MOST))
    seen = watch(f"{noise}\nimport sys\nsys.audit('secret')")
    assert len(seen) == MOST + 1
    assert seen[-1]["watched"] == "canary"


PROGRAMS = [f"#plus:{n}\nreturn:x+{n}" for n in range(20)] + [
    f"Task:\n\nAdd {n}.\n\nProgram:\n\ndef f(x):\n    return x + {n}" for n in range(20)
]


def code_pool(card: TaskCard, texts: list[str]) -> tuple[TaskCard, tuple[Item, ...]]:
    items = tuple(Item(id=f"p{i}", text=text, group=f"g{i}") for i, text in enumerate(texts))
    return card.model_copy(update={"kind": "code"}), items


def test_planted_programs_do_what_they_did_and_raise_their_event(card: TaskCard) -> None:
    canary = Canary()
    code, pool = code_pool(card, PROGRAMS)
    planted = canary.plant(code, pool)
    changed = [(old.text, new.text) for old, new in zip(pool, planted, strict=True) if old != new]
    assert 8 <= len(changed) <= 12
    assert all(canary.remove(new) == old for old, new in changed)
    for old, new in changed:
        scopes = []
        for text in (old, new):
            if "def f" in text:
                scope: dict[str, object] = {}
                exec(text.partition("Program:\n\n")[2], scope)
                scopes.append(scope["f"](1))  # type: ignore[operator]
            else:
                scopes.append(eval(text.partition("return:")[2], {"x": 1}))
        assert scopes[0] == scopes[1]


@pytest.mark.parametrize("text", ["return:while", "return:x+1  # why", 'return:"""a', "no program", ""])
def test_no_canary_stands_where_it_would_not_be_run(text: str, card: TaskCard) -> None:
    canary = Canary()
    code, pool = code_pool(card, [text])
    for item in canary.plant(code, pool):
        assert item.text == text or "audit" in item.text.partition("return:")[2]


def test_no_canary_stands_in_programs_that_are_compared_or_in_other_tasks(card: TaskCard) -> None:
    code, _ = code_pool(card, [])
    twins = tuple(Item(id=f"p{i}", text=f"#{i}\nreturn:x+1", group="same") for i in range(8))
    assert Canary().plant(code, twins) == twins
    assert Canary().plant(card, twins) == twins


def test_a_lab_trains_and_predicts_as_if_there_were_no_canaries(home: Path) -> None:
    task = load_public(home, "toy")
    pool = tuple(one.model_copy(update={"text": f"#{i}\nreturn:{i}"}) for i, one in enumerate(task.pool))
    task = task.model_copy(update={"pool": pool, "card": task.card.model_copy(update={"kind": "code"})})
    trainer = PlainTrainer(LabelModel(task.card.student, task.card.student_tuning), task.card.max_tokens)
    plain, planted = (Lab(task, trainer, 0, lambda event: None, canary) for canary in (None, Canary()))
    assert plain.pool != planted.pool
    assert (plain.zero_shot() == planted.zero_shot()).all()
    students = [one.fit(one.weak_labels(), epochs=1).predict() for one in (plain, planted)]
    assert (students[0] == students[1]).all()
    asked = [one.generate([f"why {item.text}?" for item in one.pool], max_tokens=2) for one in (plain, planted)]
    assert asked[0] == asked[1]


def as_code(home: Path, task: str) -> None:
    """Makes a toy task one about programs, as far as its public part goes."""
    path = home / "data" / task / "card.json"
    card = TaskCard.model_validate_json(path.read_bytes()).model_copy(update={"kind": "code"})
    path.write_text(card.model_dump_json())
    pool = home / "data" / task / "pool.json"
    items = json.loads(pool.read_text())
    pool.write_text(json.dumps([item | {"text": f"#{number}\nreturn:{number}"} for number, item in enumerate(items)]))


RUNS_THEM = """
def method(lab, seed):
    for item in lab.pool:
        eval(item.text.partition("return:")[2])
    return lab.fit(lab.weak_labels())
"""


def records(home: Path) -> list[AuditRecord]:
    return list(AuditLog(home / "vault").records())


@pytest.fixture
def programs(warm: TrainingSettings, toy_model: Path, write_task_for: Callable[..., TaskCard]) -> Iterator[str]:
    """A task about programs beside the warm home's own one, as long as the test takes."""
    write_task_for(warm.home, str(toy_model), "programs")
    as_code(warm.home, "programs")
    yield "programs"
    for part in ("data", "vault"):
        shutil.rmtree(warm.home / part / "programs")


async def test_methods_that_run_their_own_code_leave_no_record_and_one_that_runs_the_programs_is_disqualified(
    warm: TrainingSettings, programs: str
) -> None:
    before = records(warm.home)
    async with connect(build(warm)) as client:
        for method in ("vanilla", "em_denoise", "probe"):
            run = await client.call("submit_run", task=programs, method=method)
            assert (await finish(client, run["run_id"]))["status"] == "done"
        assert records(warm.home) == before
        run = await client.call("submit_run", task=programs, file=write_method(warm, RUNS_THEM, "runs.py"))
        view = await finish(client, run["run_id"])
    assert view["status"] == "done"
    found = {(one.kind, one.action, one.run_id) for one in records(warm.home)}
    assert ("canary", "disqualify", run["run_id"]) in found
    assert ("dynamic code", "quarantine", run["run_id"]) in found


def make_run(home: Path) -> tuple[TrainingSettings, Run]:
    fields: dict[str, object] = {"run_id": "run-000001", "agent": "ada", "task": "toy", "method": "m", "params": {}}
    rest = {"source_sha256": "0", "source_bytes": 9, "kind": "full", "seeds": (0,)}
    return settings_for(home), Run(**(fields | rest))  # type: ignore[arg-type]


def test_a_flood_of_events_fills_no_log_and_hides_no_canary(home: Path) -> None:
    watched = Watched(*make_run(home), 0)
    for number in range(100):
        watched.take({"watched": "exec", "where": f"method.py:{number}"})
    assert [one.action for one in records(home)] == ["flag"] * MOST
    for _ in range(2):
        watched.take({"watched": "canary", "where": "<string>:1"})
    assert [one.action for one in records(home)] == ["flag"] * MOST + ["disqualify"]


def test_a_log_that_cannot_be_written_ends_no_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AuditLog, "append", full)
    Watched(*make_run(home), 0).take({"watched": "canary", "where": "x"})
