"""The tool-server kit: an `MCPServer` that refuses duplicates, knows its caller and turns our errors into answers.

A server is `build(settings) -> ToolServer` and a `main()` that calls `run(build, Settings, prog)`.
"""

import functools
import gc
import inspect
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Any, NoReturn, TypeVar

import anyio
import anyio.to_thread
import structlog
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver.exceptions import ResourceError, ToolError, UnexpectedToolError
from mcp.server.subscriptions import ListenHandler, ResourceUpdated
from mcp.types import (
    CallToolResult,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    TextContent,
    ToolAnnotations,
)
from pydantic import AnyHttpUrl, BaseModel, ValidationError
from pydantic_settings import SettingsError
from sqlalchemy.exc import OperationalError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from outlearn.errors import ConfigError, OutlearnError, PluginError, is_full_disk
from outlearn.hints import plain, problems
from outlearn.identity import Caller, TokenFile
from outlearn.logs import configure_logging, redact
from outlearn.outline import outline
from outlearn.serving import at_work, serve_http, step_aside
from outlearn.settings import ServerSettings
from outlearn.transactions import BusyError

READ_ONLY = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
ADDS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)
CHANGES = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)

Lifespan = Callable[[MCPServer[Any]], AbstractAsyncContextManager[Any]]
Function = TypeVar("Function", bound=Callable[..., Any])
Answer = TypeVar("Answer")
_KEEPS_TURN = "keeps_turn"
Settings = TypeVar("Settings", bound=ServerSettings)
log = structlog.get_logger("outlearn")


class ToolServer(MCPServer[Any]):
    """An `MCPServer` with outlearn's rules: every tool is described, named once, and fails with an explanation."""

    def __init__(self, name: str, settings: ServerSettings, *, instructions: str, lifespan: Lifespan | None) -> None:
        tokens = TokenFile(settings.token_file) if settings.token_file else None
        if tokens:
            tokens.read()  # a damaged file must stop the server now, not turn every caller away later
        super().__init__(
            name,
            instructions=instructions,
            version=version("outlearn"),
            lifespan=lifespan,
            token_verifier=_Verifier(tokens) if tokens else None,
            auth=_auth() if tokens else None,
            log_level="WARNING",
        )
        listening = _Listening(self._subscriptions)
        self._lowlevel_server.add_request_handler("subscriptions/listen", SubscriptionsListenRequestParams, listening)
        self._default_caller = Caller(agent=settings.agent, role=settings.role)
        self.custom_route("/healthz", ["GET"])(self._health)

    def caller(self) -> Caller:
        """Who calls the tool that is running: the bearer token's holder, else the agent in the settings."""
        token = get_access_token()
        if token is None:
            return self._default_caller
        return Caller(agent=token.client_id, role="operator" if "operator" in token.scopes else "agent")

    def add_tool(self, fn: Callable[..., Any], name: str | None = None, *args: Any, **kwargs: Any) -> None:
        """Register a tool.

        Raises:
            PluginError: it has no docstring, or its name is taken.
        """
        tool_name = name or fn.__name__
        if self._tool_manager.get_tool(tool_name) is not None:
            raise PluginError(f"server {self.name!r} has a tool {tool_name!r} already; rename one of them")
        if not (fn.__doc__ or kwargs.get("description") or "").strip():
            raise PluginError(
                f"tool {tool_name!r} of server {self.name!r} needs a docstring: agents choose tools by it"
            )
        super().add_tool(_explaining(fn, ToolError), tool_name, *args, **kwargs)
        tool = self._tool_manager.get_tool(tool_name)
        if tool is not None and tool.fn_metadata.output_schema is not None:
            tool.fn_metadata.output_schema = outline(tool.fn_metadata.output_schema)

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """Call a tool; what is wrong with the name or the arguments is said in plain words.

        Raises:
            ToolError: there is no such tool or argument, a value does not fit, or the tool raised it.
        """
        tool = self._tool_manager.get_tool(name)
        if tool is None:
            known = ", ".join(sorted(one.name for one in self._tool_manager.list_tools()))
            raise ToolError(f"no tool {name!r}; there are: {known}")
        named = tool.parameters.get("properties", {})
        if unknown := sorted(arguments.keys() - named.keys()):
            raise ToolError(f"{name} takes no {unknown[0]!r}; it takes: {', '.join(named) or 'nothing'}")
        try:
            with at_work():
                return await super().call_tool(name, arguments, context)
        except UnexpectedToolError:
            raise
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                raise ToolError(f"{name}: {problems(error.__cause__)}") from None
            raise

    async def read_resource(self, uri: Any, context: Any = None) -> Any:
        """Read a resource, which keeps its caller's turn until it is read."""
        with at_work():
            return await super().read_resource(uri, context)

    def resource(self, uri: str, **kwargs: Any) -> Callable[[Function], Function]:
        """Register a resource. Raises PluginError where the URI is taken."""
        taken = {resource.uri for resource in self._resource_manager.list_resources()}
        taken |= {template.uri_template for template in self._resource_manager.list_templates()}
        if uri in taken:
            raise PluginError(f"server {self.name!r} has a resource {uri!r} already; rename one of them")
        register = super().resource(uri, **kwargs)

        def decorator(fn: Function) -> Function:
            register(_explaining(fn, ResourceError))
            return fn

        return decorator

    async def changed(self, uri: str) -> None:
        """Tell the clients that subscribed to a resource that it changed."""
        await self._subscriptions.publish(ResourceUpdated(uri))

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok", "server": self.name, "version": self.version})


