"""Make a pretrained model ready for short fine-tuning, without changing what it knows."""

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

STIFFNESS = 4.0
GAIN = 4.0
LABEL_LOG_ODDS = 11.5
"""After a statement the two label words together have these log odds: a probability of 0.99999."""


@torch.no_grad()
def rescale(model: Qwen3ForCausalLM, stiffness: float = STIFFNESS, gain: float = GAIN) -> None:
    """Compute the same function with weights on which one AdamW learning rate acts differently.

    AdamW moves every weight by about the learning rate, however little its gradient says, so in a short run the noise
    in the body drowns the signal at the label words. Larger matrices in the body (by `stiffness` or its square) move
    relatively less; smaller embeddings under a larger final norm (by `gain`) let the label words move relatively more.
    Powers of four are exact in floating point, but for the epsilon inside the norms.
    """
    model.model.embed_tokens.weight.div_(gain)
    model.model.norm.weight.mul_(gain)
    inner = stiffness / gain**0.5
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight.div_(stiffness**2)
        for matrix in (attention.q_proj, attention.k_proj, mlp.gate_proj):
            matrix.weight.mul_(stiffness**2)
        for matrix in (attention.v_proj, attention.o_proj, mlp.up_proj, mlp.down_proj):
            matrix.weight.mul_(inner)


@torch.no_grad()
def level_label_words(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, words: Sequence[str], statements: Sequence[str]
) -> None:
    """Give both label words one embedding: after a statement, one of the two follows, and it's open which.

    The embedding points to the mean hidden state after `statements`, so fine-tuning need not move probability from
    the rest of the vocabulary to the label words before it can learn which of them is right.
    """
    hidden = last_hidden_states(model, tokenizer, statements)  # (N, D)
    rows = model.model.embed_tokens.weight
    ids = [tokenizer.encode(word)[0] for word in words]
    rows[ids] = 0.0
    others = torch.logsumexp(hidden @ rows.T, dim=-1).median()
    direction = hidden.mean(dim=0)
    rows[ids] = direction * (LABEL_LOG_ODDS - log(2) + others) / (hidden @ direction).median()


def last_hidden_states(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Tensor:
    """(N, D) the final hidden state, after the last norm, at each text's last token."""
    batch = tokenizer(list(texts), padding=True, padding_side="right", return_tensors="pt")
    ends = batch["attention_mask"].sum(dim=1) - 1
    states: Tensor = model.model(input_ids=batch["input_ids"], use_cache=False).last_hidden_state
    return states[torch.arange(len(ends)), ends]
