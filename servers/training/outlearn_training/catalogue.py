"""The methods on offer, built-in and from plugins: their source, and a JSON schema of their parameters."""

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict, PydanticUserError, ValidationError, create_model

from outlearn.errors import InvalidInputError, NotFoundError, PluginError
from outlearn.hints import problems
from outlearn.registry import METHODS, Registry
from outlearn.types import MethodInfo

NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
TYPES: dict[type, Any] = {bool: bool, int: int | float, float: float, str: str}
"""Of parameters without an annotation, by their defaults."""


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
    try:
        params = list(inspect.signature(function, eval_str=True).parameters.values())
    except NameError as error:
        raise PluginError(f"the method plugin {name!r} has an annotation that cannot be read: {error}") from error
    if [one.name for one in params[:2]] != ["lab", "seed"]:
        raise PluginError(f"the method plugin {name!r} must begin with the parameters (lab, seed)")
    model = _params_model(name, params[2:])
    source = inspect.getsource(module)
    info = MethodInfo(
        name=name,
        summary=inspect.getdoc(module) or inspect.getdoc(function) or name,
        params=model.model_json_schema(),
        uses_weak_labels="weak_labels" in source,
        source=source,
    )
    return Method(info=info, params_model=model)


def _params_model(plugin: str, params: Sequence[inspect.Parameter]) -> type[BaseModel]:
    """What checks a method's parameters. Raises PluginError, which names the parameter that cannot be checked."""
    kinds = {one.kind for one in params}
    config = ConfigDict(extra="allow" if inspect.Parameter.VAR_KEYWORD in kinds else "forbid", allow_inf_nan=False)
    fields: dict[str, Any] = {one.name: _field(one) for one in params if one.kind in NAMED}
    for name, field in fields.items():
        try:
            create_model(plugin, __config__=config, **{name: field}).model_json_schema()
        except PydanticUserError as error:
            raise PluginError(
                f"the method plugin {plugin!r} has a parameter {name!r} that cannot be checked "
                f"({str(error).partition('. ')[0]}); annotate it as bool, int, float, str or Literal"
            ) from error
    return create_model(f"{plugin}_params", __config__=config, **fields)


def _field(param: inspect.Parameter) -> tuple[Any, Any]:
    """Its type, which is the default's where nothing says another, and its default, which is `...` for none."""
    default = ... if param.default is inspect.Parameter.empty else param.default
    if param.annotation is not inspect.Parameter.empty:
        return param.annotation, default
    return TYPES.get(type(default), Any), default
