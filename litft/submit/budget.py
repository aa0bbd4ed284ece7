"""How long the published run list would take on this server, told from a few replies.

Everything is taken at its largest: each prompt as long as HELM lets it be, each answer as long as it may be, and each
question of MMLU with all its changes. So it is an upper bound for the speed that was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from litft.submit.helm import HELM_WORKERS, FaultError, Helm
from litft.submit.play import PROMPTS, WINDOW, long_text

BUDGET_SECONDS = 2 * 3600  # Source: the rules of the challenge
ROUNDS = 2
ASKED = 100  # tokens of the answers by which the time of a token is told


@dataclass(frozen=True)
class Runs:
    """The entries of the run list that ask alike.

    Attributes:
        name: of the scenario.
        specs: entries.
        instances: of all of them, their max_eval_instances added up.
        changes: requests for an instance: itself, and HELM's perturbed copies.
        answer_tokens: max_tokens.
    """

    name: str
    specs: int
    instances: int
    changes: int
    answer_tokens: int

    @property
    def requests(self) -> int:
        """How many there are at most."""
        return self.instances * self.changes


# Source: run_specs_full_coarse_600_budget.conf of the challenge's starter kit, commit 2f4ffcd; max_tokens from HELM's
# `classic_run_specs.py` and `lite_run_specs.py`; data_augmentation=canonical from `run_expander.py`: the question, and
# mild_mix, dialect, gender and person_name of it.
RUN_LIST = (
    Runs("MMLU", 55, 216, 5, 5),
    Runs("BIG-bench", 29, 329, 1, 64),
    Runs("TruthfulQA", 1, 9, 1, 5),
    Runs("BBQ", 1, 18, 1, 5),
    Runs("GSM8K", 1, 19, 1, 400),
    Runs("CNN/DailyMail", 1, 9, 1, 128),
)
REQUESTS = sum(runs.requests for runs in RUN_LIST)


@dataclass(frozen=True)
class Pace:
    """Seconds of a server that answers four requests at once, each divided by what was answered in that time.

    Attributes:
        counting: of /tokenize for a prompt of full length.
        prompt: of a prompt of full length with an answer of one token.
        token: of a token of an answer.
    """

    counting: float
    prompt: float
    token: float

    def seconds(self, runs: Runs) -> float:
        """How long entries of the run list take."""
        return runs.requests * (self.counting + self.prompt + max(runs.answer_tokens - 1, 0) * self.token)

    def total(self) -> float:
        """How long all of it takes."""
        return sum(map(self.seconds, RUN_LIST))


def check_budget(helm: Helm) -> str:
    """Measures, and compares with the two hours.

    Raises:
        FaultError: it takes longer, or the server does not answer.
    """
    return judge_pace(measure(helm))


def judge_pace(pace: Pace) -> str:
    """Says how long the run list takes at a pace.

    Raises:
        FaultError: longer than it may.
    """
    told = (
        f"at most {clock(pace.total())} of 2:00 hours for {REQUESTS:,} requests, at {pace.prompt:.3f} s a full prompt "
        f"and {pace.token:.4f} s a token with four at once"
    )
    if pace.total() > BUDGET_SECONDS:
        longest = max(RUN_LIST, key=pace.seconds)
        raise FaultError(
            f"{told}; {longest.name} alone {clock(pace.seconds(longest))}", "what came before it was stopped"
        )
    return told


def measure(helm: Helm) -> Pace:
    """Gives the pace of a server.

    Raises:
        FaultError: it does not answer.
    """
    text = long_text(helm, WINDOW)
    text = text[: len(text) * (WINDOW - 1) // len(helm.tokenize(text))]
    counting, tokens = helm.post("/tokenize", {"text": text}).seconds, 0
    full, short = list[float](), list[float]()
    for number in range(ROUNDS + 1):  # the first one warms up
        prompts = [f"{number}{worker} {text}"[: len(text)] for worker in range(HELM_WORKERS)]  # none begins alike
        full.append(helm.together([partial(helm.process, prompt, 1) for prompt in prompts])[1])
        calls = [partial(helm.process, prompt, ASKED, temperature=1.0) for prompt in PROMPTS[:HELM_WORKERS]]
        said, seconds = helm.together(calls)
        short.append(seconds)
        tokens += sum(len(answer.pieces) for answer in said) if number else 0
    if not tokens:
        raise FaultError("every answer was empty, so the time of a token is not known", verdict="?")
    return Pace(2 * counting, sum(full[1:]) / (ROUNDS * HELM_WORKERS), sum(short[1:]) / tokens)


def clock(seconds: float) -> str:
    """Gives a time as hours and minutes."""
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02}"
