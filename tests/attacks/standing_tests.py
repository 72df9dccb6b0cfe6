"""Attacks that stand among the tests of what they attack: run by pytest, an outcome a test."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from homes import TESTS
from measure import Figure
from registry import outcome

FILES = (
    "servers/training/test_method_attacks.py",
    "servers/training/test_sandbox.py",
    "servers/training/test_execution_watch.py",
    "servers/filesystem/test_filesystem_paths.py",
    "servers/evaluation/test_evaluation_server.py",
)


def outcomes(folder: Path) -> Iterator[Figure]:
    """Every test of these files that was not skipped."""
    report = folder / "report.xml"
    files = [str(TESTS / file) for file in FILES]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *files]
    subprocess.run(command, cwd=TESTS.parent, stdout=subprocess.DEVNULL, check=False)
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        kinds = {child.tag for child in case}
        if "skipped" not in kinds:
            yield outcome(case.attrib["name"].removeprefix("test_"), not kinds & {"failure", "error"})
