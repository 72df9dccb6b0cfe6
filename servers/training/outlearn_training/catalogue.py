"""The methods on offer, built-in and from plugins: their source, and a JSON schema of their parameters."""

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from outlearn.errors import InvalidInputError, NotFoundError, PluginError
from outlearn.hints import problems
from outlearn.registry import METHODS, Registry
from outlearn.types import MethodInfo


class Method(BaseModel):
    """A method from an entry point: one Python file with a function `method(lab, seed, **params)`."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    info: MethodInfo
    params_model: type[BaseModel]

    def check_params(self, params: dict[str, Any]) -> dict[str, Any]:
        """The parameters, converted and with defaults filled in.

        Raises:
            InvalidInputError: an unknown parameter, a wrong type, or a value out of bounds.
        """
        try:
            return self.params_model.model_validate(params).model_dump()
        except ValidationError as error:
            known = ", ".join(self.params_model.model_fields) or "none"
            raise InvalidInputError(f"params of {self.info.name!r}: {problems(error)}. It has: {known}") from error


@cache
def methods() -> dict[str, Method]:
    """All registered methods by name. Raises PluginError for one that fails to load."""
    registry = Registry(METHODS)
    return {name: _describe(name, registry.load(name)) for name in registry.names()}


def find_method(name: str) -> Method:
    """The method with this name. Raises NotFoundError."""
    if name not in methods():
        raise NotFoundError(f"no method {name!r}; `list_methods` has: {', '.join(methods())}")
    return methods()[name]


def list_infos(name: str = "") -> tuple[MethodInfo, ...]:
    """All methods without their sources, or the one with this name with its source. Raises NotFoundError."""
    if name:
        return (find_method(name).info,)
    return tuple(method.info.model_copy(update={"source": ""}) for method in methods().values())


def infos_text(infos: Sequence[MethodInfo]) -> str:
    """Two lines a method, or all about one whose source is there."""
    lines = []
    for one in infos:
        summary = one.summary if one.source else " ".join(one.summary.partition("\n\n")[0].split())
        params = "; ".join(_param_text(name, schema) for name, schema in one.params.get("properties", {}).items())
        lines += [f"{one.name}: {summary}", f"  params: {params or 'none'}", *([one.source] if one.source else [])]
    named = any(one.source for one in infos)
    return "\n".join(lines if named else [*lines, "list_methods with `method` shows the source of one"])


def is_registered(source: str) -> bool:
    """Whether this is the source of a registered method: code that the operator installed."""
    return any(method.info.source == source for method in methods().values())


def _param_text(name: str, schema: dict[str, Any]) -> str:
    """Such as `keep=0.5, minimum 0.05, maximum 1`."""
    bounds = [f"{word} {value}" for word, value in schema.items() if word not in ("default", "title", "type")]
    kind = repr(schema["default"]) if "default" in schema else schema.get("type", "any")
    return ", ".join([f"{name}={kind}", *bounds])


def _describe(name: str, function: Callable[..., Any]) -> Method:
    module = inspect.getmodule(function)
    if not isinstance(module, ModuleType) or getattr(module, "method", None) is not function:
        raise PluginError(f"the method plugin {name!r} must point at a function named 'method' in a file of its own")
    params = list(inspect.signature(function, eval_str=True).parameters.values())
    if [one.name for one in params[:2]] != ["lab", "seed"]:
        raise PluginError(f"the method plugin {name!r} must begin with the parameters (lab, seed)")
    fields: dict[str, Any] = {one.name: (one.annotation, one.default) for one in params[2:]}
    model = create_model(f"{name}_params", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)
    source = inspect.getsource(module)
    info = MethodInfo(
        name=name,
        summary=inspect.getdoc(module) or inspect.getdoc(function) or name,
        params=model.model_json_schema(),
        uses_weak_labels="weak_labels" in source,
        source=source,
    )
    return Method(info=info, params_model=model)
