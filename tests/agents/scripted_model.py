"""A model that plays a researcher by reading its conversation: what it does next follows from what it has called."""

import json
import re
import secrets
from typing import Any

Block = dict[str, Any]
Body = dict[str, Any]

METHOD = '''"""Train on the pool items that the teacher is surest of."""


def method(lab, seed):
    weak = lab.weak_labels()
    sure = abs(weak - 0.5) >= {margin}
    return lab.fit(weak, weights=sure + 0.1, epochs={epochs})
'''
FINISHED = ("done", "failed", "cancelled")


def next_answer(body: Body) -> tuple[list[Block], str]:
    """Content and stop reason of the next answer."""
    tools = {_plain(tool["name"]): tool["name"] for tool in body.get("tools") or ()}
    history = _History(body["messages"])
    calls = _finish(history) if history.must_finish else _work(history)
    calls = [(name, arguments) for name, arguments in calls if name in tools]
    if not calls:
        return [{"type": "text", "text": "I have written down what I know."}], "end_turn"
    words = {"type": "text", "text": f"Next: {', '.join(name for name, _ in calls)}."}
    blocks = [
        {"type": "tool_use", "id": f"toolu_{secrets.token_hex(12)}", "name": tools[name], "input": arguments}
        for name, arguments in calls
    ]
    return [words, *blocks], "tool_use"


Call = tuple[str, dict[str, Any]]
_SCORE = re.compile(r"(?P<run>run-\w+) .*?: (?P<score>PGR \S+ ± \S+),")


class _History:
    """The calls of a conversation, their answers, and whether its last message asks to finish."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.calls: list[Block] = []
        self.answers: dict[str, tuple[str, bool]] = {}
        text = ""
        for message in messages:
            blocks = message["content"] if isinstance(message["content"], list) else []
            text = ""
            for block in blocks:
                if block["type"] == "tool_use":
                    self.calls.append(block | {"name": _plain(block["name"])})
                elif block["type"] == "tool_result":
                    self.answers[block["tool_use_id"]] = (str(block.get("content")), bool(block.get("is_error")))
                elif block["type"] == "text":
                    text += block["text"]
        self.must_finish = "nearly over" in text

    def count(self, name: str) -> int:
        return sum(call["name"] == name for call in self.calls)

    def last(self, *names: str) -> dict[str, Any] | None:
        """The last answer of any of these tools, unless it was an error."""
        for call in reversed(self.calls):
            if call["name"] in names:
                text, is_error = self.answers.get(call["id"], ("", True))
                return None if is_error else _parse(text)
        return None

    def evaluated(self) -> list[str]:
        """Runs that got a score."""
        good = [call for call in self.calls if call["name"] == "evaluation__evaluate"]
        return [call["input"]["run_id"] for call in good if not self.answers.get(call["id"], ("", True))[1]]


def _work(history: _History) -> list[Call]:
    """Look around; then, again and again: write a method, run it, wait, evaluate, post."""
    if not history.calls:
        return [
            ("training__describe_task", {}),
            ("training__list_methods", {}),
            ("forum__list_threads", {}),
            ("filesystem__find_files", {"glob": "*.md"}),
        ]
    last = history.calls[-1]["name"]
    run = history.last("training__get_run", "training__submit_run")
    round_ = history.count("training__submit_run")
    if last in ("training__submit_run", "training__get_run") and run and run.get("status") not in FINISHED:
        return [("training__get_run", {"run_id": run["run_id"], "wait_seconds": 5})]
    if last == "training__get_run" and run and run["status"] == "done" and run["kind"] == "full":
        return [("evaluation__evaluate", {"run_id": run["run_id"]})]
    if last == "evaluation__evaluate" or (last == "training__get_run" and run):
        return [("forum__post_finding", _finding(history, round_))]
    if last == "forum__post_finding":
        return [("filesystem__write_file", {"path": "notebook.md", "text": f"{round_} runs so far.\n"})]
    if last == "filesystem__write_file" and history.calls[-1]["input"].get("path", "").endswith(".py"):
        kind = "full" if round_ % 2 else "pilot"
        return [("training__submit_run", {"file": history.calls[-1]["input"]["path"], "kind": kind})]
    text = METHOD.format(margin=round(0.05 * (round_ % 8), 2), epochs=1 + round_ % 3)
    return [("filesystem__write_file", {"path": f"methods/m{round_ % 8}.py", "text": text})]


def _finding(history: _History, round_: int) -> dict[str, Any]:
    call = history.calls[-1]
    score = _SCORE.search(history.answers.get(call["id"], ("", True))[0])
    if call["name"] == "evaluation__evaluate" and score:
        text = f"Weights by confidence: {score['score']}."
        return {"title": f"Confidence weights, run {round_}", "text": text, "kind": "result", "run_id": score["run"]}
    return {"title": f"Note {round_}", "text": "A pilot; no score.", "kind": "insight"}


def _finish(history: _History) -> list[Call]:
    best = history.evaluated()[-2:]
    return [
        ("filesystem__write_file", {"path": "notebook.md", "text": "Finished; see the forum.\n"}),
        ("filesystem__save_snapshot", {"message": "the end"}),
        *([("evaluation__nominate", {"run_ids": best})] if best else []),
    ]


def _plain(name: str) -> str:
    """A tool's name as our researcher has it; Claude Code puts `mcp__` before it."""
    return name.removeprefix("mcp__")


def _parse(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
