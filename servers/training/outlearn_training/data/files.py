"""Rows of local files, one at a time: JSONL and CSV, Parquet, a JSON array, and a `datasets` dataset on disk."""

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from outlearn.errors import InvalidInputError, NotFoundError
from outlearn.sources import BAD_SYNTAX, NOT_UTF8, BadRow, OnShare

MAX_ROW_BYTES = 16 * 2**20
NO_OBJECT = "each line must be one JSON object; an array is called .json"
BOM = b"\xef\xbb\xbf"
Record = dict[str, Any]
Numbered = tuple[int, Record | BadRow]
FORMATS = ".jsonl, .json, .csv, .tsv (also .gz), .parquet, or a folder that `datasets` saved"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files. Raises NotFoundError."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_dir():
            continue
        if path.is_dir():
            digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        try:
            with file.open("rb") as stream:
                while block := stream.read(2**20):
                    digest.update(block)
        except FileNotFoundError:
            raise NotFoundError(f"no file {str(file)!r}") from None
    return digest.hexdigest()


def records(path: Path, on_share: OnShare, split: str = "") -> Iterator[Numbered]:
    """The rows of a file with their line numbers, from 1; a row that cannot be read is a `BadRow`.

    Args:
        split: which split of a dataset on disk; needed where it has several.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: the file as a whole cannot be read, or is of an unknown format.
    """
    if not path.exists():
        raise NotFoundError(f"no file {str(path)!r}")
    formats = path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:]
    try:
        if path.is_dir():
            yield from _dataset(path, split, on_share)
        elif formats[:1] in ([".jsonl"], [".ndjson"]):
            yield from _lines(path, on_share)
        elif formats[:1] == [".json"]:
            yield from _array(path, on_share)
        elif formats[:1] in ([".csv"], [".tsv"]):
            yield from _table(path, "\t" if formats[0] == ".tsv" else ",", on_share)
        elif formats == [".parquet"]:
            yield from _parquet(path, on_share)
        else:
            raise InvalidInputError(f"{str(path)!r} is of an unknown format; give {FORMATS}")
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InvalidInputError(f"{str(path)!r} is no whole gzip file: {error}") from error


class _Progress(io.RawIOBase):
    """A file that reports how much of it was read: for a gzipped one, of its compressed bytes."""

    def __init__(self, path: Path, on_share: OnShare) -> None:
        self._file, self._size, self._on_share = path.open("rb"), max(1, path.stat().st_size), on_share

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self._file.readinto(buffer)
        self._on_share(self._file.tell() / self._size)
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def _open(path: Path, on_share: OnShare) -> BinaryIO:
    buffered = io.BufferedReader(_Progress(path, on_share), 2**18)
    return io.BufferedReader(gzip.GzipFile(fileobj=buffered)) if path.suffix == ".gz" else buffered


def _lines(path: Path, on_share: OnShare) -> Iterator[Numbered]:
    with _open(path, on_share) as file:
        number = 0
        while line := file.readline(MAX_ROW_BYTES):
            number += 1
            if not line.endswith(b"\n") and len(line) == MAX_ROW_BYTES:
                while (rest := file.readline(MAX_ROW_BYTES)) and not rest.endswith(b"\n"):
                    pass
                yield number, BadRow(number, BAD_SYNTAX, f"longer than {MAX_ROW_BYTES:,} bytes")
            elif line.strip():
                yield number, _parse(line.removeprefix(BOM) if number == 1 else line, number)


def _parse(line: bytes, number: int) -> Record | BadRow:
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return BadRow(number, NOT_UTF8, f"byte {error.start} of the line")
    except (ValueError, RecursionError):
        return BadRow(number, BAD_SYNTAX, NO_OBJECT)
    return record if isinstance(record, dict) else BadRow(number, BAD_SYNTAX, NO_OBJECT)


def _array(path: Path, on_share: OnShare) -> Iterator[Numbered]:
    """The objects of a JSON array, which is read whole; their places in it stand for line numbers."""
    with _open(path, on_share) as file:
        data = file.read()
    other = f"{str(path)!r} is no JSON array of objects (a file with one object a line is called .jsonl)"
    try:
        found = json.loads(data.decode("utf-8-sig")) if data.strip() else []
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{other}: {error}") from error
    if not isinstance(found, list):
        raise InvalidInputError(other)
    for number, record in enumerate(found, start=1):
        yield number, record if isinstance(record, dict) else BadRow(number, BAD_SYNTAX, "no object")


def _table(path: Path, delimiter: str, on_share: OnShare) -> Iterator[Numbered]:
    csv.field_size_limit(MAX_ROW_BYTES)
    with (
        _open(path, on_share) as file,
        io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text,
    ):
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        columns: list[str] | None = None
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                yield reader.line_num, BadRow(reader.line_num, BAD_SYNTAX, f"no CSV: {error}")
                continue
            if fields is None:
                return
            if columns is None:
                columns = fields
            elif fields:
                yield reader.line_num, _record(columns, fields, reader.line_num)


def _record(columns: list[str], fields: list[str], number: int) -> Record | BadRow:
    if len(fields) != len(columns):
        return BadRow(number, BAD_SYNTAX, f"{len(fields)} fields for {len(columns)} columns")
    try:
        "".join(fields).encode()
    except UnicodeEncodeError:
        return BadRow(number, NOT_UTF8)
    return dict(zip(columns, fields, strict=True))


def _parquet(path: Path, on_share: OnShare) -> Iterator[Numbered]:
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise InvalidInputError(f"reading Parquet needs pyarrow ({error}): pip install 'outlearn[training]'") from error
    try:
        with ParquetFile(path) as file:
            number, total = 0, max(1, file.metadata.num_rows)
            for batch in file.iter_batches(batch_size=256):
                for index in range(batch.num_rows):
                    number += 1
                    yield number, _arrow_record(batch.slice(index, 1), number)
                on_share(number / total)
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidInputError(f"{str(path)!r} is no Parquet file that can be read: {error}") from error


def _arrow_record(row: Any, number: int) -> Record | BadRow:
    try:
        return dict(row.to_pylist()[0])
    except UnicodeDecodeError:
        return BadRow(number, NOT_UTF8)


def _dataset(path: Path, split: str, on_share: OnShare) -> Iterator[Numbered]:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise InvalidInputError(f"this needs datasets ({error}): pip install 'outlearn[training]'") from error
    try:
        found = datasets.load_from_disk(str(path))
    except (FileNotFoundError, ValueError) as error:
        raise InvalidInputError(f"{str(path)!r} is no dataset that `datasets` saved: {error}") from error
    yield from rows_of(found, split, on_share)


def rows_of(found: Any, split: str, on_share: OnShare) -> Iterator[Numbered]:
    """The rows of a `datasets` dataset, or of one split where there are several. Raises InvalidInputError."""
    if hasattr(found, "keys"):
        names = sorted(found)
        if not split and len(names) == 1:
            split = names[0]
        if split not in names:
            raise InvalidInputError(f"there is no split {split!r}; choose with --option split=NAME: {', '.join(names)}")
        found = found[split]
    total = max(1, len(found))
    for number, record in enumerate(found, start=1):
        yield number, record
        on_share(number / total)
