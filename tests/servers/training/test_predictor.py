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
from outlearn_training.predictor import Predictor
from outlearn_training.settings import TrainingSettings
from outlearn_training.testbed import TESTBEDS
from outlearn_training.weights import WeightStore

WORKER = """
import os
os.environ["OMP_NUM_THREADS"] = "2"
from outlearn_training.workers import worker
def left():
    import torch
    tiny = torch.empty(2048, 256)
    tiny.view(torch.int32).fill_(1000)
    return sum(int((one.view(torch.int32) != 0).sum()) for one in (tiny * 0.5, tiny @ torch.eye(256)))
class Worker:
    def __init__(self, *_):
        pass
    def work(self):
        import torch
        print(torch.get_num_threads(), left())
        torch.set_flush_denormal(False)
        print(left() > 0)
worker.Worker = Worker
worker.main()
"""


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch computes in this thread alone, which flushes nothing in the end."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def test_no_thread_of_a_worker_computes_with_denormal_numbers(tmp_path: Path) -> None:
    command, settings = [sys.executable, "-c", WORKER, "0", "1"], TrainingSettings(home=tmp_path).model_dump_json()
    said = subprocess.run(command, input=settings, stdout=subprocess.PIPE, text=True, check=True, cwd=tmp_path).stdout
    assert said.split() == ["2", "0", "True"]


def test_a_predictor_changes_nothing_for_who_else_computes_in_its_process(tmp_path: Path) -> None:
    Predictor(tmp_path, WeightStore(TrainingSettings(home=tmp_path)))
    assert np.nextafter(0.0, 1.0) * 1.0 > 0


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
