"""The predictor's arithmetic: numbers next to zero, which take longer on some machines, are none."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from outlearn.tasks import FineTuning, Floats
from outlearn_training.fast.trainer import make_trainer
from outlearn_training.losses import xent
from outlearn_training.model import LabelModel
from outlearn_training.testbed import TESTBEDS

ALL_THREADS = """
import os
os.environ["OMP_NUM_THREADS"] = "2"
import pathlib
import torch
from outlearn_training.predictor import Predictor
def left():
    tiny = torch.empty(2048, 256)
    tiny.view(torch.int32).fill_(1000)
    return sum(int((one.view(torch.int32) != 0).sum()) for one in (tiny * 0.5, tiny @ torch.eye(256)))
Predictor(pathlib.Path("home"), None)
print(torch.get_num_threads(), left())
torch.set_flush_denormal(False)
print(left() > 0)
"""


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch computes in this thread alone, which flushes nothing in the end."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def test_no_thread_of_the_predictor_computes_with_denormal_numbers(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ALL_THREADS]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert said.split() == ["2", "0", "True"]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("task", TESTBEDS)
@pytest.mark.parametrize("lora_rank", [0, 8])
def test_predictions_of_honest_students_are_the_same_to_the_bit(task: str, lora_rank: int) -> None:
    bed, tuning = TESTBEDS[task], FineTuning(lora_rank=lora_rank, epochs=1, lr=1e-3)
    trainer = make_trainer(LabelModel(str(bed.checkpoints / "student"), tuning), 256)
    examples = bed.generate(0).pool[:128]
    prompts, labels = [bed.template.format(text=one.text) for one in examples], [one.label for one in examples]
    targets, weights = np.array(labels, dtype=np.float64), np.ones(len(labels))
    student = trainer.fit(prompts, targets, weights, loss=xent, tuning=tuning, words=bed.label_words, seed=0)
    found = list[list[Floats]]()
    for flush in (False, True):
        assert torch.set_flush_denormal(flush)
        found.append([trainer.predict(one, prompts, bed.label_words) for one in (None, student)])
    assert np.array_equal(found[0], found[1])
