"""Several tokens or several seeds where one is meant: nine agents with one plan, probes packed into a run's seeds."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from homes import RUNS, evaluating, file_run, refused, toy_home
from measure import Figure
from probing import Notes
from registry import Family
from world import ITEMS, SEEDS, Vector, World, world

from outlearn.errors import BudgetError
from outlearn.identity import Caller
from outlearn.receipts import ReceiptBook
from outlearn.tasks import load_secret

attacks = Family()
TEAM = [Caller(agent=f"agent-{number}") for number in range(9)]
ANSWERS = 200


@attacks
def nine_tokens_for_one_run(folder: Path) -> bool:
    """The same students under nine names get one answer, so that there is no noise to average out."""
    home = toy_home(folder)
    for caller, run_id in zip(TEAM, RUNS, strict=False):
        file_run(home, run_id, agent=caller.agent, right=0.8)
    with evaluating(home) as service:
        told = [service.evaluate(caller, run_id, None) for caller, run_id in zip(TEAM, RUNS, strict=False)]
        team_left = service.budget(TEAM[0]).team_left
    same = len({(one.pgr, one.pgr_se, one.at_most) for one in told}) == 1
    return same and all(one.charged for one in told) and team_left == 191


@attacks
def small_steps_of_nine_tokens(folder: Path) -> bool:
    """Steps of less than 2 % from one run, a step a token, all get that run's answer."""
    home = toy_home(folder)
    file_run(home, RUNS[0], agent="agent-0", right=0.8)
    first, public = ReceiptBook(home / "vault").read(RUNS[0]), load_secret(home, "toy").public_half
    for number, caller in enumerate(TEAM[1:], 1):
        for receipt in first:
            answers = np.array(receipt.predictions)
            answers[[public[number], public[-number]]] = 1 - answers[[public[number], public[-number]]]
            changes = {"run_id": RUNS[number], "agent": caller.agent, "predictions": tuple(answers.tolist())}
            ReceiptBook(home / "vault").issue(receipt.model_copy(update=changes))
    with evaluating(home) as service:
        told = [service.evaluate(caller, run_id, None) for caller, run_id in zip(TEAM, RUNS, strict=False)]
    return len({one.pgr for one in told}) == 1 and {one.same_as for one in told[1:]} == {RUNS[0]}


@attacks
def no_more_than_the_teams_budget(folder: Path) -> Figure:
    """Nine tokens with thirty evaluations each get 200 answers."""
    home = toy_home(folder)
    answered = 0
    with evaluating(home) as service:
        for number, run_id in enumerate(RUNS[:270]):
            caller = TEAM[number % 9]
            file_run(home, run_id, agent=caller.agent, right=0.5, rng=number)
            answered += not refused(lambda c=caller, r=run_id: service.evaluate(c, r, None), BudgetError)
    return Figure("no_more_than_the_teams_budget", float(answered), ANSWERS)


def packed(one: World) -> tuple[Vector, Vector]:
    """Five different probes around a good student in the seeds of each run, solved for by the seeds' mean votes."""
    start, notes = one.student(0.63), Notes()
    while len(notes.asked) < ANSWERS:
        votes = np.where(one.rng.random((SEEDS, ITEMS)) < 0.2, -start, start)
        told = one.ask(votes)
        if told is None:
            break
        notes.asked.append(votes.mean(axis=0))
        notes.scores.append(told.pgr)
    solved, best = notes.solve(), start.copy()
    doubtful = np.argsort(solved * start)[: ITEMS // 20]
    best[doubtful] = np.sign(solved[doubtful])
    return best, start


def packing(folder: Path, servers: int) -> Iterator[Figure]:
    """What probes that are packed into seeds gain, by the bars of informed boosting."""
    rows = []
    for seed in range(servers):
        with world(folder, 3000 + seed) as one:
            best, start = packed(one)
            rows.append(np.subtract(one.accuracies(best), one.accuracies(start)))
    public, private = np.mean(rows, axis=0)
    yield Figure("packed_seeds_public", float(public), 3.0)
    yield Figure("packed_seeds_private", float(private), 0.5)
