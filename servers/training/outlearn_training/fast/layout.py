"""How prompts lie in memory: a few groups of similar length, in one flat row of tokens.

Linear layers and norms see the flat row (N tokens); attention sees each group as a rectangle (b, t). A rectangle's row
holds one prompt, or, for prediction, several prompts that begin alike: their common prefix once, then each one's rest
(a tree of depth one). Rows are padded on the right, where causal attention never looks. Where the attention kernel
takes prompts of any length (on a GPU), there are no rectangles and no padding: prompts lie end to end.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

GROUP_COST = 8
"""What one more group costs, in tokens: its own attention calls."""
TREE_TOKENS = 2048
"""Longest row that holds several prompts."""

Tokens = Sequence[int]


@dataclass(frozen=True)
class Row:
    """Prompts that begin alike: `members` index them, and `prefix` tokens are common to all of them."""

    members: tuple[int, ...]
    prefix: int
    length: int


@dataclass(frozen=True)
class Group:
    """Rows of similar length, padded to `t`, in the flat row of tokens at `start : start + b * t`."""

    start: int
    b: int
    t: int
    mask: Tensor | None  # (b, 1, t, t): what a token may attend to, where rows are trees; None: all before it
    labels: Tensor  # (b, m): positions of the rows' labels; a row of fewer prompts repeats its last one
    label_mask: Tensor  # (b, 1, m, t): what a label may attend to

    @property
    def span(self) -> slice:
        return slice(self.start, self.start + self.b * self.t)


@dataclass(frozen=True)
class EndToEnd:
    """Prompts without padding: prompt i lies at `bounds[i] : bounds[i + 1]` in the flat row."""

    bounds: Tensor  # (n + 1,), int32
    longest: int


@dataclass(frozen=True)
class Packed:
    """A batch of n prompts. `labels` (n,) are the label positions in the flat row of N tokens, and `picks` (n,) their
    places among all groups' (b * m) label slots; both are in the order of the prompts."""

    ids: Tensor  # (N,)
    positions: Tensor  # (N,)
    groups: tuple[Group, ...]
    slots: Tensor  # (sum of b * m,): flat positions of all label slots
    picks: Tensor  # (n,)
    end_to_end: EndToEnd | None = None

    def ends(self) -> list[int]:
        """Where each prompt ends in the flat row, its label position included, in the order of the prompts."""
        return [end + 1 for end in self.slots[self.picks].tolist()]


def pack(prompts: Sequence[Tokens], rows: Sequence[Row] | None = None, device: torch.device | None = None) -> Packed:
    """Lay out prompts, each in a row of its own or as `rows` say."""
    rows = rows or [Row((index,), 0, len(prompt)) for index, prompt in enumerate(prompts)]
    rows = sorted(rows, key=lambda row: -row.length)
    ids, positions, groups, slots = [], [], [], []
    picks = np.empty(len(prompts), dtype=np.int64)
    start = taken = 0
    for first, last in pairwise(cut([row.length for row in rows])):
        part = rows[first:last]
        group_ids, group_positions, branches, labels = _rectangle(prompts, part)
        b, t = group_ids.shape
        m = labels.shape[1]
        for index, row in enumerate(part):
            picks[list(row.members)] = taken + index * m + np.arange(len(row.members))
        groups.append(_group(start, branches, labels, group_positions, device))
        ids.append(group_ids.ravel())
        positions.append(group_positions.ravel())
        slots.append((start + np.arange(b)[:, None] * t + labels).ravel())
        start, taken = start + b * t, taken + b * m
    return Packed(
        ids=_tensor(np.concatenate(ids), device),
        positions=_tensor(np.concatenate(positions), device),
        groups=tuple(groups),
        slots=_tensor(np.concatenate(slots), device),
        picks=_tensor(picks, device),
    )


def pack_end_to_end(prompts: Sequence[Tokens], device: torch.device | None = None) -> Packed:
    """Lay out prompts without padding, for an attention kernel that takes any lengths."""
    lengths = np.array([len(prompt) for prompt in prompts])
    bounds = np.concatenate([[0], lengths.cumsum()])
    return Packed(
        ids=_tensor(np.concatenate([np.asarray(prompt) for prompt in prompts]), device),
        positions=_tensor(np.concatenate([np.arange(length) for length in lengths]), device),
        groups=(),
        slots=_tensor(bounds[1:] - 1, device),
        picks=_tensor(np.arange(len(prompts)), device),
        end_to_end=EndToEnd(_tensor(bounds.astype(np.int32), device), int(lengths.max())),
    )


