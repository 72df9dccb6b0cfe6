"""The trainer beside others at the same job: fine-tune a causal LM to answer with one of two tokens, then ask it.

    python benchmarks/trainer.py [--quick] [--rounds 3]

All run in one process, one after the other in every round, on one thread, on the same prompts; a ratio is a median over
rounds (two for the larger models). Peak memory is that of a process of its own. Writes
`benchmarks/results/trainer.json`; `--quick` only measures the smallest model, and writes nothing.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import transformers
from peers import MAKERS, Asked, HuggingFace, Ours, Peer
from rich.console import Console
from rich.table import Table
from shapes import SHAPES, Shape, parameters, write_model, write_prompts

RESULTS = Path(__file__).parent / "results" / "trainer.json"
SEEDS = 5
RANK = 32
Seconds = dict[str, list[float]]
console = Console()


@dataclass(frozen=True)
class Bench:
    """One model, and who is measured on it."""

    shape: Shape
    rank: int
    peers: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{'lora' if self.rank else 'full'}_{self.shape.name}"


EVERYBODY = ("ours", "hf", "tuned_hf", "trl", "plain_loop")
BENCHES = (
    Bench(SHAPES["1m"], 0, EVERYBODY),
    Bench(SHAPES["25m"], RANK, ("ours", "hf", "tuned_hf")),
    Bench(SHAPES["05b"], RANK, ("ours", "hf")),
)


@dataclass(frozen=True)
class Measured:
    """Seconds a round by peer, real tokens of both jobs, and FLOP/s of a matrix product beside each training."""

    training: Seconds
    predicting: Seconds
    tokens: dict[str, int]
    floors: list[float]
    padding: float


def measure(bench: Bench, folder: Path, rounds: int) -> Measured:
    """All peers in turn, in every round."""
    shape = bench.shape
    prompts, asked = write_prompts(shape, shape.batch * shape.steps), write_prompts(shape, shape.predicted, seed=1)
    labels = [index % 2 for index in range(len(prompts))]
    peers = {name: MAKERS[name](folder, shape.batch, bench.rank) for name in bench.peers}
    training, predicting, floors = defaultdict(list), defaultdict(list), []
    for turn in range(rounds + 1):  # the first one only warms up
        for name, peer in peers.items():
            console.log(f"{bench.name}, round {turn} of {rounds}: {name}")
            seconds = peer.predict(asked) if isinstance(peer, Asked) else None
            if turn == 0:
                _check(peers["ours"], peer)
            if turn and name == "ours":
                floors.append(gemm_floor())
            trained = peer.train(prompts, labels, shape.steps if turn else 1, seed=turn)
            if turn:
                training[name].append(trained)
            if turn and seconds is not None:
                predicting[name].append(seconds)
    tokens = {"training": sum(map(_length, prompts)), "predicting": sum(map(_length, asked))}
    return Measured(training, predicting, tokens, floors, _padding(prompts, shape.batch))


def sweep(shape: Shape, folder: Path) -> dict[str, float]:
    """Seconds for five seeds, training and predicting: ours on one loaded model, Hugging Face's as five runs."""
    prompts, asked = write_prompts(shape, shape.batch * shape.steps), write_prompts(shape, shape.predicted, seed=1)
    labels = [index % 2 for index in range(len(prompts))]

    def run(make: Callable[[], Asked], anew: bool) -> float:
        start = time.perf_counter()
        peer = make()
        for seed in range(SEEDS):
            peer = make() if anew and seed else peer
            peer.train(prompts, labels, shape.steps, seed)
            peer.predict(asked)
        return time.perf_counter() - start

    console.log(f"five seeds of {shape.name}")
    return {
        "ours": run(lambda: Ours(folder, shape.batch, 0), anew=False),
        "hf": run(lambda: HuggingFace(folder, shape.batch, 0), anew=True),
    }


