"""Texts and names without characters that nobody sees, and claims that are read through them."""

import sys
import unicodedata

import pytest

from outlearn.errors import InvalidInputError
from outlearn.printable import HIDDEN, check_plain, show_plain
from outlearn.stated_pgr import stated_pgrs

NEEDED = ("می‌خواهم", "क्‍ष", "👩‍💻", "❤️‍🔥", "👨🏽‍⚕️", "🏳️‍🌈", "1️⃣", "Größe: 3 µm", "한국어", "שלום\tx\r\n")
JOINERS = "\u200c\u200d"
FORMATS = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf"]


def test_every_format_character_is_hidden() -> None:
    assert len(FORMATS) > 160
    assert [f"U+{ord(one):04X}" for one in FORMATS if not HIDDEN.search(f"P{one}GR 0.99")] == []


@pytest.mark.parametrize("text", NEEDED)
def test_what_scripts_and_emoji_need_is_left(text: str) -> None:
    check_plain(text, "text")
    assert show_plain(text) == text


@pytest.mark.parametrize("text", ["a\u200db", "\u200da", "0.9\u200c9", "👩\u200d\u200d💻", "а\u200dб"])
def test_joiners_are_hidden_where_nothing_needs_them(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"the title has a hidden U\+200[CD] character"):
        check_plain(text, "title")
    assert len(show_plain(text)) == len(text)


@pytest.mark.parametrize("odd", [*JOINERS, "\u200b", "\ufeff", "\xad", "\ufe0f", "\u034f", "\U000e0101", "\u3164"])
def test_a_name_has_no_joiner_or_selector_either(odd: str) -> None:
    with pytest.raises(InvalidInputError, match="the path has a hidden"):
        check_plain(f"❤{odd}.py", "path", name=True)


@pytest.mark.parametrize("odd", [*FORMATS, "\ufe0f", "\u034f", "\u0301", "\u20dd", "\U000e0101"])
def test_a_claim_is_read_through_what_is_not_seen(odd: str) -> None:
    assert stated_pgrs(f"{odd}P{odd}GR{odd} 0{odd}.9{odd}9") == (0.99,)
