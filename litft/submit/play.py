"""What HELM and those who ran the challenge ask of a server, asked one after the other. Knows no model and no files.

Source: `eval-repo.sh` of the challenge's eval-scripts (the health check); HELM's `local_window_service.py` (how a
prompt is cut) and its `neurips/local` deployment: 2048 tokens, four requests at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from litft.submit.helm import (
    ABORTED,
    HELM_WORKERS,
    NO_TEXT,
    NO_TOKENS,
    FaultError,
    Helm,
    Said,
    Verdict,
    read_answer,
    shown,
)

WINDOW = 2048  # tokens of a prompt and its answer
ANSWER = 24  # tokens of the answers that are asked for here
LONG_ANSWER = 64

# What a text may hold: nothing, spaces, line ends, letters of several bytes, the names of special tokens.
DIFFICULT = (
    "", "a", "The end", "  two  spaces \n\n\tand a tab ", "Gr\u00fc\u00dfe, \u4e16\u754c \U0001f98a!", "\n", " ",
    "e\u0301 \u200b 1,234.50 $x_{i}^2$", "</s> <s> <|endoftext|> written out", "A. yes\nB. no\nAnswer:",
)  # fmt: skip
FIRST_WORDS = ("The", "and", "some", "was", "Question", "it")
PROMPTS = (
    "The opposite of cold is",
    "Question: What is the capital of France?\nAnswer:",
    "Once upon a time",
    "It was",
    "Article: The mill by the lake was sold on Monday.\nSummary:",
)
HEALTH = b'{"prompt": "The capital of France is "}'
NO_REQUESTS: tuple[tuple[str, bytes], ...] = (
    ("/process", b"{prompt}"),
    ("/process", b""),
    ("/process", b'["a"]'),
    ("/process", b"{}"),
    ("/process", b'{"prompt": 3}'),
    ("/process", b'{"prompt": "a", "temperature": "hot"}'),
    ("/process", b'{"prompt": "a", "max_new_tokens": "many"}'),
    ("/process", b"\xff\xfe"),
    ("/tokenize", b"{}"),
    ("/tokenize", b"not JSON"),
    ("/decode", b'{"tokens": "a"}'),
    ("/decode", b"not JSON"),
)


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: of the check.
        verdict: `pass`, `fail`, or `?` where nothing is known.
        reason: what was seen.
        recorded: what HELM would have made of a fault.
    """

    name: str
    verdict: Verdict
    reason: str
    recorded: str = ""


Check = Callable[[Helm], str]


def find(name: str, check: Callable[[], str]) -> Finding:
    """Makes one check; a `FaultError` is what it found."""
    try:
        return Finding(name, "pass", check())
    except FaultError as fault:
        return Finding(name, fault.verdict, fault.reason, fault.recorded)


def play(helm: Helm) -> Iterator[Finding]:
    """Gives what every check found, each as soon as it is known; of a server that is not there, only that."""
    for name, check in CHECKS.items():
        yield find(name, partial(check, helm))
        if name == FIRST and helm.post("/process", HEALTH).status is None:
            yield Finding("all other checks", "fail", "nothing answers there, so they were not made", ABORTED)
            return


def check_health(helm: Helm) -> str:
    """Posts a prompt and nothing else, as the organisers' script does, which takes any reply for health."""
    reply = helm.post("/process", HEALTH)
    if reply.status is not None and reply.status >= 400:
        reason = f"a prompt alone is refused, so some other field is required ({reply.told})"
        raise FaultError(reason, "nothing, but any client that leaves that field out is refused")
    said = read_answer(reply)
    return f"a prompt alone is answered: {len(said.pieces)} tokens in {said.seconds:.2f} s"


def check_greedy(helm: Helm) -> str:
    """Asks at the temperature that stands for 0."""
    texts = {helm.process(PROMPTS[0], ANSWER).text for _ in range(3)}
    if len(texts) > 1:
        raise FaultError(
            f"three answers at a temperature of 1e-7 differ: {', '.join(map(shown, sorted(texts)))}",
            "another answer each time; scores cannot be repeated",
        )
    return f"the same answer three times: {shown(texts.pop())}"


