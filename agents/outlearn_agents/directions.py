"""Starting directions and prompts: Markdown files in `prompts/`, data rather than code."""

from importlib.resources import files
from pathlib import Path
from typing import Literal

from outlearn.errors import InvalidInputError, NotFoundError

DIVERSE = (
    "elicitation",
    "trust",
    "iteration",
    "witnesses",
    "simplicity",
    "information",
    "evolution",
    "probes",
    "wildcard",
)
Mode = Literal["diverse", "same", "prescriptive"]


def read_prompt(name: str) -> str:
    """The prompt `prompts/<name>.md`."""
    return (files("outlearn_agents") / "prompts" / f"{name}.md").read_text(encoding="utf-8")


def direction_names() -> list[str]:
    """The directions that ship with outlearn, sorted."""
    folder = files("outlearn_agents") / "prompts" / "directions"
    return sorted(entry.name.removesuffix(".md") for entry in folder.iterdir() if entry.name.endswith(".md"))


def read_direction(name: str) -> str:
    """A direction's text, by its name or as the path of a Markdown file of one's own.

    Raises:
        NotFoundError: there is no such direction.
        InvalidInputError: the file is empty or not text.
    """
    if name in direction_names():
        return read_prompt(f"directions/{name}").strip()
    try:
        text = Path(name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        known = ", ".join(direction_names())
        raise NotFoundError(f"no direction {name!r}; there are {known}, or give the path of a text file") from None
    if not text:
        raise InvalidInputError(f"the direction file {name!r} is empty")
    return text


def choose_directions(names: list[str], count: int, mode: Mode = "diverse") -> list[str]:
    """The texts for `count` agents.

    Args:
        names: directions to choose from, going round where they are fewer than the agents; default: nine diverse ones.
        count: how many agents.
        mode: diverse; same: all get the first direction (default `open`); prescriptive: all get a list of steps.

    Raises:
        InvalidInputError: directions are named for prescriptive agents.
    """
    if mode == "prescriptive" and names:
        raise InvalidInputError(f"prescriptive agents all get the same steps; leave out the direction {names[0]!r}")
    chosen = {"diverse": names or list(DIVERSE), "same": [*names, "open"][:1], "prescriptive": ["prescriptive"]}[mode]
    return [read_direction(chosen[index % len(chosen)]) for index in range(count)]
