"""The filter by the language of the answers, as py3langid tells it: naive Bayes, 4.6 MB, no network, no chance.

What is short is noise to such a model, which takes "Positive" for Uzbek. So an answer is judged only if it has 20
letters or more, blocks of code aside, and if the model is 70% sure or more; others stay, and are counted. Measured so
on 7,389 answers of Alpaca, Dolly, LIMA and OpenAssistant that should be English: 18 are rightly told to be in other
languages, and one, the notes of a tune, wrongly.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import Any

from litft.config.filters import FiltersConfig
from litft.data.filters.row import Filter, Row
from litft.errors import ConfigError, DataError, did_you_mean

FEWEST_LETTERS = 20
LEAST_CONFIDENCE = 0.7
NOT_JUDGED = "answers too short or too mixed for their language to be told; they stay"

# Words that are written where a code is meant.
_CODES = {
    "arabic": "ar", "chinese": "zh", "dutch": "nl", "english": "en", "french": "fr", "german": "de", "hindi": "hi",
    "italian": "it", "japanese": "ja", "korean": "ko", "polish": "pl", "portuguese": "pt", "russian": "ru",
    "spanish": "es", "swedish": "sv", "turkish": "tr", "ukrainian": "uk",
}  # fmt: skip

_NO_LANGUAGE = "zxx"  # the model's name for what is none, such as code
_CODE = re.compile(r"```.*?(?:```|\Z)", flags=re.DOTALL)


def build(config: FiltersConfig) -> list[Filter]:
    """Gives the filter, where languages are named.

    Raises:
        DataError: the library is not installed.
        ConfigError: it does not know a language.
    """
    if not config.languages:
        return []
    identifier = _identifier()
    known = sorted({*identifier.labels} - {_NO_LANGUAGE})
    for name in config.languages:
        if name not in known:
            meant = re.split("[-_]", name.lower())[0]
            raise ConfigError(
                f'filters.languages names "{name}", which is none of the {len(known)} codes of ISO 639 that are told, '
                f"such as de, en, es, fr and zh.{did_you_mean(_CODES.get(meant, meant), known)}"
            )
    notes: Counter[str] = Counter()

    def judge(row: Row) -> str | None:
        """Says in which other language the answers are."""
        text = _CODE.sub(" ", row.text.answered)
        is_long = sum(map(str.isalpha, text)) >= FEWEST_LETTERS
        language, confidence = identifier.classify(text) if is_long else (_NO_LANGUAGE, 1.0)
        if language == _NO_LANGUAGE or confidence < LEAST_CONFIDENCE:
            notes[NOT_JUDGED] += 1
            return None
        return None if language in config.languages else f"{language} ({confidence:.2f})"

    return [Filter("languages", judge, notes=notes)]


@functools.cache
def _identifier() -> Any:
    """Loads the model, once: it takes most of a second."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise DataError("filters.languages needs py3langid; pip install 'litft[mix]' brings it.") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
