"""What can go wrong that a user can mend.

LitftError
├── ConfigError       a flag, a YAML key or a path that cannot be used
├── CheckpointError   a model folder that is missing, incomplete, damaged or of an unknown family
├── DataError         a dataset that cannot be read, or prepared data that does not fit
├── TokenizerError    tokenizer files that are missing or contradict themselves
├── GenerationError   a prompt or sampling request that cannot be answered
├── TrainingError     a run that must stop (a loss that is not finite)
├── FaultsFoundError  what was checked has faults; exit code 1
├── PreemptedError    the machine was asked for, the run is saved; exit code 0
└── StoppedElsewhereError  another process of the same run stops it, and says why

Each message is one sentence: what is wrong, the value, where it came from, what to do. The command line prints it and
exits with code 2; nothing else in litft prints or exits.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LitftError(Exception):
    """Base of every error a user can mend; `str(error)` is the sentence to show."""


class ConfigError(LitftError):
    """A flag, a YAML key or a path that cannot be used."""


class CheckpointError(LitftError):
    """A model folder that is missing, incomplete, damaged or of an unknown family."""


class DataError(LitftError):
    """A dataset that cannot be read, or prepared data that does not fit this model."""


class TokenizerError(LitftError):
    """Tokenizer files that are missing or contradict themselves."""


class GenerationError(LitftError):
    """A prompt or a sampling request that cannot be answered."""


class TrainingError(LitftError):
    """A run that must stop, such as one whose loss is not finite."""


class FaultsFoundError(LitftError):
    """What a command was to check has faults; the command itself did its work."""


class PreemptedError(LitftError):
    """A signal of a batch system stopped a run, which is saved and goes on when it is resumed; no mistake of a user."""


class StoppedElsewhereError(LitftError):
    """Another process of the same run stops it; that one says why, this one ends without a word."""


def did_you_mean(wrong: str, known: Iterable[str], before: str = "") -> str:
    """Gives `' Did you mean "x"?'` for the nearest known name, or an empty string when none is near.

    Args:
        wrong: what the user wrote.
        known: every name that would have been right.
        before: what stands before it where it is written.
    """
    near = difflib.get_close_matches(wrong, [name for name in known if len(name) > 1], n=1, cutoff=0.6)
    return f' Did you mean "{before}{near[0]}"?' if near else ""
