from pathlib import Path

import pytest

pytest.importorskip("torch")

from outlearn.errors import InvalidInputError
from outlearn_training.testbed.table import TABLE, TableRow, as_markdown, write_table


def row(task: str, accuracy: float) -> TableRow:
    return TableRow(task=task, method="weak", seeds=5, acc_mean=accuracy, acc_se=0.0, pgr=0.0, pgr_se=0.0)


def test_a_task_that_is_run_again_replaces_its_rows_and_keeps_the_others(tmp_path: Path) -> None:
    write_table(tmp_path, [row("math", 0.6), row("code", 0.7)])
    table = write_table(tmp_path, [row("chat", 0.8), row("code", 0.9)])
    assert table == [row("math", 0.6), row("chat", 0.8), row("code", 0.9)]
    assert TABLE.validate_json((tmp_path / "testbed.json").read_bytes()) == table
    assert (tmp_path / "testbed.md").read_text() == as_markdown(table)


def test_a_file_that_is_no_results_table_is_named_and_stays(tmp_path: Path) -> None:
    (tmp_path / "testbed.json").write_text("[1]")
    with pytest.raises(InvalidInputError, match="is no results table"):
        write_table(tmp_path, [row("math", 0.6)])
    assert (tmp_path / "testbed.json").read_text() == "[1]"