def check_stops(helm: Helm) -> str:
    """Asks for an answer again with a part of it as the stop sequence; HELM itself cuts nothing."""
    tried = []
    for prompt in PROMPTS:
        whole = helm.process(prompt, LONG_ANSWER)
        if whole.text.startswith(prompt):
            raise FaultError("answers begin with the prompt, so where they end is not known", verdict="?")
        for stop in _stops_in(whole):
            expected, text = whole.text[: whole.text.index(stop)], _stopped(helm, prompt, stop)
            if stop in text:
                raise FaultError(
                    f"stop_sequences was [{shown(stop)}], and the answer goes on past it or keeps it: {shown(text)}",
                    f"{shown(text)}, as it stands; an exact match with {shown(expected)} fails",
                )
            if text.rstrip() != expected.rstrip():
                raise FaultError(
                    f"stop_sequences was [{shown(stop)}], and the answer is {shown(text)}, not {shown(expected)}",
                    shown(text),
                )
            tried.append(stop)
        if len(tried) >= 2:
            break
    if not tried:
        raise FaultError("every answer was too short to be stopped, so nothing is known", verdict="?")
    return f"answers end before {', '.join(map(shown, tried))}, which is left out"


def _stopped(helm: Helm, prompt: str, stop: str) -> str:
    """Gives the answer with a stop sequence, and one that never comes."""
    return helm.process(prompt, LONG_ANSWER, stop_sequences=[stop, "\u2603never\u2603"]).text


def _stops_in(whole: Said) -> list[str]:
    """Gives texts that stand in an answer, not at its very beginning: a line end, and a token."""
    tokens = (piece for piece in whole.pieces[2:] if piece.strip() and whole.text.find(piece) > 0)
    line_end = ["\n"] if whole.text.find("\n") > 0 else []
    return [*line_end, *list(tokens)[:1]]


def check_echo(helm: Helm) -> str:
    """Asks for the same with and without the prompt."""
    prompt = "Quartz 7315, violin, heron.\nAnswer:"
    plain = helm.process(prompt, ANSWER).text
    if plain.lstrip().startswith(prompt):
        raise FaultError(
            f"echo_prompt was false, and the answer begins with the prompt: {shown(plain)}",
            "the prompt as the answer: every multiple-choice answer is unmapped",
        )
    echoed = helm.process(prompt, ANSWER, echo_prompt=True).text
    if not echoed.lstrip().startswith(prompt):
        raise FaultError(f"echo_prompt was true, and the prompt does not come back: {shown(echoed)}", shown(echoed))
    return "the prompt comes back only where echo_prompt is true"


def check_samples(helm: Helm) -> str:
    """Asks for several answers; HELM reads one."""
    counts = [len(helm.process(PROMPTS[2], 4, temperature=0.8, num_return_sequences=count).pieces) for count in (1, 3)]
    return f"one answer is read of 1 and of 3 sequences ({counts[0]} and {counts[1]} tokens)"


def check_candidates(helm: Helm) -> str:
    """Asks how likely the five likeliest tokens at each place are, as multiple-choice runs do."""
    said = helm.process(PROMPTS[0], ANSWER, top_k_per_token=5)
    if not said.pieces:
        raise FaultError("the answer was empty, so nothing is known", verdict="?")
    for logprob, candidates in zip(said.logprobs, said.candidates, strict=True):
        if not candidates:
            raise FaultError("top_k_per_token was 5, and a token's top_logprob is empty", "answers without candidates")
        if len(candidates) > 5 or not all(isinstance(number, (int, float)) for number in candidates.values()):
            raise FaultError(f"top_k_per_token was 5, and top_logprob is {candidates}", "candidates of another kind")
        if logprob < max(candidates.values()) - 1e-3:
            raise FaultError(
                "a token of a greedy answer is not the likeliest of its candidates", "log-probabilities of other tokens"
            )
    return f"each token has up to {max(map(len, said.candidates))} candidates, the likeliest one was taken"


def check_spelling(helm: Helm) -> str:
    """Compares the tokens of answers with their text."""
    changes: tuple[dict[str, object], ...] = ({}, {"stop_sequences": ["\n"]}, {"temperature": 1.0})
    for prompt in PROMPTS:
        for change in changes:
            said = helm.process(prompt, ANSWER, **change)
            if "".join(said.pieces) != said.text:
                spelt = "".join(said.pieces)
                raise FaultError(
                    f"the tokens spell {shown(spelt)}, the text is {shown(said.text)}",
                    "log-probabilities of another text",
                )
    return f"the tokens of {len(PROMPTS) * len(changes)} answers spell their texts"


def check_round_trip(helm: Helm) -> str:
    """Sends difficult texts to /tokenize and the ids to /decode."""
    for text in DIFFICULT:
        back = helm.decode(helm.tokenize(text))
        if back != text:
            raise FaultError(f"{shown(text)} comes back as {shown(back)}", "prompts that were cut are changed")
    return f"{len(DIFFICULT)} texts come back as they were, spaces, line ends and the empty one too"


