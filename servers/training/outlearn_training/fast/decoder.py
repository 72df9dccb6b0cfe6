"""A decoder of Llama, Qwen2 or Qwen3 blocks that computes the label position's state, and nothing else that costs.

It works on the parameters of a transformers model, fused where one matrix product can do the work of several.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from outlearn_training.fast.attention import attend, attend_from_labels
from outlearn_training.fast.functions import low_rank_linear, rms_norm, rotary, swiglu
from outlearn_training.fast.layout import Packed
from outlearn_training.fast.parameters import FlatParameters

MODEL_TYPES = ("llama", "qwen2", "qwen3")
VARYING_ROPE = ("dynamic", "longrope")
"""Their angles depend on the longest prompt of a batch."""


def why_not(model: Any) -> str:
    """Why the fast path cannot run this transformers model; empty where it can."""
    config = model.config
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if config.model_type not in MODEL_TYPES:
        return f"its blocks are of type {config.model_type!r}, not {', '.join(MODEL_TYPES)}"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act!r}, not 'silu'"
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
        return "some of its layers attend to a sliding window"
    if rope in VARYING_ROPE:
        return f"its rotary embedding is of type {rope!r}"
    return "its attention drops out weights in training" if getattr(config, "attention_dropout", 0) else ""


class Linear:
    """Fused linear layers, with LoRA adapters or without."""

    def __init__(self, modules: Sequence[Any], flat: FlatParameters) -> None:
        bases = [getattr(module, "base_layer", module) for module in modules]
        self.weight = flat.fuse(*[base.weight for base in bases])
        self.bias = None if bases[0].bias is None else flat.fuse(*[base.bias for base in bases])
        self.adapted = hasattr(modules[0], "lora_A")
        self._merged: Tensor | None = None
        if self.adapted:
            (name,) = modules[0].active_adapters
            self._scale = float(modules[0].scaling[name])
            self._a = flat.fuse(*[module.lora_A[name].weight for module in modules])
            self._bs = [flat.fuse(module.lora_B[name].weight) for module in modules]

    @property
    def trained(self) -> bool:
        return self.adapted or self.weight.requires_grad

    def __call__(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, O)."""
        if not self.adapted:
            return F.linear(x, self.weight, self.bias)
        if self.weight.dtype == torch.float32:
            merged = self._merge(None) if self._merged is None else self._merged
            return low_rank_linear(x, merged, self.bias, self._a, self._bs, self._scale)
        low = F.linear(x.to(self._a.dtype), self._a).chunk(len(self._bs), -1)
        delta = torch.cat([F.linear(one, b) for one, b in zip(low, self._bs, strict=True)], -1)
        return F.linear(x, self.weight, self.bias) + (self._scale * delta).to(x.dtype)

    def merge(self) -> None:
        """Add the adapters to a copy of the weight, until the next call; in bf16, their small steps would be lost."""
        if self.adapted and self.weight.dtype == torch.float32:
            self._merged = self._merge(self._merged)

    def unmerge(self) -> None:
        """Give the copy's memory back; from now on, every call makes its own."""
        self._merged = None

    @torch.no_grad()
    def _merge(self, out: Tensor | None) -> Tensor:
        out = torch.empty_like(self.weight) if out is None else out
        rows = [len(b) for b in self._bs]
        parts = zip(self.weight.split(rows), self._bs, self._a.chunk(len(rows)), out.split(rows), strict=True)
        for weight, b, a, target in parts:
            torch.addmm(weight, b, a, alpha=self._scale, out=target)
        return out