def peak_memory(who: str, folder: Path) -> float:
    """GiB of a process that takes one LoRA step on the largest shape, with gradient checkpointing."""
    console.log(f"peak memory: {who}")
    command = [sys.executable, __file__, "--memory-of", who, "--folder", str(folder)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def one_step(who: str, folder: Path) -> None:
    """What `peak_memory` measures. Prints GiB."""
    shape = replace(SHAPES["05b"], steps=1)
    peer: Peer = (Ours if who == "ours" else HuggingFace)(folder, shape.batch, RANK, checkpointing=True)
    prompts = write_prompts(shape, shape.batch)
    peer.train(prompts, [index % 2 for index in range(len(prompts))], 1)
    status = Path("/proc/self/status").read_text(encoding="ascii")  # getrusage would count the parent's memory, too
    kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(kib / 2**20)


def gemm_floor() -> float:
    """FLOP/s of a large fp32 matrix product: what no training can exceed."""
    a = torch.randn(1024, 1024)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / statistics.median(times)


def utilisation(bench: Bench, folder: Path, measured: Measured) -> float:
    """Model FLOPs utilisation: 6 FLOP (LoRA: 4) a real token and parameter of the blocks, over the floor's."""
    blocks, _ = parameters(folder)
    flops = (4 if bench.rank else 6) * blocks * measured.tokens["training"]
    pairs = zip(measured.training["ours"], measured.floors, strict=True)
    return statistics.median(flops / seconds / floor for seconds, floor in pairs)


def _check(ours: Peer, peer: Peer) -> None:
    """Before any training all peers must answer alike: they do the same job."""
    theirs, answers = getattr(peer, "answers", None), getattr(ours, "answers", None)
    if theirs is not None and not np.allclose(theirs, answers, atol=1e-4):
        raise SystemExit(f"{type(peer).__name__} answers differently: {theirs[:3]} and {answers[:3]}")


def _length(prompt: str) -> int:
    return len(prompt.split())


def _padding(prompts: Sequence[str], batch: int) -> float:
    lengths = [_length(prompt) for prompt in prompts]
    batches = [lengths[i : i + batch] for i in range(0, len(lengths), batch)]
    return sum(max(one) * len(one) for one in batches) / sum(lengths)


def _ratio(seconds: Seconds, peer: str) -> float:
    """How many times as fast we are, the median over rounds."""
    return round(statistics.median(b / a for a, b in zip(seconds["ours"], seconds[peer], strict=True)), 2)


def run(rounds: int, quick: bool) -> dict[str, object]:
    """Measure everything; returns what is written."""
    ratios: dict[str, float] = {}
    used: dict[str, float] = {}
    speeds: dict[str, dict[str, int]] = {}
    padding: dict[str, float] = {}
    floors: list[float] = []
    for bench in BENCHES[:1] if quick else BENCHES:
        with tempfile.TemporaryDirectory() as folder:
            path = write_model(bench.shape, Path(folder))
            measured = measure(bench, path, rounds if bench.shape.name == "1m" else min(rounds, 2))
            for peer in bench.peers[1:]:
                ratios[f"train_{bench.name}_vs_{peer}"] = _ratio(measured.training, peer)
                if peer in measured.predicting:
                    ratios[f"predict_{bench.shape.name}_vs_{peer}"] = _ratio(measured.predicting, peer)
            used[f"train_{bench.name}"] = round(utilisation(bench, path, measured), 3)
            speeds[f"train_{bench.name}"] = _speeds(measured.tokens["training"], measured.training)
            speeds[f"predict_{bench.name}"] = _speeds(measured.tokens["predicting"], measured.predicting)
            padding[bench.name] = round(measured.padding, 2)
            floors += measured.floors
            if bench.shape.name == "1m":
                whole = sweep(bench.shape, path)
                ratios["sweep_1m_vs_hf"] = round(whole["hf"] / whole["ours"], 2)
            if bench.shape.name == "05b":
                memory = {who: peak_memory(who, path) for who in ("ours", "hf")}
                ratios["peak_memory_lora_05b_vs_hf"] = round(memory["hf"] / memory["ours"], 2)
                speeds["peak_memory_lora_05b_mib"] = {who: round(1024 * gib) for who, gib in memory.items()}
    return {
        "ratios": ratios,
        "mfu": used,
        "per_second": speeds,
        "padded_over_real_tokens": padding,
        "machine": _machine(statistics.median(floors)),
        "rounds": rounds,
    }


def _speeds(tokens: int, seconds: Seconds) -> dict[str, int]:
    """Real tokens a second by peer, the median over rounds."""
    return {peer: round(tokens / statistics.median(times)) for peer, times in seconds.items()}


def _machine(floor: float) -> dict[str, object]:
    return {
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gemm_gflops": round(floor / 1e9, 1),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def show(results: dict[str, object]) -> None:
    """Print the ratios."""
    table = Table("measure", "times as good as the peer")
    ratios: dict[str, float] = results["ratios"]  # type: ignore[assignment]
    for name, ratio in ratios.items():
        table.add_row(name, f"{ratio:.2f}")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only the smallest model; writes nothing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-of", choices=("ours", "hf"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if options.memory_of:
        one_step(options.memory_of, options.folder)
        return
    results = run(1 if options.quick else options.rounds, options.quick)
    show(results)
    if not options.quick:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
