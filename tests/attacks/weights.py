"""Files that pass for a student's weights: pickles, bombs, lies about sizes. The trusted side reads them."""

import ast
import json
import os
import pickle
import struct
import time
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

from homes import TESTS, refused
from registry import Family

attacks = Family()
LIMIT, SECONDS = 2**21, 5.0


def file(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with this header, which may lie about its length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def is_refused(folder: Path, *files: bytes) -> bool:
    """Whether the trusted side turns down what a method left, with a reason, in time."""
    import torch

    from outlearn_training.model import check_weights
    from outlearn_training.students import parse_student, read_students

    for index, data in enumerate(files):
        (folder / f"student-{index}.safetensors").write_bytes(data)

    def read() -> None:
        for data in read_students(folder, LIMIT):
            check_weights(parse_student(data)[0], {"a": torch.zeros(4)})

    start = time.monotonic()
    return refused(read) and time.monotonic() - start < SECONDS


@attacks
def a_pickle(folder: Path) -> bool:
    return is_refused(folder, pickle.dumps(Bomb(folder / "ran"))) and not (folder / "ran").exists()


@attacks
def a_checkpoint_of_torch(folder: Path) -> bool:
    import torch

    data = BytesIO()
    torch.save({"a": Bomb(folder / "ran")}, data)
    return is_refused(folder, data.getvalue()) and not (folder / "ran").exists()


@attacks
def a_zip_bomb(folder: Path) -> bool:
    data = BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", bytes(2**28))
    return is_refused(folder, data.getvalue())


@attacks
def no_file_at_all(folder: Path) -> bool:
    return is_refused(folder) and is_refused(folder, b"") and is_refused(folder, b"\0" * 8)


@attacks
def a_header_of_exabytes(folder: Path) -> bool:
    return all(is_refused(folder, file(b"{}", length=size)) for size in (2**63, 2**64 - 1, 2**40, 100_000_001))


@attacks
def a_hundred_gigabytes_declared(folder: Path) -> bool:
    size = 100 * 2**30
    return is_refused(folder, file({"a": tensor(0, size, [size // 4])}))


@attacks
def a_size_that_overflows(folder: Path) -> bool:
    shapes = [[2**62, 4], [2**32, 2**32], [0, 2**63 - 1], [2**64], [0, 2**63], [2**64 - 1, 0]]
    return all(is_refused(folder, file({"a": tensor(0, 0, shape)})) for shape in shapes)


@attacks
def overlapping_tensors(folder: Path) -> bool:
    return is_refused(folder, file({"a": tensor(0, 16, [4]), "b": tensor(0, 16, [4])}, bytes(16)))


@attacks
def offsets_that_lie(folder: Path) -> bool:
    pairs = [(16, 0), (0, 32), (4, 20), (-16, 0), (2**62, 2**62 + 16)]
    return all(is_refused(folder, file({"a": tensor(*pair, [4])}, bytes(16))) for pair in pairs)


@attacks
def a_header_without_end(folder: Path) -> bool:
    return is_refused(folder, file(b"[" * 2**20)) and is_refused(folder, file(b'{"a":' * 2**18))


@attacks
def thirty_thousand_tensors(folder: Path) -> bool:
    return is_refused(folder, file({f"{n:x}": tensor(0, 0, [0], "U8") for n in range(30_000)}))


@attacks
def one_name_twice(folder: Path) -> bool:
    one = json.dumps(tensor(0, 16, [4]))
    found = is_refused(folder, file(f'{{"a":{one},"a":{json.dumps(tensor(16, 32, [4]))}}}'.encode(), bytes(32)))
    return found


@attacks
def numbers_that_are_none(folder: Path) -> bool:
    values = [struct.pack("<4f", 0, 0, 0, value) for value in (float("nan"), float("inf"), float("-inf"))]
    return all(is_refused(folder, file({"a": tensor(0, 16, [4])}, data)) for data in values)


@attacks
def other_types_and_shapes(folder: Path) -> bool:
    odd = [
        tensor(0, 16, [2], "I64"), tensor(0, 4, [4], "BOOL"), tensor(0, 4, [4], "F8_E4M3"), tensor(0, 16, [2, 2]),
        tensor(0, 16, [4], "F33"), tensor(0, 0, [0]),
    ]  # fmt: skip
    return all(is_refused(folder, file({"a": one}, bytes(one["data_offsets"][1]))) for one in odd)


@attacks
def names_of_other_weights(folder: Path) -> bool:
    names = ["", "b", "a\0", "../a", "a" * 10_000, "\u202ea", "__metadata__"]
    return all(is_refused(folder, file({name: tensor(0, 16, [4])}, bytes(16))) for name in names)


@attacks
def too_many(folder: Path) -> bool:
    return is_refused(folder, *[file({"a": tensor(0, 16, [4])}, bytes(16))] * 9)


@attacks
def too_large(folder: Path) -> bool:
    return is_refused(folder, bytes(LIMIT + 1))


@attacks
def files_that_are_none(folder: Path) -> bool:
    """A symlink to the vault, a hard link, a pipe without a writer, a device, a folder."""
    (folder / "secret").write_bytes(file({"a": tensor(0, 16, [4])}, bytes(16)))
    made = {
        "symlink": lambda path: path.symlink_to(folder / "secret"),
        "hard link": lambda path: path.hardlink_to(folder / "secret"),
        "pipe": os.mkfifo,
        "folder": Path.mkdir,
        "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    }
    held = []
    for what, make in made.items():
        place = folder / what
        place.mkdir()
        make(place / "student-0.safetensors")
        held.append(is_refused(place))
    return all(held)


@attacks
def code_that_unpickles(_: Path) -> bool:
    """No module of ours loads a pickle: no import of pickle, no `torch.load`, no `allow_pickle=True`, no shelve."""
    found = []
    for path in [*TESTS.parent.glob("servers/*/outlearn_*/**/*.py"), *TESTS.parent.glob("shared/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ast.unparse(node) if isinstance(node, ast.Import | ast.ImportFrom | ast.Call) else ""
            words = ("import pickle", "import dill", "import shelve", "torch.load(", "allow_pickle=True", "joblib")
            found += [
                (path.name, text) for word in words if text.startswith(word) or (word[-1] == "e" and word in text)
            ]
    return not found
