"""What a tool's published output schema has clients check: the outline of an answer, not each value again."""

from typing import Any

_PLACE = "#/$defs/"


def outline(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of an answer, with the models in it as objects of which only the required names are checked, and of
    those in lists nothing.

    The server checks each answer against the whole model before it leaves. Python clients check it a second time, at
    some ten microseconds a value: ten rows of a leaderboard took them longer than the call. The models stay described
    in `$defs`; the `title` of an object is its name there, and a list's `$comment` has its items' name.
    """
    models = schema.get("$defs", {})

    def name_of(part: Any) -> str | None:
        name = str(part.get("$ref", "")).removeprefix(_PLACE) if isinstance(part, dict) else ""
        return name if models.get(name, {}).get("type") == "object" else None

    def within(part: Any) -> Any:
        if isinstance(part, list):
            return [within(one) for one in part]
        if not isinstance(part, dict):
            return part
        if (item := name_of(part.get("items"))) is not None:
            return {**part, "items": True, "$comment": f"Each item is a {item}."}
        if (name := name_of(part)) is None:
            return {key: within(value) for key, value in part.items()}
        said = {key: value for key, value in part.items() if key != "$ref"}  # such as its default
        return {"type": "object", "title": name, "required": models[name].get("required", [])} | said

    return {key: value if key == "$defs" else within(value) for key, value in schema.items()}
