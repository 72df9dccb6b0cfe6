"""Where the fast path keeps a model's parameters: fused for the forward pass, flat for the optimizer.

The transformers model goes on seeing its own parameters: they become views into ours, so that each sees what the other
writes, and nothing is stored twice.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from outlearn_training.trainer import BETAS, WEIGHT_DECAY


class FlatParameters:
    """The trained parameters and their gradients, in one buffer with weight decay (matrices) and one without."""

    def __init__(self, trained: Iterable[Parameter]) -> None:
        sizes, like = {True: 0, False: 0}, torch.empty(0)
        for part in trained:
            sizes[part.ndim >= 2] += part.numel()
            like = part.detach()
        self._buffers = {decays: Parameter(like.new_empty(size)) for decays, size in sizes.items()}
        for buffer in self._buffers.values():
            buffer.grad = torch.zeros_like(buffer)
        self._used = {True: 0, False: 0}

    def fuse(self, *parts: Parameter) -> Tensor:
        """One tensor of parameters that lie one below the other; a leaf with a gradient where they are trained."""
        shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
        if parts[0].requires_grad:
            fused = self._take(shape, decays=parts[0].ndim >= 2)
        elif len(parts) == 1:
            return parts[0].detach()
        else:
            fused = parts[0].new_empty(shape)
        for part, view in zip(parts, fused.detach().split([len(part) for part in parts]), strict=True):
            view.copy_(part.detach())
            part.data = view
        return fused

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        """AdamW over the two buffers."""
        groups = [
            {"params": [buffer], "weight_decay": WEIGHT_DECAY if decays else 0.0}
            for decays, buffer in self._buffers.items()
            if len(buffer)
        ]
        return torch.optim.AdamW(groups, lr=lr, betas=BETAS, fused=True)

    def tensors(self) -> list[Parameter]:
        """The buffers that are not empty."""
        return [buffer for buffer in self._buffers.values() if len(buffer)]

    def zero_grad(self) -> None:
        for buffer in self._buffers.values():
            buffer.grad.zero_()  # type: ignore[union-attr]

    def _take(self, shape: Sequence[int], *, decays: bool) -> Tensor:
        buffer, start = self._buffers[decays], self._used[decays]
        end = self._used[decays] = start + torch.Size(shape).numel()
        leaf = buffer.detach()[start:end].view(shape).requires_grad_()
        leaf.grad = buffer.grad[start:end].view(shape)  # type: ignore[index]
        return leaf