class Block:
    """One decoder block over all tokens."""

    def __init__(self, layer: Any, flat: FlatParameters) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._eps = float(layer.input_layernorm.variance_epsilon)
        self._norm_in = flat.fuse(layer.input_layernorm.weight)
        self._norm_mid = flat.fuse(layer.post_attention_layernorm.weight)
        self._d = int(attention.head_dim)
        self._qk_norm: Tensor | None = None
        if hasattr(attention, "q_norm"):
            self._qk_norm = flat.fuse(attention.q_norm.weight, attention.k_norm.weight)
        self._heads = attention.config.num_attention_heads, attention.config.num_key_value_heads
        self._projections = self._project(attention, flat)
        self._out = Linear([attention.o_proj], flat)
        self._gate_up = Linear([mlp.gate_proj, mlp.up_proj], flat)
        self._down = Linear([mlp.down_proj], flat)

    def linears(self) -> list[Linear]:
        return [*self._projections, self._out, self._gate_up, self._down]

    @property
    def trained(self) -> bool:
        return any(linear.trained for linear in self.linears())

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, packed: Packed) -> Tensor:
        """(N, D) -> (N, D)."""
        qkv = self._projections[0](rms_norm(x, self._norm_in, self._eps)).unflatten(-1, (-1, self._d))
        heads, groups = self._heads
        qk, v = qkv.split([heads + groups, groups], 1)
        q, k = self._turned(qk, cos, sin, heads, groups).split([heads, groups], 1)
        return self._rest(x, attend(q, k, v, packed))

    def _project(self, attention: Any, flat: FlatParameters) -> list[Linear]:
        return [Linear([attention.q_proj, attention.k_proj, attention.v_proj], flat)]

    def _turned(self, x: Tensor, cos: Tensor, sin: Tensor, heads: int, groups: int) -> Tensor:
        """Queries and keys, (n, heads + groups, d), normed where the model does so and turned by their positions."""
        if self._qk_norm is not None:
            q_norm, k_norm = self._qk_norm.view(2, 1, -1)
            weight = torch.cat([q_norm.expand(heads, -1), k_norm.expand(groups, -1)])
            x = rms_norm(x, weight, self._eps)
        return rotary(x, cos, sin)

    def _rest(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self._out(attended)
        return x + self._down(swiglu(self._gate_up(rms_norm(x, self._norm_mid, self._eps))))


class LastBlock(Block):
    """The last block: keys and values of all tokens, all else at the label slots alone."""

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, packed: Packed) -> Tensor:
        """(N, D) -> (S, D)."""
        project_q, project_kv = self._projections
        heads, groups = self._heads
        slots = packed.slots
        normed = rms_norm(x, self._norm_in, self._eps)
        k, v = project_kv(normed).unflatten(-1, (-1, self._d)).split(groups, 1)
        q = project_q(normed[slots]).unflatten(-1, (-1, self._d))
        q = self._turned(q, cos[slots], sin[slots], heads, 0)
        k = self._turned(k, cos, sin, 0, groups)
        return self._rest(x[slots], attend_from_labels(q, k, v, packed))

    def _project(self, attention: Any, flat: FlatParameters) -> list[Linear]:
        return [Linear([attention.q_proj], flat), Linear([attention.k_proj, attention.v_proj], flat)]


class Decoder:
    """The whole model, up to the states and log-probabilities at the label positions."""

    def __init__(self, model: Any) -> None:
        """`model` is a transformers causal LM, bare or with LoRA adapters, on its final device."""
        self.flat = FlatParameters(p for p in model.parameters() if p.requires_grad)
        causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
        inner = causal_lm.model
        self.width: int = inner.config.hidden_size
        self.dtype: torch.dtype = inner.embed_tokens.weight.dtype
        self._rotary: Callable[..., tuple[Tensor, Tensor]] = inner.rotary_emb
        self._embedding = self.flat.fuse(inner.embed_tokens.weight)
        tied = causal_lm.lm_head.weight is inner.embed_tokens.weight
        self._head = self._embedding if tied else self.flat.fuse(causal_lm.lm_head.weight)
        *layers, last = inner.layers
        self._blocks = [*(Block(layer, self.flat) for layer in layers), LastBlock(last, self.flat)]
        self._norm, self._eps = self.flat.fuse(inner.norm.weight), float(inner.norm.variance_epsilon)
        trained = [index for index, block in enumerate(self._blocks) if block.trained]
        self.frozen = 0 if self._embedding.requires_grad or not trained else trained[0]

    def merge(self) -> None:
        """To be called whenever the adapters have changed."""
        for linear in self._linears():
            linear.merge()

    def unmerge(self) -> None:
        """Merge adapters anew in every block, where memory is short."""
        for linear in self._linears():
            linear.unmerge()

    def states(self, packed: Packed, *, start: Tensor | None = None, checkpointing: bool = False) -> Tensor:
        """Final hidden states at the label positions, (n, D), in the order of the prompts.

        `start` (N, D) is what the frozen blocks made of the tokens; None: compute it.
        """
        cos, sin = self._angles(packed)
        x = self.frozen_states(packed) if start is None else start
        for block in self._blocks[self.frozen :]:
            run = partial(checkpoint, block, use_reentrant=False) if checkpointing else block
            x = run(x, cos, sin, packed)
        return rms_norm(x, self._norm, self._eps)[packed.picks]

    def frozen_states(self, packed: Packed) -> Tensor:
        """The embedded tokens after all blocks below the first that is trained: always the same. Returns (N, D)."""
        x = F.embedding(packed.ids, self._embedding)
        if self.frozen:
            cos, sin = self._angles(packed)
            with torch.no_grad():
                for block in self._blocks[: self.frozen]:
                    x = block(x, cos, sin, packed)
        return x

    def label_log_probs(self, states: Tensor, word_ids: list[int]) -> Tensor:
        """Log-probabilities of the words under the full-vocabulary softmax. (n, D) -> (n, 2), float32."""
        logits = F.linear(states, self._head).float()
        return logits[:, word_ids] - logits.logsumexp(-1, keepdim=True)

    def _angles(self, packed: Packed) -> tuple[Tensor, Tensor]:
        cos, sin = self._rotary(self._embedding, packed.positions[None])
        return cos[0].unsqueeze(1), sin[0].unsqueeze(1)

    def _linears(self) -> list[Linear]:
        return [linear for block in self._blocks for linear in block.linears()]
