"""The words of a text, as filters compare texts: case, punctuation and forms of characters aside. Knows no rows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

# Scripts that are written without spaces: each of their characters counts as a word. Kana, CJK ideographs with their
# first extension and the compatible ones.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
)


def words_of(text: str) -> list[str]:
    """Gives the words of a text in order, folded so that `Two`, `two` and `\uff34wo` are one."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def runs_of(words: Sequence[str], length: int) -> Iterator[str]:
    """Gives each run of so many words, a space between them; none where there are fewer."""
    for begin in range(len(words) - length + 1):
        yield " ".join(words[begin : begin + length])
