"""What the frozen lower blocks make of a prompt never changes: it is computed once and kept."""

from collections.abc import Sequence

import torch
from torch import Tensor

from outlearn_training.fast.decoder import Decoder
from outlearn_training.fast.layout import Packed, Row, by_budget, pack

KEPT_BYTES = 2 * 2**30
COMPUTE_TOKENS = {"cpu": 1}
"""A batch: on the CPU one prompt, whose states then have the same bits whatever else is trained; elsewhere 4,096."""


class FrozenStates:
    """The frozen blocks' output for each prompt, (T, D), on the CPU, as long as there is room for it."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._kept: dict[tuple[int, ...], Tensor] = {}
        self._room = KEPT_BYTES

    @torch.no_grad()
    def of(self, prompts: Sequence[list[int]], packed: Packed) -> Tensor:
        """Those of a packed batch, whose rows hold one prompt each. Returns (N, D)."""
        device = packed.ids.device
        found = self._find(prompts, device)
        result = torch.zeros(len(packed.ids), self._decoder.width, dtype=found[0].dtype, device=device)
        for prompt, end, states in zip(prompts, packed.ends(), found, strict=True):
            result[end - len(prompt) : end] = states
        return result

    def _find(self, prompts: Sequence[list[int]], device: torch.device) -> list[Tensor]:
        missing = [list(one) for one in dict.fromkeys(map(tuple, prompts)) if one not in self._kept]
        found = {tuple(prompt): self._kept[tuple(prompt)] for prompt in prompts if tuple(prompt) in self._kept}
        rows = [Row((index,), 0, len(prompt)) for index, prompt in enumerate(missing)]
        for batch in by_budget(rows, COMPUTE_TOKENS.get(device.type, 4096)):
            chosen = [missing[row.members[0]] for row in batch]
            packed = pack(chosen, device=device)
            states = self._decoder.frozen_states(packed)
            for prompt, end in zip(chosen, packed.ends(), strict=True):
                found[tuple(prompt)] = self._keep(tuple(prompt), states[end - len(prompt) : end].to("cpu", copy=True))
        return [found[tuple(prompt)] for prompt in prompts]

    def _keep(self, prompt: tuple[int, ...], states: Tensor) -> Tensor:
        if states.nbytes <= self._room:
            self._kept[prompt] = states
            self._room -= states.nbytes
        return states
