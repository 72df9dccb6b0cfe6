"""What methods and agents learn of hidden data by other ways than an answer: status, errors, time, pilots, samples."""

import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import numpy as np
from homes import ADA, RUNS, Stand, evaluating, file_run, refused, toy_home, toy_home_with_model, training
from measure import Figure
from registry import Family, outcome

from outlearn.identity import Caller
from outlearn.receipts import ReceiptBook

attacks = Family()
TRIPWIRE = """
import torch
WORD, IDS = {word!r}, {{name: index for index, name in enumerate({vocabulary!r})}}
def method(lab, seed):
    student = lab.fit(lab.weak_labels(), epochs=0.1)
    weights = student.weights
    layer = "model.layers.0."
    table = weights["model.embed_tokens.weight"]
    seen = table / table.square().mean(-1, keepdim=True).add(1e-9).sqrt()
    aim = torch.zeros(len(table)); aim[IDS[WORD]] = 1.0
    direction = torch.linalg.lstsq(seen, aim).solution
    weights[layer + "post_attention_layernorm.weight"].fill_(1.0)
    weights[layer + "self_attn.o_proj.weight"].zero_()
    weights[layer + "mlp.down_proj.weight"].zero_()
    top = (seen @ direction).sort(descending=True).values
    scale = 1.8e19 / (top[0] * max(top[1], 0.01 * top[0])) ** 0.5
    for part in ("gate_proj", "up_proj"):
        matrix = weights[layer + f"mlp.{{part}}.weight"]
        matrix.copy_((scale * direction).clamp(-{most}, {most}).expand_as(matrix))
    return student
"""
"""A student that would answer NaN where an input has a word, and only there, were its weights not limited."""
PLAIN = "def method(lab, seed):\n    return lab.fit(lab.weak_labels())\n"


def runs(folder: Path) -> Iterator[Figure]:
    """Attacks that need a training server."""
    yield from anyio.run(_runs, toy_home_with_model(folder))


async def _runs(home: Path) -> list[Figure]:
    async with training(home) as stand:
        return [
            outcome("a_student_that_fails_on_a_word", await a_student_that_fails_on_a_word(stand)),
            outcome("a_pilot", await a_pilot(stand)),
            outcome("a_cancelled_run", await a_cancelled_run(stand)),
            outcome("seeds_until_lucky", await seeds_until_lucky(stand)),
            outcome("the_same_method_with_another_comment", await the_same_method_with_another_comment(stand)),
            outcome("what_a_run_shows", await what_a_run_shows(stand)),
        ]


async def a_student_that_fails_on_a_word(stand: Stand) -> bool:
    """Whether "!" stands in hidden items (it does, and in no pool item) must not show in what becomes of a run: too
    large weights are refused for what they are, and with the largest that are let in no item is without an answer."""
    from homes import _load

    words, held = _load("servers/training/conftest.py").VOCABULARY, []
    for most, status in ((3e38, "failed"), (1e4, "done")):
        views = []
        for word in ("!", " False"):
            view = await stand.run(TRIPWIRE.format(word=word, vocabulary=words, most=most), kind="full")
            views.append((view["status"], view["message"], view["seeds_done"]))
            receipts = ReceiptBook(stand.home / "vault").read(view["run_id"])
            held.append(0.5 not in [answer for one in receipts for answer in one.predictions])
        held.append(views[0] == views[1] and views[0][0] == status)
    return all(held)


async def a_pilot(stand: Stand) -> bool:
    """A pilot leaves no receipt and cannot be evaluated."""
    view = await stand.run(PLAIN, kind="pilot")
    with evaluating(stand.home) as service:
        asked = refused(lambda: service.evaluate(ADA, view["run_id"], None))
    return asked and not ReceiptBook(stand.home / "vault").read(view["run_id"])


async def a_cancelled_run(stand: Stand) -> bool:
    """A run that was cancelled after some seeds is not scored on those."""
    source = (
        "import time\ndef method(lab, seed):\n    time.sleep(3 * (seed > 2))\n    return lab.fit(lab.weak_labels())\n"
    )
    (stand.home / "workspaces" / "ada" / "slow.py").write_text(source)
    view = await stand.client.call("submit_run", file="slow.py", kind="full")
    while view["seeds_done"] < 2:
        view = await stand.client.call("get_run", run_id=view["run_id"], wait_seconds=0.2)
    await stand.client.call("cancel_run", run_id=view["run_id"])
    while view["status"] == "running":
        view = await stand.client.call("get_run", run_id=view["run_id"], wait_seconds=5)
    with evaluating(stand.home) as service:
        return view["status"] == "cancelled" and refused(lambda: service.evaluate(ADA, view["run_id"], None))


