"""A local peer that speaks the Messages API: streaming, token counts, usage, errors, cut-offs, and a scripted model.

By itself, `python tests/agents/messages_api.py --port 0 --ready-file F`, it plays a researcher (`scripted_model.py`);
point ANTHROPIC_BASE_URL at the URL in F. Tests run `MessagesApi` in a thread and say what each call answers.
"""

import argparse
import hashlib
import json
import os
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from managed_context import SUMMARY, Context, count_tokens, tokens_of
from scripted_model import Block, Body, next_answer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

CHUNK = 40
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


@dataclass(frozen=True)
class Answer:
    """What the model says in one call."""

    content: list[Block] = field(default_factory=list)
    stop_reason: str = "end_turn"
    usage: dict[str, Any] = field(default_factory=dict)
    """Numbers that differ from those that are counted."""
    break_after: int | None = None
    """Events after which the connection is cut."""
    end_after: int | None = None
    """Events after which the stream ends as if it were complete."""
    error_after: int | None = None
    """Events after which the stream says that the API is overloaded."""
    pause_seconds: float = 0.0
    """Before each event."""


@dataclass(frozen=True)
class Failure:
    """An error instead of an answer."""

    status: int
    message: str = "no"
    retry_after: str | None = None


Reply = Answer | Failure
Script = Callable[[Body], Reply]


