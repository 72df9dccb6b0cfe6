"""Starting directions and prompts: Markdown files in `prompts/`, data rather than code."""

from importlib.resources import files
from pathlib import Path

from outlearn.errors import InvalidInputError, NotFoundError

DIVERSE = ("elicitation", "trust", "iteration", "confidence", "witnesses", "simplicity")


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


def choose_directions(names: list[str], count: int) -> list[str]:
    """The texts for `count` agents, going round where there are fewer names than agents; default: diverse ones."""
    chosen = names or list(DIVERSE)
    return [read_direction(chosen[index % len(chosen)]) for index in range(count)]