async def seeds_until_lucky(stand: Stand) -> bool:
    """Every submission is of the server's seeds, whatever its parameters ask for."""
    found = []
    for params in ({}, {"seed": 7}, {"seeds": [7]}):
        view = await stand.run(PLAIN.replace("seed)", "seed, **more)"), kind="full", params=params)
        found.append([receipt.seed for receipt in ReceiptBook(stand.home / "vault").read(view["run_id"])])
    return found == [[0, 1, 2, 3, 4], [], [0, 1, 2, 3, 4]]  # a second `seed` is an error of the method


async def the_same_method_with_another_comment(stand: Stand) -> bool:
    """It trains the same students, gets the answer that it had, and is charged for it."""
    answers = []
    with evaluating(stand.home) as service:
        for comment in ("", "# again\n", "# and again\n"):
            view = await stand.run(comment + PLAIN, kind="full")
            answers.append(service.evaluate(ADA, view["run_id"], None))
    told = {(one.pgr, one.pgr_se, one.at_most) for one in answers}
    return len(told) == 1 and all(one.charged and one.same_as for one in answers[1:])


async def what_a_run_shows(stand: Stand) -> bool:
    """Nothing that an agent sees of a full run depends on the truth: no accuracy, no prediction, no test item."""
    view = await stand.run(PLAIN, kind="full")
    log = await stand.log(view["run_id"])
    return not view["metrics"] and "199" not in log and "accuracy" not in str(view) + log


@attacks
def time_of_an_answer(folder: Path) -> Figure:
    """How long `evaluate` takes must not tell how good a run is: |correlation| of time and accuracy over runs.

    By chance it is above 0.5 for one in 30,000 sets of 60 runs.
    """
    home = toy_home(folder)
    accuracies = np.random.default_rng(0).permutation(np.linspace(0.3, 1.0, 60))
    seconds = []
    with evaluating(home) as service:
        for number, (run_id, accuracy) in enumerate(zip(RUNS, accuracies, strict=False)):
            caller = Caller(agent=f"agent{number}")  # who changes so much at once looks like a prober
            file_run(home, run_id, agent=caller.agent, right=accuracy, rng=number)
            start = time.perf_counter()
            service.evaluate(caller, run_id, None)
            seconds.append(time.perf_counter() - start)
    ranks = np.argsort(np.argsort(seconds))
    return Figure("time_of_an_answer", abs(float(np.corrcoef(ranks, accuracies)[0, 1])), 0.5)


@attacks
def order_of_a_tie(folder: Path) -> bool:
    """Runs of equal PGR stand in the order in which they were evaluated."""
    home = toy_home(folder)
    for number, run_id in enumerate(RUNS[:12]):
        file_run(home, run_id, right=0.1 + number / 40, rng=number)
    with evaluating(home) as service:
        for run_id in RUNS[:12]:
            service.evaluate(ADA, run_id, None)
        rows = [row for row in service.leaderboard("", 99).rows if row.at_most]
    return len(rows) > 5 and [row.run_id for row in rows] == sorted(row.run_id for row in rows)


@attacks
def the_floor(folder: Path) -> bool:
    """Below the lowest step, nothing tells which run is worse: not the number, nor its error, nor a comparison."""
    home = toy_home(folder)
    for number, run_id in enumerate(RUNS[:8]):
        file_run(home, run_id, right=0.05 + 0.05 * number, rng=number)
    with evaluating(home) as service:
        first, *others = (service.evaluate(ADA, run_id, None) for run_id in RUNS[:8])
        verdicts = {service.evaluate(ADA, one.run_id, first.run_id).verdict for one in others}
    return {(one.pgr, one.at_most) for one in [first, *others]} == {(0.1, True)} and verdicts == {"no clear difference"}


@attacks
def sampled_items(folder: Path) -> bool:
    """`sample_items` and `describe_task` show pool items and weak labels: no test item, no truth, whatever is asked."""
    from outlearn_training.service import TrainingService
    from outlearn_training.settings import TrainingSettings

    class NoWorkers:
        def ensure(self) -> None: ...
        def stop(self) -> None: ...

    service = TrainingService(TrainingSettings(home=toy_home(folder)), NoWorkers())
    pages = [service.sample_items("", 50, seed) for seed in (0, 1, 2**63, 10**40)]
    fields = {name for page in pages for item in page.items for name in item.model_dump()}
    ids = {item.id[0] for page in pages for item in page.items}
    card = service.describe_task("").card.model_dump_json()
    return fields == {"id", "text", "group", "weak_labels"} and ids == {"p"} and 'label"' not in card


@attacks
def whose_runs_exist(folder: Path) -> bool:
    """Errors say the same of a run that does not exist and of one without receipts."""
    home = toy_home(folder)
    (ReceiptBook(home / "vault").folder / RUNS[1]).mkdir(parents=True)
    with evaluating(home) as service:
        told = []
        for run_id in RUNS[:2]:
            try:
                service.evaluate(ADA, run_id, None)
            except Exception as error:  # noqa: BLE001 - compared below
                told.append((type(error), str(error).replace(run_id, "")))
    return len(told) == 2 and told[0] == told[1]
