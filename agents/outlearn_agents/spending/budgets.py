"""Budgets from the command line: what is not given stays as an earlier session had it."""

from collections.abc import Mapping
from contextlib import closing

from pydantic import ValidationError

from outlearn.errors import InvalidInputError
from outlearn.hints import problems
from outlearn_agents.run_folder import RunFolder
from outlearn_agents.spending.ledger import Budget, Ledger, Limits


def change_budget(folder: RunFolder, team: Mapping[str, object], agent: Mapping[str, object]) -> Budget | None:
    """The folder's budget with new limits, or None where none is given.

    Raises:
        InvalidInputError: there is no such limit, or the value is impossible.
    """
    given = {"team": {name: value for name, value in team.items() if value is not None}, "agent": dict(agent)}
    if not any(given.values()):
        return None
    known = Budget().model_dump()
    if folder.spending.exists():
        with closing(Ledger(folder.spending)) as ledger:
            known = ledger.budget().model_dump()
    try:
        return Budget.model_validate({scope: {**known[scope], **limits} for scope, limits in given.items()})
    except ValidationError as error:
        raise InvalidInputError(f"budget: {problems(error)}; there are {', '.join(Limits.model_fields)}") from error


def write_budget(folder: RunFolder, budget: Budget) -> None:
    """Put a budget into the ledger; agents at work go by it from their next call on."""
    with closing(Ledger(folder.spending)) as ledger:
        ledger.set_budget(budget)
