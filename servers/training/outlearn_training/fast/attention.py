"""Attention over a packed batch: group by group, or over prompts of any length in one call where a kernel can."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from outlearn_training.fast.layout import Packed

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # before torch 2.10
    varlen_attn: Any = None  # type: ignore[no-redef]

CAUSAL, EVERYTHING = (-1, 0), (-1, -1)


def takes_any_length(q_dtype: torch.dtype, device: torch.device) -> bool:
    """Whether there is a kernel for prompts that lie end to end: flash attention, on a GPU, in half precision."""
    return varlen_attn is not None and device.type == "cuda" and q_dtype in (torch.bfloat16, torch.float16)


def attend(q: Tensor, k: Tensor, v: Tensor, packed: Packed) -> Tensor:
    """Each token attends to those before it in its row (in a tree: in its branch and the prefix).

    `q` (N, H, d), `k` and `v` (N, G, d) with G heads shared by H. Returns (N, H * d).
    """
    if lie := packed.end_to_end:
        return _varlen(q, k, v, lie.bounds, lie.bounds, (lie.longest, lie.longest), CAUSAL)
    sizes = [group.b * group.t for group in packed.groups]
    parts = zip(packed.groups, q.split(sizes), k.split(sizes), v.split(sizes), strict=True)
    return torch.cat([_attend(qs, ks, vs, one.b, one.mask, causal=one.mask is None) for one, qs, ks, vs in parts])


def attend_from_labels(q: Tensor, k: Tensor, v: Tensor, packed: Packed) -> Tensor:
    """Only the label slots attend. `q` (S, H, d), `k` and `v` (N, G, d). Returns (S, H * d)."""
    if lie := packed.end_to_end:
        one_each = torch.arange(len(lie.bounds), dtype=torch.int32, device=q.device)
        return _varlen(q, k, v, one_each, lie.bounds, (1, lie.longest), EVERYTHING)
    sizes = [group.b * group.t for group in packed.groups]
    slots = [group.labels.numel() for group in packed.groups]
    parts = zip(packed.groups, q.split(slots), k.split(sizes), v.split(sizes), strict=True)
    return torch.cat([_attend(qs, ks, vs, one.b, one.label_mask, causal=False) for one, qs, ks, vs in parts])


def _attend(q: Tensor, k: Tensor, v: Tensor, b: int, mask: Tensor | None, *, causal: bool) -> Tensor:
    q, k, v = (one.unflatten(0, (b, -1)).transpose(1, 2) for one in (q, k, v))
    shared = q.shape[1] != k.shape[1]
    result = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=shared)
    return result.transpose(1, 2).flatten(0, 1).flatten(1)


def _varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_bounds: Tensor,
    k_bounds: Tensor,
    longest: tuple[int, int],
    window: tuple[int, int],
) -> Tensor:
    shared = q.shape[1] != k.shape[1]
    result: Any = varlen_attn(
        q, k.contiguous(), v.contiguous(), q_bounds, k_bounds, *longest, window_size=window, enable_gqa=shared
    )
    attended: Tensor = result.flatten(1)
    return attended
