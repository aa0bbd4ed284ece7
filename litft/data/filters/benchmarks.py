"""The filter that keeps benchmarks unseen: rows that share a run of words with a text of one leave, held out or not.

Source: Brown et al. 2020, Language Models are Few-Shot Learners, arXiv 2005.14165, appendix C: runs of 13 words, case
and punctuation aside, and of at least 8 where a text has fewer.
"""

from __future__ import annotations

from pathlib import Path

from litft.config.filters import FiltersConfig
from litft.data.filters.benchmark_files import iter_texts
from litft.data.filters.row import Filter, Row
from litft.data.filters.words import runs_of, words_of
from litft.data.reading.places import shown_place
from litft.errors import DataError
from litft.terminal.bars import tracked

SHORTEST_RUN = 8


class RunIndex:
    """Where each run of words stands in the benchmarks.

    Attributes:
        left_aside: texts too short to tell whether a row copies them.
    """

    def __init__(self, length: int) -> None:
        """Begins.

        Args:
            length: words of a run; a text of fewer is looked for whole, from `SHORTEST_RUN` words on.
        """
        self.left_aside = 0
        self._length, self._least = length, min(length, SHORTEST_RUN)
        self._places: dict[int, dict[str, str]] = {}

    def add(self, text: str, place: str) -> bool:
        """Takes a text of a benchmark.

        Args:
            text: the whole of it.
            place: its file and line.

        Returns:
            Whether it is long enough to be looked for.
        """
        words = words_of(text)
        length = min(len(words), self._length)
        if length < self._least:
            self.left_aside += 1
            return False
        places = self._places.setdefault(length, {})
        for run in runs_of(words, length):
            places.setdefault(run, place)
        return True

    def find(self, text: str) -> tuple[str, str] | None:
        """Gives the first run that a text shares, the longest kind first, and its place; None where there is none."""
        words = words_of(text)
        for length in sorted(self._places, reverse=True):
            places = self._places[length]
            for run in runs_of(words, length):
                if run in places:
                    return run, places[run]
        return None


def build(config: FiltersConfig) -> list[Filter]:
    """Gives the filter, where files are named.

    Raises:
        DataError: a file cannot be read, or has no text to look for.
    """
    if not config.benchmarks.files:
        return []
    index, least = RunIndex(config.benchmarks.words), min(SHORTEST_RUN, config.benchmarks.words)
    for name in config.benchmarks.files:
        texts = tracked(iter_texts(Path(name).expanduser()), name, "texts", stays=False)
        if not sum(index.add(text, f"{name}, {shown_place(place)}") for place, text in texts):
            raise DataError(
                f"The benchmark {name} holds no text of {least} words or more to look for; name another file, or leave "
                "it away."
            )
    made = Filter("benchmarks", lambda row: _judge(index, row), for_held_out=True)
    if index.left_aside:
        made.notes[f"texts of benchmarks under {least} words; not looked for"] = index.left_aside
    return [made]


def _judge(index: RunIndex, row: Row) -> str | None:
    """Says which run of words a row shares with a benchmark, and where it stands there."""
    found = index.find(row.text.whole)
    return None if found is None else f'{found[1]}: "{found[0]}"'