class MessagesApi:
    """The peer. Each request takes a reply from `script`, and when that is used up from `model`.

    `requests` and `usages` keep what was asked and what was billed; with `log` each bill is a line of that file too.
    """

    def __init__(self, *script: Reply | Script, model: Script | None = None, log: Path | None = None) -> None:
        self.script = list(script)
        self.requests: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.counted: list[Body] = []
        self.usages: list[dict[str, Any]] = []
        self.refuses: set[str] = set()
        """Fields and betas of a request that this endpoint does not know."""
        self.url = ""
        self._model = model or (lambda _: Answer([{"type": "text", "text": "I am done."}]))
        self._log = log
        self._cache: dict[str, float] = {}
        routes = [
            Route("/v1/messages", self._messages, methods=["POST"]),
            Route("/v1/messages/count_tokens", self._count, methods=["POST"]),
            Route("/healthz", self._health),
        ]
        self.app = Starlette(routes=routes)

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok", "calls": len(self.usages)})

    async def _count(self, request: Request) -> Response:
        body = await request.json()
        self.counted.append(body)
        if "count_tokens" in self.refuses:
            return _error(Failure(404, "no such endpoint"))
        if '"type": "compaction"' in json.dumps(body) and "compact-" not in request.headers.get("anthropic-beta", ""):
            return _error(Failure(400, "messages: Input tag 'compaction' is not one of the expected tags"))
        return JSONResponse({"input_tokens": count_tokens(body)})

    async def _messages(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        if unknown := self._unknown(body, request.headers.get("anthropic-beta", "")):
            return _error(Failure(400, f"{unknown}: Extra inputs are not permitted"))
        if problem := check(body):
            return _error(Failure(400, problem))
        context = Context(body)
        if problem := context.problem():
            return _error(Failure(400, problem))
        reply = self.script.pop(0) if self.script else self._model
        if callable(reply):
            reply = reply(body)
        if isinstance(reply, Failure):
            return _error(reply)
        message = self._message(context, reply)
        if not body.get("stream"):
            return JSONResponse(message)
        return StreamingResponse(self._stream(message, reply), media_type="text/event-stream")

    def _unknown(self, body: Body, betas: str) -> str | None:
        return next((name for name in sorted(self.refuses) if name in body or name in betas), None)

    def _message(self, context: Context, answer: Answer) -> dict[str, Any]:
        body, content = context.body, context.bind(answer.content)
        content = [SUMMARY, *content] if context.is_full else content
        usage = self._usage(body, content) | context.usage() | answer.usage
        self.usages.append(usage)
        if self._log:
            line = {"at": time.time(), "agent": agent_of(body), "model": body["model"], "usage": usage}
            line |= {"max_tokens": body["max_tokens"], "broken": answer.break_after is not None}
            with self._log.open("a") as file:
                file.write(json.dumps(line) + "\n")
        return {
            "id": f"msg_{len(self.requests):08d}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": content,
            "stop_reason": answer.stop_reason,
            "stop_sequence": None,
            "usage": usage,
            "context_management": {"applied_edits": context.edits},
        }

    def _usage(self, body: Body, content: list[Block]) -> dict[str, Any]:
        """Prefixes that an earlier request cached are read from the cache, the rest is written to it."""
        total, read, prefix = count_tokens(body), 0, hashlib.sha256()
        prefix.update(json.dumps([body["model"], body.get("tools"), body.get("system")]).encode())
        so_far = tokens_of(body.get("tools")) + tokens_of(body.get("system"))
        caches = "cache_control" in body
        for part in [None, *body["messages"]]:
            if part is not None:
                prefix.update(json.dumps(part).encode())
                so_far += tokens_of(part)
            key = prefix.copy().hexdigest()
            read = so_far if caches and key in self._cache else read
            if caches:
                self._cache[key] = time.monotonic()
        written = total - read if caches else 0
        return {
            "input_tokens": total - read - written,
            "output_tokens": tokens_of(content),
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written,
        }

    async def _stream(self, message: dict[str, Any], answer: Answer) -> AsyncIterator[bytes]:
        for number, event in enumerate(events(message)):
            await anyio.sleep(answer.pause_seconds)
            if number == answer.break_after:
                raise ConnectionResetError("the script breaks the stream here")
            if number == answer.end_after:
                return
            if number == answer.error_after:
                body = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
                yield _frame(body)
                return
            yield _frame(event)

    @contextmanager
    def serve(self, port: int = 0) -> Iterator[str]:
        """Serve in a thread; gives the URL."""
        listener = socket.create_server(("127.0.0.1", port))
        config = uvicorn.Config(self.app, log_level="critical", timeout_graceful_shutdown=1, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            yield self.url
        finally:
            server.should_exit = True
            thread.join(10)
            listener.close()


def events(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A message as the events of a stream."""
    usage = message["usage"]
    started = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield {"type": "message_start", "message": started}
    yield {"type": "ping"}
    for index, block in enumerate(message["content"]):
        empty, deltas = _unfold(block)
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    managed = {"context_management": message.get("context_management")}
    yield {"type": "message_delta", "delta": delta, "usage": usage, **managed}
    yield {"type": "message_stop"}


def _unfold(block: Block) -> tuple[Block, list[dict[str, Any]]]:
    """An empty block and the deltas that fill it."""
    kind = block["type"]
    if kind == "text":
        return {"type": kind, "text": ""}, [{"type": "text_delta", "text": part} for part in _parts(block["text"])]
    if kind == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": part} for part in _parts(block["thinking"])]
        if block.get("signature"):
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {"type": kind, "thinking": "", "signature": ""}, deltas
    if kind == "tool_use":
        text = json.dumps(block["input"])
        text = text[: int(block.get("cut", len(text)))]
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in _parts(text)]
        return {"type": kind, "id": block["id"], "name": block["name"], "input": {}}, deltas
    if kind == "compaction":
        return {"type": kind, "content": None}, [{"type": "compaction_delta", "content": block["content"]}]
    return block, []


def _parts(text: str) -> list[str]:
    return [text[start : start + CHUNK] for start in range(0, len(text), CHUNK)]


def _frame(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _error(failure: Failure) -> Response:
    kind = KINDS.get(failure.status, "api_error")
    body = {"type": "error", "error": {"type": kind, "message": failure.message}, "request_id": "req_1"}
    headers = {"retry-after": failure.retry_after} if failure.retry_after else {}
    return JSONResponse(body, failure.status, headers)


def check(body: Body) -> str | None:
    """What the real API would object to in a conversation, or None."""
    messages = body["messages"]
    if body.get("tool_choice", {}).get("type") in ("any", "tool"):  # as models from Opus 5.5 and Fable 5.1 on
        return "tool_choice: forced tool use is not supported on this model"
    if not messages or messages[0]["role"] != "user":
        return "messages: first message must use the user role"
    calls: dict[str, int] = {}
    for index, message in enumerate(messages):
        blocks = message["content"] if isinstance(message["content"], list) else []
        if isinstance(message["content"], list) and not blocks:
            return f"messages.{index}: content must not be empty"
        if any(one["type"] == "text" and not one["text"].strip() for one in blocks):
            return f"messages.{index}: text content blocks must contain non-whitespace text"
        if any(one["type"] == "thinking" and not str(one.get("signature", "")).startswith("sig") for one in blocks):
            return f"messages.{index}: Invalid `signature` in `thinking` block"
        answers = {one["tool_use_id"] for one in blocks if one["type"] == "tool_result"}
        if message["role"] == "user" and (missing := set(calls) - answers):
            return f"messages.{index}: `tool_use` ids were found without `tool_result` blocks: {sorted(missing)}"
        if answers - set(calls):
            return f"messages.{index}: unexpected `tool_use_id` {sorted(answers - set(calls))}"
        calls = {one["id"]: index for one in blocks if one["type"] == "tool_use"}
    return f"messages: `tool_use` ids without `tool_result`: {sorted(calls)}" if calls else None


def agent_of(body: Body) -> str:
    """The agent's name, from the brief: `You are NAME, one of ...`."""
    system = body.get("system") or ""
    text = system if isinstance(system, str) else " ".join(block.get("text", "") for block in system)
    return text.partition("You are ")[2].partition(",")[0][:40] or "unknown"


class Moody:
    """A scripted model on an endpoint that fails now and then."""

    def __init__(self, faults: float, seed: int, pause_seconds: float = 0.0) -> None:
        self._faults = faults
        self._random = random.Random(seed)
        self._pause = pause_seconds

    def __call__(self, body: Body) -> Reply:
        content, stop_reason = next_answer(body)
        if self._random.random() >= self._faults:
            return Answer(content, stop_reason, pause_seconds=self._pause)
        return self._random.choice(
            (
                Failure(429, "Number of requests has exceeded your rate limit", retry_after="1"),
                Failure(529, "Overloaded"),
                Failure(500, "Internal server error"),
                Answer(content, stop_reason, break_after=self._random.randrange(6)),
                Answer(content, stop_reason, error_after=self._random.randrange(1, 6)),
                Answer([{"type": "text", "text": "I cannot help with that."}], "refusal"),
                Answer([{"type": "text", "text": "Let me think about"}], "max_tokens"),
            )
        )


def main() -> None:
    """Serve a scripted researcher until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ready-file", type=Path, help="gets {url, pid} once it listens")
    parser.add_argument("--log", type=Path, help="JSON lines: what each call was billed")
    parser.add_argument("--faults", type=float, default=0.0, help="share of the calls that fail in some way")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds before each event of a stream")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    api = MessagesApi(model=Moody(given.faults, given.seed, given.pause), log=given.log)
    with api.serve(given.port) as url:
        if given.ready_file:
            draft = given.ready_file.with_suffix(".draft")
            draft.write_text(json.dumps({"url": url, "pid": os.getpid()}))
            draft.replace(given.ready_file)
        print(url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
