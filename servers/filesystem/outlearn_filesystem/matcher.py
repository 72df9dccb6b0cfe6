"""Runs a regular expression over texts from stdin. A program of its own, so that it can be stopped at any point.

stdin: a line of JSON `{"pattern", "limit", "sizes"}`, then the files' bytes, one after the other.
stdout: lines of JSON: `{"error"}`, or `{"skipped"}` for each file that is no text, and `{"file", "line", "text"}` for
each line that matches.
"""

import json
import os
import re
import resource
import sys
from contextlib import suppress

MEMORY_BYTES = 1 << 30
NICE = 10  # whoever searches is to wait, not everybody else
SHOWN_BEFORE, SHOWN_AFTER = 100, 300


def main() -> None:
    os.nice(NICE)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123  (pathlib takes long to load)
        file.write("1000")  # where memory runs out, the kernel ends a search, and no server
    cpu_seconds = int(sys.argv[1])
    for limit, value in ((resource.RLIMIT_CPU, cpu_seconds), (resource.RLIMIT_AS, MEMORY_BYTES)):
        with suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))
    request = json.loads(sys.stdin.buffer.readline())
    try:
        pattern = re.compile(request["pattern"])
    except (re.error, RecursionError, OverflowError) as error:
        answer({"error": str(error)})
        return
    left = request["limit"]
    for number, size in enumerate(request["sizes"]):
        left -= search(pattern, number, sys.stdin.buffer.read(size), left)
        if left <= 0:
            return


def search(pattern: "re.Pattern[str]", number: int, data: bytes, limit: int) -> int:
    """Answer with the lines of one file that match, `limit` at most. Returns how many."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        answer({"skipped": number})
        return 0
    found = 0
    for index, line in enumerate(text.split("\n"), start=1):
        if found < limit and (match := pattern.search(line)):
            shown = line[max(0, match.start() - SHOWN_BEFORE) : match.start() + SHOWN_AFTER]
            answer({"file": number, "line": index, "text": shown})
            found += 1
    return found


def answer(value: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


if __name__ == "__main__":
    main()
