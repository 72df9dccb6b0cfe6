"""Students: what a method returns, and how its weights cross the trust boundary, as safetensors and nothing else."""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from outlearn.confined import read_confined
from outlearn.errors import InvalidInputError, NotFoundError
from outlearn.printable import printable
from outlearn_training.model import LabelModel, Weights

MAX_STUDENTS = 8
WEIGHTS_FILE = "student-{index}.safetensors"
HEADER_BYTES = 2**20
"""Of a file, at most, for names and shapes: a million tensors of no size would take 20 s and 2 GB."""


def max_student_bytes(model: LabelModel) -> int:
    """Largest file that one student of this model may need."""
    return model.size_bytes() + HEADER_BYTES


def save_students(folder: Path, students: list[Weights]) -> None:
    """Write each student's weights to `folder`, in which nothing can be renamed."""
    for index, weights in enumerate(students):
        copies = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()}
        (folder / WEIGHTS_FILE.format(index=index)).write_bytes(save(copies))


def read_students(folder: Path, max_bytes: int) -> list[bytes]:
    """The safetensors files that a method left in `folder`.

    Raises:
        NotFoundError: it left none.
        InvalidInputError, PermissionDeniedError: it left too many, or one that is too large or not a plain file.
    """
    found: list[bytes] = []
    for index in range(MAX_STUDENTS + 1):
        try:
            found.append(read_confined(folder, WEIGHTS_FILE.format(index=index), max_bytes=max_bytes))
        except NotFoundError:
            break
    if not found:
        raise NotFoundError("the method returned no student; return what `lab.fit` returned")
    if len(found) > MAX_STUDENTS:
        raise InvalidInputError(f"a method may return at most {MAX_STUDENTS} students")
    return found


def parse_student(data: bytes) -> tuple[Weights, str]:
    """A student's weights and the SHA-256 of its file. Raises InvalidInputError where torch cannot read it."""
    if int.from_bytes(data[:8], "little") > HEADER_BYTES:
        raise InvalidInputError(
            f"the student's weights are not a safetensors file of torch's: a header of more than {HEADER_BYTES:,} bytes"
        )
    try:
        return load(data), hashlib.sha256(data).hexdigest()
    except (SafetensorError, KeyError, RuntimeError, TypeError) as error:  # a type or shape that only safetensors knows
        why = printable(str(error).partition("\n")[0])[:300]  # it may quote a name of any length
        raise InvalidInputError(f"the student's weights are not a safetensors file of torch's: {why}") from error