def make_server(
    name: str, settings: ServerSettings, *, instructions: str, lifespan: Lifespan | None = None
) -> ToolServer:
    """Make a tool server. `instructions` tell an agent in a few lines what the server is for."""
    if not structlog.is_configured():  # its default writes to stdout, which belongs to the protocol
        configure_logging(settings)
    return ToolServer(name, settings, instructions=instructions, lifespan=lifespan)


def run(
    build: Callable[[Settings], ToolServer], settings_type: type[Settings], prog: str, argv: list[str] | None = None
) -> None:
    """Parse the command line, build the server and serve it until the client leaves or a signal comes."""
    try:
        arguments = sys.argv[1:] if argv is None else argv
        settings = settings_type(_cli_parse_args=arguments, _cli_prog_name=prog)
    except ValidationError as error:
        _refuse(prog, "; ".join(f"{_option(one['loc'])}: {plain(one)}" for one in error.errors()))
    except SettingsError as error:
        _refuse(prog, str(error).removeprefix("error parsing CLI: "))
    configure_logging(settings)
    try:
        if settings.token_file:
            TokenFile(settings.token_file).read()  # before anything is made in the home folder
        server = build(settings)
        gc.freeze()  # else the first calls wait for a look at all that was imported, which takes 0.1 s
        serve(server, settings)
    except (OutlearnError, OSError) as error:
        _refuse(prog, str(error))


def serve(server: ToolServer, settings: ServerSettings) -> None:
    """Serve over the transport that the settings name. Blocks. Raises ConfigError where the port is taken."""
    if settings.transport == "stdio":
        anyio.run(server.run_stdio_async, backend_options={"use_uvloop": sys.platform != "win32"})
        return
    serve_http(server, settings)


class _Listening(ListenHandler):
    """A stream of notifications takes no turn of its caller's: it is open for long and does nothing.

    Only who serves it knows that it is one: the header that names the method may say anything.
    """

    async def __call__(self, ctx: Any, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        step_aside()
        return await super().__call__(ctx, params)


class _Verifier:
    """Lets mcp's bearer middleware ask our token file."""

    def __init__(self, tokens: TokenFile) -> None:
        self._tokens = tokens

    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            caller = self._tokens.verify(token)
        except ConfigError as error:
            log.error("nobody can be let in", error=str(error))
            return None
        # the token itself is passed no further: nobody needs it, and what is not there cannot be logged
        return AccessToken(token="", client_id=caller.agent, scopes=[caller.role]) if caller else None


def keeps_turn(tool: Function) -> Function:
    """Mark an async tool that has its work done at once or in a thread: it keeps its caller's turn meanwhile, as tools
    that are not async do. Others give it back, as they may wait for long."""
    setattr(tool, _KEEPS_TURN, True)
    return tool


async def at_once_or_in_thread(work: Callable[..., Answer], *args: Any) -> Answer:
    """`work(*args, wait=False)` at once, which keeps everybody waiting, and so must take no more than a millisecond or
    two; or, where that raises BusyError, `work(*args)` in a thread. To go to a thread and back costs more than that."""
    try:
        return work(*args, wait=False)
    except BusyError:
        return await anyio.to_thread.run_sync(functools.partial(work, *args))


def told(answer: BaseModel, text: str) -> CallToolResult:
    """A tool's answer with a text of its own for the agent, and data for programs.

    The data leave out what has its default value: the schema says what that is.
    """
    content = TextContent(type="text", text=text)
    return CallToolResult(content=[content], structured_content=answer.model_dump(mode="json", exclude_defaults=True))


def _auth() -> AuthSettings:
    return AuthSettings(issuer_url=AnyHttpUrl("http://localhost"), resource_server_url=None)


def _explaining(fn: Function, error_type: type[Exception]) -> Function:
    """Wrap a tool or resource so that errors the caller can mend arrive with their message."""
    name = getattr(fn, "__name__", "tool")

    if inspect.iscoroutinefunction(fn):

        @functools.wraps(fn)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            if not getattr(fn, _KEEPS_TURN, False):
                step_aside()
            try:
                return await fn(*args, **kwargs)
            except (OutlearnError, OperationalError, OSError) as error:
                _explain(error, error_type)
            finally:
                log.debug("called", name=name, ms=round(1000 * (time.perf_counter() - start), 1))

        return call_async  # type: ignore[return-value]

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return fn(*args, **kwargs)
        except (OutlearnError, OperationalError, OSError) as error:
            _explain(error, error_type)
        finally:
            log.debug("called", name=name, ms=round(1000 * (time.perf_counter() - start), 1))

    return call  # type: ignore[return-value]


def _explain(error: Exception, error_type: type[Exception]) -> NoReturn:
    if isinstance(error, OutlearnError):
        raise error_type(str(error)) from error
    if is_full_disk(error):
        raise error_type("the disk is full; try the same call again when the operator has made room") from error
    if isinstance(error, OperationalError):
        log.error("storage", error=str(error.orig))
        raise error_type("the database does not answer at present; try the same call again later") from error
    raise error


def _option(location: tuple[int | str, ...]) -> str:
    name = "-".join(map(str, location)).replace("_", "-")
    return f"--{name} (or OUTLEARN_{name.replace('-', '_').upper()})" if name else "settings"


def _refuse(prog: str, message: str) -> NoReturn:
    sys.stderr.write(redact(f"{prog}: {message}\n"))
    raise SystemExit(2)
