"""A byte-level BPE tokenizer with a hand-written vocabulary: bytes, the numbers up to 99, and a few whole words."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
PIECES = r"\d{1,2}| ?\p{L}+|[^\d\p{L}]"


def build_tokenizer(words: Iterable[str], context_tokens: int) -> PreTrainedTokenizerFast:
    """Encodes any text. Each of `words` (letters, after one space or none) and each of 10..99 is a single token."""
    vocabulary = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    for word in [*(str(number) for number in range(10, 100)), *words]:
        _add_word(word.replace(" ", "Ġ"), vocabulary, merges)
    vocabulary[END_OF_TEXT] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, model_max_length=context_tokens
    )


def _add_word(word: str, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
    """Add the merges that build `word` from left to right, with the prefixes that they pass through."""
    for end in range(1, len(word)):
        if word[: end + 1] not in vocabulary:
            merges.append((word[:end], word[end]))
            vocabulary[word[: end + 1]] = len(vocabulary)
