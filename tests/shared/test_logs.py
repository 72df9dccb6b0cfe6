"""What looks like a secret is in no line of the log, and a log that takes no lines stops nobody."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlearn.identity import _new_token
from outlearn.logs import redact

SECRETS = {
    "token": "outlearn_" + "aB3-_" * 8 + "xyz",
    "key": "sk-ant-api03-abc_DEF-123",
    "password": "p%40ss:w0rd",
}
WRITES = """
import logging, sys
import structlog
from outlearn import ServerSettings
from outlearn.logs import configure_logging

secrets = {secrets!r}
text = "{{token}}, ({{key}}) and postgresql+psycopg://ada:{{password}}@db/x".format(**secrets)
configure_logging(ServerSettings(log_format={format!r}, log_level="debug"))
structlog.get_logger("outlearn").warning("said\\n" + text, url=text, inside={{"list": [text]}})
logging.getLogger("library").error("said %s", text)
try:
    raise ValueError(text)
except ValueError:
    structlog.get_logger("outlearn").exception("caught")
    logging.getLogger("library").exception("caught")
raise RuntimeError(text)
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_line_has_a_secret_be_it_of_ours_of_a_library_or_of_a_crash(form: str) -> None:
    code = WRITES.format(secrets=SECRETS, format=form)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert not [name for name, secret in SECRETS.items() if secret in done.stderr]
    assert done.stderr.count("sk-ant-***") >= 6
    assert done.stderr.count("ada:***@db/x") >= 6
    if form == "json":
        assert [json.loads(line)["level"] for line in done.stderr.splitlines()[:4]] == ["warning", *["error"] * 3]


@given(before=st.text(), after=st.text(" \n\",')}", min_size=1))
def test_a_token_is_blotted_out_in_any_text(before: str, after: str) -> None:
    token = _new_token()
    assert token not in redact(before + token + after)
    assert token not in redact(json.dumps(before + "\n" + token + after))


@pytest.mark.parametrize(
    "text",
    [
        "outlearn_training.testbed.pretrain: python -m outlearn_evaluation",
        "http://127.0.0.1:8003/mcp answers ada@example.org",
        "sqlite:////home/ada/forum.sqlite; see https://example.org:80/a@b",
        "pass a bearer token: `outlearn token NAME` makes one",
        '{"url": "http://127.0.0.1:80", "mail": "a@b"}',
        '{"url":"http://127.0.0.1:80","mail":"a@b"}',
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_the_log_stops_nobody() -> None:
    code = """
import logging, structlog
from outlearn import ServerSettings
from outlearn.logs import configure_logging

configure_logging(ServerSettings(log_format="json"))
structlog.get_logger("outlearn").error("said")
logging.getLogger("library").error("said")
print("went on", flush=True)
"""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=full, timeout=60, check=False
        )
    assert done.stdout == b"went on\n"