def check_bare_ids(helm: Helm) -> str:
    """Looks for a token that /tokenize puts around every text."""
    rows = [helm.tokenize(text) for text in FIRST_WORDS]
    added = helm.tokenize("")
    reason = "/tokenize adds a token {} each text (id {}), as BOS or EOS"
    recorded = "the text of that token inside every prompt over 2048 tokens, and prompts counted too long"
    for place, where in ((0, "before"), (-1, "behind")):
        ids = {row[place] for row in rows if row}
        if len(ids) == 1 and all(len(row) > 1 for row in rows):
            raise FaultError(reason.format(where, ids.pop()), recorded)
    if added:
        raise FaultError(reason.format("to", added[0]), recorded)
    return "/tokenize gives the ids of the text alone, without BOS and EOS"


def check_long_prompt(helm: Helm) -> str:
    """Cuts a prompt that is too long as HELM does, and sends it."""
    most, text = WINDOW - ANSWER, long_text(helm, WINDOW + 200)
    ids = helm.tokenize(text, truncation=True, max_length=most)
    if len(ids) > most:
        raise FaultError(
            f"/tokenize was told to cut at {most} tokens and gives {len(ids)}",
            "HELM takes one character after the other off, with a request for each",
        )
    cut = helm.decode(ids)
    if not cut:
        raise FaultError("a prompt over 2048 tokens, cut by /tokenize and /decode, is empty", NO_TEXT)
    if not text.startswith(cut):
        raise FaultError(f"a prompt that was cut begins {shown(cut[:40])}, not {shown(text[:40])}", shown(cut[:40]))
    over = len(helm.tokenize(cut)) - most
    if over > 0:
        raise FaultError(
            f"a prompt cut to {most} tokens has {over} more when it is counted again",
            "HELM takes one character after the other off, with a request for each",
        )
    said = helm.process(cut, ANSWER)
    return f"{len(ids):,} of {WINDOW + 200:,}+ tokens are left, decode to the text's beginning and are answered " + (
        f"({len(said.pieces)} tokens in {said.seconds:.2f} s)"
    )


def long_text(helm: Helm, tokens: int, first: str = "") -> str:
    """Gives a text of at least so many tokens, as /tokenize counts them.

    Raises:
        FaultError: /tokenize fails, or counts fewer the longer a text is.
    """
    words = "The mill by the lake was sold on Monday, and nobody knows who bought it. "
    text, count = first + words, 0
    while count < tokens:
        if len(text) > 64 * tokens:
            raise FaultError(f"/tokenize counts {count:,} tokens in {len(text):,} characters of English", NO_TOKENS)
        text += words * max(tokens // 40, 1)
        count = len(helm.tokenize(text))
    return text


def check_four(helm: Helm) -> str:
    """Sends four requests at once, and compares the answers with those to each alone."""
    prompts = PROMPTS[:HELM_WORKERS]
    alone = [helm.process(prompt, ANSWER) for prompt in prompts]
    calls = [partial(helm.process, prompt, ANSWER) for prompt in prompts]
    try:
        said, seconds = helm.together(calls)
    except FaultError as fault:
        raise FaultError(f"of four requests at once one fails: {fault.reason}", ABORTED) from fault
    for place, answer in enumerate(said):
        others = [other.text for other in alone[:place] + alone[place + 1 :]]
        if answer.text != alone[place].text and answer.text in others:
            raise FaultError("of four requests at once one gets the answer to another", "answers to other questions")
    same = sum(answer.text == other.text for answer, other in zip(said, alone, strict=True))
    one_by_one = sum(answer.seconds for answer in alone)
    return f"all are answered, {same} of 4 as alone, in {seconds:.2f} s; one after the other in {one_by_one:.2f} s"


def check_malformed(helm: Helm) -> str:
    """Sends what is no request; each must be refused, and the server live on."""
    for path, body in NO_REQUESTS:
        reply, sent = helm.post(path, body), f"{body.decode('utf-8', 'replace')} to {path}"
        if reply.status is None:
            raise FaultError(f"{sent}: {reply.told}", "every later request fails if the server died of it")
        if not 400 <= reply.status < 500:
            raise FaultError(f"{sent} gives {reply.told}; a status from 400 to 499 was to be expected", "nothing")
    if helm.post("/process", HEALTH).status is None:
        raise FaultError("after malformed requests nothing answers any more", ABORTED)
    return f"{len(NO_REQUESTS)} malformed requests are refused, and the server lives"


FIRST = "health check"
CHECKS: dict[str, Check] = {
    FIRST: check_health,
    "temperature 1e-7": check_greedy,
    "stop sequences": check_stops,
    "echo_prompt": check_echo,
    "num_return_sequences": check_samples,
    "top_k_per_token": check_candidates,
    "tokens spell text": check_spelling,
    "tokenize, decode": check_round_trip,
    "ids without BOS": check_bare_ids,
    "prompt over 2048": check_long_prompt,
    "malformed requests": check_malformed,
    "four at once": check_four,
}
