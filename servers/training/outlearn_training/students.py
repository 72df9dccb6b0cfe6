"""Students: what a method returns, and how its weights cross the trust boundary, as safetensors and nothing else."""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from outlearn.errors import InvalidInputError, NotFoundError
from outlearn.files import write_atomic
from outlearn_training.model import Weights

MAX_STUDENTS = 8
WEIGHTS_FILE = "student-{index}.safetensors"


def save_students(folder: Path, students: list[Weights]) -> None:
    """Write each student's weights to `folder`."""
    for index, weights in enumerate(students):
        copies = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()}
        write_atomic(folder / WEIGHTS_FILE.format(index=index), save(copies))


def read_students(folder: Path, max_bytes: int) -> list[bytes]:
    """The safetensors files that a method left in `folder`.

    Raises:
        NotFoundError: it left none.
        InvalidInputError: it left too many, or one that is too large or not a plain file.
    """
    found: list[bytes] = []
    for index in range(MAX_STUDENTS + 1):
        path = folder / WEIGHTS_FILE.format(index=index)
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise InvalidInputError(f"{path.name!r} is not a plain file")
        if not path.exists():
            break
        if path.stat().st_size > max_bytes:
            raise InvalidInputError(f"{path.name!r} is larger than {max_bytes:,} bytes, the size of the whole model")
        found.append(path.read_bytes())
    if not found:
        raise NotFoundError("the method returned no student; return what `lab.fit` returned")
    if len(found) > MAX_STUDENTS:
        raise InvalidInputError(f"a method may return at most {MAX_STUDENTS} students")
    return found


def parse_student(data: bytes) -> tuple[Weights, str]:
    """A student's weights and the SHA-256 of its file. Raises InvalidInputError where it is not safetensors."""
    try:
        return load(data), hashlib.sha256(data).hexdigest()
    except SafetensorError as error:
        raise InvalidInputError(f"the student's weights are not a safetensors file: {error}") from error
