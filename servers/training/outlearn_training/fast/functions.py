"""Differentiable operations of a decoder block; their gradients take fewer passes over memory than autograd's."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# mypy: disable-error-code="override, no-untyped-call, no-any-return"


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = torch.linalg.vecdot(x, x).div_(x.shape[-1]).add_(eps).rsqrt_().unsqueeze(-1)
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        normed, scale, weight = ctx.saved_tensors
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = (grad * normed).flatten(0, -1 - weight.ndim).sum(0)
        d_normed = grad * weight
        along = torch.linalg.vecdot(d_normed, normed).div_(normed.shape[-1]).unsqueeze(-1)
        return d_normed.addcmul_(normed, along, value=-1).mul_(scale), d_weight, None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, -1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, -1)
        result = torch.empty_like(gate_up)
        d_gate, d_up = result.chunk(2, -1)
        sigmoid = torch.sigmoid(gate)
        silu = gate * sigmoid
        torch.mul(grad, silu, out=d_up)
        sigmoid.addcmul_(silu, 1 - sigmoid)
        torch.mul(grad, up, out=d_gate).mul_(sigmoid)
        return result


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _rotated(grad, cos, -sin), None, None


class _LowRank(torch.autograd.Function):
    """`x W'^T` for the merged W' = W + scale * B A, whose gradient never builds that of a full weight."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, merged: Tensor, bias: Tensor | None, a: Tensor, scale: float, *bs: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, merged, a, *bs)
        ctx.scale = scale
        return F.linear(x, merged, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, merged, a, *bs = ctx.saved_tensors
        parts = grad.split([b.shape[0] for b in bs], -1)
        low = (x @ a.T).chunk(len(bs), -1)
        d_bs = [ctx.scale * (part.T @ one) for part, one in zip(parts, low, strict=True)]
        d_a = ctx.scale * (torch.cat([part @ b for part, b in zip(parts, bs, strict=True)], -1).T @ x)
        d_x = grad @ merged if ctx.needs_input_grad[0] else None
        return d_x, None, None, d_a, None, *d_bs


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last axis, as Llama and Qwen compute it. `x` (..., D), `weight` (..., D)."""
    if x.dtype == torch.float32:
        return _RMSNorm.apply(x, weight, eps)
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def swiglu(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up` of both halves of the last axis. (N, 2 F) -> (N, F)."""
    return _SwiGLU.apply(gate_up)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding. `x` (N, heads, d); `cos`, `sin` (N, 1, d)."""
    return _Rotary.apply(x, cos, sin)


def low_rank_linear(
    x: Tensor, merged: Tensor, bias: Tensor | None, a: Tensor, bs: list[Tensor], scale: float
) -> Tensor:
    """A linear layer with LoRA adapters already merged into its weight; the gradient goes to the adapters.

    `x` (N, D), `merged` (sum of O, D), `a` (len(bs) * r, D), each of `bs` (O, r). Returns (N, sum of O).
    """
    return _LowRank.apply(x, merged, bias, a, scale, *bs)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    result = x * cos
    result[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    result[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return result