def cut(lengths: Sequence[int]) -> list[int]:
    """Where to cut lengths, sorted downwards, so that padding and the groups' own cost are least.

    Returns the cuts, from 0 to len(lengths): [0, 3, 8] are two groups. Dynamic programming over the distinct lengths.
    """
    ends = [i + 1 for i, (one, other) in enumerate(pairwise(lengths)) if one != other] + [len(lengths)]
    starts = np.array([0, *ends[:-1]])
    longest = np.array([lengths[start] for start in starts])
    best, came_from = np.zeros(len(ends) + 1), np.zeros(len(ends) + 1, dtype=np.int64)
    for k, end in enumerate(ends, start=1):
        costs = best[:k] + (end - starts[:k]) * longest[:k] + GROUP_COST
        came_from[k] = np.argmin(costs)
        best[k] = costs[came_from[k]]
    cuts, k = [len(lengths)], len(ends)
    while k:
        k = int(came_from[k])
        cuts.append(int(starts[k]))
    return cuts[::-1]


def share_prefixes(prompts: Sequence[Tokens], width: int) -> list[Row]:
    """Put prompts that begin alike into common rows wherever that saves work, in a model of hidden size `width`.

    Attention in a row costs about `length / (6 * width)` of what its linear layers do, and a tree has no use for its
    causal half; both count.
    """
    order = sorted(range(len(prompts)), key=lambda index: list(prompts[index]))
    rows: list[Row] = []
    for index in order:
        alone = Row((index,), 0, len(prompts[index]))
        joined = _join(rows[-1], alone, prompts) if rows else None
        if joined and _work(joined, width) < _work(rows[-1], width) + _work(alone, width):
            rows[-1] = joined
        else:
            rows.append(alone)
    return rows


def by_budget(rows: Sequence[Row], tokens: int) -> Iterator[list[Row]]:
    """Rows of similar length together, at most about `tokens` in each batch; the longest come first."""
    batch: list[Row] = []
    taken = 0
    for row in sorted(rows, key=lambda row: -row.length):
        if batch and taken + row.length > tokens:
            yield batch
            batch, taken = [], 0
        batch.append(row)
        taken += row.length
    if batch:
        yield batch


def _join(row: Row, alone: Row, prompts: Sequence[Tokens]) -> Row | None:
    """`row` with one more prompt; None where it would be too long. The last token of a prompt is never shared."""
    one, other = prompts[row.members[0]], prompts[alone.members[0]]
    most = min(row.prefix or len(one) - 1, len(one) - 1, len(other) - 1)
    prefix = _common(one, other, most)
    rest = sum(len(prompts[member]) - prefix for member in (*row.members, *alone.members))
    length = prefix + rest
    return Row((*row.members, *alone.members), prefix, length) if prefix and length <= TREE_TOKENS else None


def _common(one: Tokens, other: Tokens, most: int) -> int:
    count = 0
    while count < most and one[count] == other[count]:
        count += 1
    return count


def _work(row: Row, width: int) -> float:
    half = 1 if len(row.members) > 1 else 0.5
    return row.length * (1 + half * row.length / (6 * width))


def _rectangle(prompts: Sequence[Tokens], rows: Sequence[Row]) -> tuple[np.ndarray, ...]:
    """Token ids, positions and branches (b, t), and label positions (b, m). Branch 0 is a row's common prefix."""
    b, t, m = len(rows), rows[0].length, max(len(row.members) for row in rows)
    ids, positions, branches = np.zeros((3, b, t), dtype=np.int64)
    labels = np.empty((b, m), dtype=np.int64)
    for i, row in enumerate(rows):
        end = row.prefix
        ids[i, :end] = prompts[row.members[0]][:end]
        positions[i, :end] = np.arange(end)
        for branch, member in enumerate(row.members, start=1):
            rest = prompts[member][row.prefix :]
            span = slice(end, end + len(rest))
            ids[i, span], branches[i, span] = rest, branch
            positions[i, span] = np.arange(row.prefix, row.prefix + len(rest))
            end = span.stop
            labels[i, branch - 1 :] = end - 1
        branches[i, end:] = -1
    return ids, positions, branches, labels


def _group(
    start: int, branches: np.ndarray, labels: np.ndarray, positions: np.ndarray, device: torch.device | None
) -> Group:
    b, t = branches.shape
    at = np.arange(t)
    of_label = np.take_along_axis(branches, labels, 1)[:, :, None]
    before = at[None, None, :] <= labels[:, :, None]
    label_mask = before & ((branches[:, None, :] == 0) | (branches[:, None, :] == of_label))
    mask = None
    if branches.max() > 1:
        same = (branches[:, None, :] == 0) | (branches[:, None, :] == branches[:, :, None])
        mask = _tensor(((at[None, None, :] <= at[None, :, None]) & same)[:, None], device)
    return Group(start, b, t, mask, _tensor(labels, device), _tensor(label_mask[:, None], device))


def _tensor(array: np.ndarray, device: torch.device | None) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device or "cpu")
