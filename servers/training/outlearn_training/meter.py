"""How much work training did, and how well it used the machine."""

import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

PROBE = 1024
GPU_PROBE = 8192


@dataclass
class Meter:
    """Counts what a trainer does. Tokens are real ones, without padding."""

    parameters: int
    """Of the blocks: the embedding is looked up, and its product with the label position alone is little work."""
    flops_per_parameter: int
    """For a trained token: 6, or 4 where the weights' own gradients are not needed (LoRA)."""
    trained_tokens: int = 0
    training_seconds: float = 0.0

    def summary(self, device: torch.device) -> dict[str, float]:
        """Tokens per second of training, and MFU: the model's FLOPs over what this device's matrix products reach."""
        if not self.training_seconds:
            return {}
        speed = self.trained_tokens / self.training_seconds
        flops = self.flops_per_parameter * self.parameters * speed
        return {"tokens_per_second": round(speed, 1), "mfu": round(flops / matmul_flops(device), 4)}


def meter_for(model: Any) -> Meter:
    """A meter for a transformers model, bare or with adapters."""
    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    embedding = causal_lm.get_input_embeddings().weight
    head = causal_lm.get_output_embeddings().weight
    outside = {id(one): one.numel() for one in (embedding, head)}
    own = {id(p): p.numel() for name, p in model.named_parameters() if "lora_" not in name}
    return Meter(sum(own.values()) - sum(outside.values()), 4 if causal_lm is not model else 6)


def matmul_flops(device: torch.device) -> float:
    """FLOP/s of a large matrix product on this device: fp32 on a CPU, bf16 on a GPU. Measured once a process tree."""
    return _measured(device, torch.get_num_threads())


@cache
def _measured(device: torch.device, _threads: int) -> float:
    on_gpu = device.type == "cuda"
    size = GPU_PROBE if on_gpu else PROBE
    a = torch.ones(size, size, device=device, dtype=torch.bfloat16 if on_gpu else torch.float32)
    best = 0.0
    for _ in range(4):
        start = time.perf_counter()
        a @ a
        if on_gpu:
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def peak_gpu_bytes() -> int:
    """Most GPU memory that this process had in use at one time; 0 without a GPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0  # type: ignore[no-untyped-call]
