"""Attention over a packed batch, group by group."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from outlearn_training.fast.layout import Packed


def attend(q: Tensor, k: Tensor, v: Tensor, packed: Packed) -> Tensor:
    """Each token attends to those before it in its row (in a tree: in its branch and the prefix).

    `q` (N, H, d), `k` and `v` (N, G, d) with G heads shared by H. Returns (N, H * d).
    """
    sizes = [group.b * group.t for group in packed.groups]
    parts = zip(packed.groups, q.split(sizes), k.split(sizes), v.split(sizes), strict=True)
    return torch.cat(
        [_attend(qs, ks, vs, group.b, group.mask, causal=group.mask is None) for group, qs, ks, vs in parts]
    )


def attend_from_labels(q: Tensor, k: Tensor, v: Tensor, packed: Packed) -> Tensor:
    """Only the label slots attend. `q` (S, H, d), `k` and `v` (N, G, d). Returns (S, H * d)."""
    sizes = [group.b * group.t for group in packed.groups]
    slots = [group.labels.numel() for group in packed.groups]
    parts = zip(packed.groups, q.split(slots), k.split(sizes), v.split(sizes), strict=True)
    return torch.cat([_attend(qs, ks, vs, group.b, group.label_mask, causal=False) for group, qs, ks, vs in parts])


def _attend(q: Tensor, k: Tensor, v: Tensor, b: int, mask: Tensor | None, *, causal: bool) -> Tensor:
    q, k, v = (one.unflatten(0, (b, -1)).transpose(1, 2) for one in (q, k, v))
    result = scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
    )
    return result.transpose(1, 2).flatten(0, 1).flatten(1)
