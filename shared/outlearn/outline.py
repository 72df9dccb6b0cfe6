"""What a tool's published output schema has clients check: the outline of an answer, not each value again."""

from typing import Any

_PLACE = "#/$defs/"


def outline(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of an answer, with the models in it as objects of which only the required names are checked.

    The server checks each answer against the whole model before it leaves. Python clients check it a second time, at
    some ten microseconds a value: ten rows of a leaderboard took them longer than the call. The models stay described
    in `$defs`; the `title` of an object is its name there.
    """
    models = schema.get("$defs", {})

    def within(part: Any) -> Any:
        if isinstance(part, list):
            return [within(one) for one in part]
        if not isinstance(part, dict):
            return part
        name = str(part.get("$ref", "")).removeprefix(_PLACE)
        if models.get(name, {}).get("type") != "object":
            return {key: within(value) for key, value in part.items()}
        said = {key: value for key, value in part.items() if key != "$ref"}  # such as its default
        return {"type": "object", "title": name, "required": models[name].get("required", [])} | said

    return {key: value if key == "$defs" else within(value) for key, value in schema.items()}
