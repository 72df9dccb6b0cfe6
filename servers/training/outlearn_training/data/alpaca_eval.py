"""AlpacaEval's preferences by GPT-4: which of two responses is better?

In the published file one model wrote every `output_1`, so `outlearn prepare` must mix positions, as it always does.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from outlearn.sources import BadRow, Kind, Row, SourceRequest
from outlearn_training.data.files import records
from outlearn_training.data.local import to_row

COLUMNS = {"prompt": "instruction", "a": "output_1", "b": "output_2", "label": "preference"}
CLASSES = {"1": 0, "2": 1}


@dataclass(frozen=True)
class AlpacaEval:
    """One comparison for each row; the group is the instruction."""

    kind: Kind | None = "chat"
    licence: str = "CC BY-NC 4.0 (tatsu-lab/alpaca_eval)"
    options: tuple[str, ...] = ()

    def rows(self, request: SourceRequest) -> Iterator[Row]:
        """All comparisons; a preference that is neither 1 nor 2 (a tie) is a bad row."""
        for line, record in records(request.one_file(), request.on_share):
            yield record if isinstance(record, BadRow) else to_row(line, record, COLUMNS, CLASSES)


SOURCE = AlpacaEval()
