"""Structured logs on stderr, for outlearn and for the libraries that use `logging`. stdout belongs to the protocol.

What looks like a secret is blotted out in every line, tracebacks included.
"""

import logging
import re
import sys
import traceback
from contextlib import suppress
from types import TracebackType
from typing import Any

import structlog

from outlearn.settings import ServerSettings

SECRETS = re.compile(
    r"(outlearn_)[\w-]{43}|(sk-ant-)[\w-]+|(://[^/\s:@\"]*:)[^/\s@\"]+(?=@)|(bearer\s+)[\w.~+/=-]{16,}", re.IGNORECASE
)


def redact(text: str) -> str:
    """`text` without bearer tokens, Anthropic keys and the passwords in URLs."""
    return SECRETS.sub(lambda found: f"{found[found.lastindex or 0]}***", text)


def configure_logging(settings: ServerSettings) -> None:
    """Send structlog and `logging` to stderr, as JSON lines or coloured text. Call before any `MCPServer()` is made."""
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[Any] = (
        # rich's tracebacks, its default where rich is installed, show local variables: keys and labels too
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = _StderrHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    sys.excepthook = _redacted_traceback
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for noisy in ("httpx2", "httpcore2", "mcp", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # it warns of all that is no request: whoever reaches the port, without a token, could fill the disk
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


class _StderrHandler(logging.Handler):
    """Writes to whatever stderr is at the time, so that a test's captured stream is not kept.

    A line for which there is no room, or that nobody reads, is lost: what is logged must not fail over it.
    """

    def emit(self, record: logging.LogRecord) -> None:
        line = redact(self.format(record)) + "\n"
        with suppress(OSError):
            sys.stderr.write(line)
            sys.stderr.flush()


def _redacted_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))
