"""The LLM Efficiency Challenge's API as HELM calls it, and what must not fail there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from challenge_client import ChallengeClient
from serving import PROMPTS, STORIES, Running, assert_greedy, load, serving

PROMPT = "The opposite of cold"
STRANGE = ["Grüße, 世界 🦊!", "  two  spaces \n\n\tand a tab ", "</s> and <s> written out", "", "a", "\u200bq\u0301"]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving() as made:
        yield made


@pytest.fixture
def helm(running: Running) -> ChallengeClient:
    return ChallengeClient(running.url)


def test_helm_gets_the_text_that_generate_gives(running: Running, helm: ChallengeClient) -> None:
    assert helm.process(PROMPT, 8)["text"] == running.llm.generate(PROMPT, max_new_tokens=8)


def test_a_prompt_alone_is_enough(running: Running) -> None:
    """As the health check of the challenge posts it."""
    for body in ({"prompt": "The capital of France is "}, {"prompt": "A", "seed": None, "stop_sequences": None}):
        reply = running.post("/process", body)
        assert reply.status == 200
        assert len(reply.json["tokens"]) <= 50 and {"text", "logprob", "request_time"} <= reply.json.keys()


def test_both_spellings_are_taken(helm: ChallengeClient) -> None:
    def texts(**changes: Any) -> list[str]:
        values = helm.process(PROMPT, 6, **{"temperature": 1.5, "seed": 3, **changes})
        return [reply["text"] for reply in values.get("completions", [values])]

    assert len(texts(num_return_sequences=3)) == 3
    assert texts(num_return_sequences=3) == texts(num_return_sequences=None, num_samples=3)
    assert texts() == texts(num_samples=1) == texts(num_return_sequences=3)[:1]
    assert texts(top_k=1, temperature=3.0) == [helm.process(PROMPT, 6)["text"]]
    assert texts() == texts(max_new_tokens=6.0, unheard_of=1)


def test_a_temperature_of_a_ten_millionth_is_greedy(helm: ChallengeClient) -> None:
    assert len({helm.process(PROMPT, 8, 1e-7, seed=seed)["text"] for seed in range(4)}) == 1
    assert len({helm.process(PROMPT, 8, 2.0, seed=seed)["text"] for seed in range(4)}) > 1


def test_candidates_are_reported_and_cut_nothing(running: Running, helm: ChallengeClient) -> None:
    tokens = helm.process(PROMPT, 6, top_k_per_token=5)["tokens"]
    logprobs = running.llm.logits([running.llm.tokenizer.encode(PROMPT)])[0, -1].log_softmax(-1)
    assert all(len(token["top_logprob"]) == 5 for token in tokens)
    assert all(token["logprob"] == max(token["top_logprob"].values()) for token in tokens)
    assert tokens[0]["logprob"] == pytest.approx(logprobs.max().item(), abs=1e-4)
    hot = {helm.process(PROMPT, 1, 5.0, seed=seed, top_k_per_token=1)["text"] for seed in range(8)}
    assert len(hot) > 1
    assert helm.process(PROMPT, 2, top_k_per_token=0)["tokens"][0]["top_logprob"] == {}


def test_the_answer_stops_before_a_stop_sequence(helm: ChallengeClient) -> None:
    whole = helm.process(PROMPT, 12)["text"]
    assert "\n" in whole
    cut = helm.process(PROMPT, 12, stop_sequences=["\n", "zyx", ""])
    assert cut["text"] == whole[: whole.index("\n")]
    assert cut["tokens"][-1]["text"]


def test_the_prompt_comes_back_only_where_it_is_asked_for(running: Running, helm: ChallengeClient) -> None:
    plain, echoed = helm.process(PROMPT, 4), helm.process(PROMPT, 4, echo_prompt=True)
    assert not plain["text"].startswith(PROMPT)
    assert echoed["text"] == PROMPT + plain["text"]
    ids = running.llm.tokenizer.encode(PROMPT)
    assert len(echoed["tokens"]) == len(ids) - 1 + len(plain["tokens"])
    logprobs = running.llm.logits([ids])[0].log_softmax(-1)
    known = [logprobs[place, number].item() for place, number in enumerate(ids[1:])]
    assert [token["logprob"] for token in echoed["tokens"][: len(known)]] == pytest.approx(known, abs=1e-4)
    scored = helm.process(PROMPT, 0, echo_prompt=True)
    assert (scored["text"], scored["logprob"]) == (PROMPT, pytest.approx(sum(known), abs=1e-3))
    for text in STRANGE:
        assert helm.process(text, 0, echo_prompt=True)["text"] == text


def test_ids_have_no_bos_and_come_back_as_they_were(running: Running, helm: ChallengeClient) -> None:
    bos = running.llm.tokenizer.bos_id
    for text in [*STRANGE, *PROMPTS[:5]]:
        ids = helm.tokenize(text)
        assert bos not in ids[:1]
        assert helm.decode(ids) == text
    assert [bos, *helm.tokenize(PROMPT)] == running.llm.tokenizer.encode(PROMPT)


def test_texts_are_cut_as_helm_asks(helm: ChallengeClient) -> None:
    text = "one two three " * 400
    assert len(helm.tokenize(text)) > 600
    assert helm.tokenize(text, truncation=True, max_length=5) == helm.tokenize(text)[:5]
    assert helm.tokenize(text, truncation=False, max_length=5) == helm.tokenize(text)
    assert text.startswith(helm.decode(helm.tokenize(text, truncation=True, max_length=100)))


def test_what_tokenize_and_decode_may_be_sent_does_not_fail(running: Running, helm: ChallengeClient) -> None:
    assert len(running.post("/tokenize", {"text": "word " * 3000}).json["tokens"]) == 2048  # its default
    assert running.post("/tokenize", {"text": "a", "truncation": None, "max_length": None}).status == 200
    assert running.post("/tokenize", b'{"text": "half \\ud83e"}').status == 200
    assert helm.decode([]) == ""
    assert helm.decode([1, 10**9, 10**30, -1, *helm.tokenize("well")]) == "well"
    assert running.post("/decode", {"tokens": [300.0]}).status == 200


def test_a_prompt_that_does_not_fit_is_cut_at_its_beginning(running: Running, helm: ChallengeClient) -> None:
    """The context is 512 tokens. HELM would end its whole run at a refusal."""
    before = running.metrics()["litft_prompts_cut_total"]
    long = "Heron. " * 700 + PROMPT
    said = helm.process(long, 8)
    tokenizer = running.llm.tokenizer
    ids = [*tokenizer.encode("")[:1], *tokenizer.encode_batch([long])[0][-(512 - 8 - 1) :]]
    assert len(ids) == 504
    logprobs = running.llm.logits([ids])[0, -1].log_softmax(-1)
    assert said["tokens"][0]["logprob"] == pytest.approx(logprobs.max().item(), abs=1e-3)
    assert len(said["tokens"]) == 8
    assert helm.process(long, 3000)["tokens"]
    assert helm.process(long, 0, echo_prompt=True)["text"] == long
    assert running.metrics()["litft_prompts_cut_total"] == before + 3
    assert any("was cut at its beginning: 512 tokens fit" in line for line in running.said)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/process", {}, "prompt is missing"),
        ("/process", {"prompt": 3}, "prompt is 3"),
        ("/process", {"prompt": "a", "temperature": "hot"}, 'temperature is "hot"'),
        ("/process", {"prompt": "a", "temperature": -1}, "temperature is -1"),
        ("/process", {"prompt": "a", "max_new_tokens": -1}, "max_new_tokens is -1"),
        ("/process", {"prompt": "a", "stop_sequences": "b"}, "stop_sequences is a text"),
        ("/process", {"prompt": "a", "top_k_per_token": 10**6}, "top_k_per_token is 1000000"),
        ("/process", b'{"prompt": "a", "temperature": NaN}', "temperature is NaN"),
        ("/process", b"{prompt}", "The request is not JSON"),
        ("/process", b"\xff\xfe", "The request is not JSON"),
        ("/process", b"", "The request is not JSON"),
        ("/process", b"[" * 100000, "The request is not JSON"),
        ("/process", ["a"], "must be a JSON object"),
        ("/tokenize", {"text": ["a"]}, "text is a list"),
        ("/decode", {"tokens": "a"}, 'tokens is "a"'),
        ("/decode", {"tokens": [1.5]}, "tokens.0 is 1.5"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_request_is_refused(running: Running, path: str, body: Any, said: str) -> None:
    reply = running.post(path, body)
    assert reply.status == 400 and said in reply.message, reply.content
    assert running.post("/process", {"prompt": "a", "max_new_tokens": 1}).status == 200


def test_prompts_are_put_into_the_style_where_that_is_wished() -> None:
    question = "Give the plural of the noun."
    with serving(wrap_prompts=True) as running:
        helm = ChallengeClient(running.url)
        expected = running.llm.chat([{"role": "user", "content": question}], max_new_tokens=8)
        assert helm.process(question, 8)["text"] == expected
        assert helm.process(question, 2, echo_prompt=True)["text"].startswith(question)
        assert helm.process("word " * 900, 4)["tokens"]


@pytest.mark.skipif(not STORIES.exists(), reason="no shared data")
def test_many_at_once_get_what_each_would_get_alone() -> None:
    """500 requests, 32 at a time, on real weights."""
    llm = load("stories")
    expected = {prompt: llm.generate(prompt, max_new_tokens=4) for prompt in PROMPTS}
    with serving("stories", slots=16) as running, ThreadPoolExecutor(32) as pool:
        helm = ChallengeClient(running.url)
        asked = [PROMPTS[number % len(PROMPTS)] for number in range(500)]
        answers = list(pool.map(lambda prompt: helm.process(prompt, 4)["text"], asked))
        assert running.metrics()['litft_requests_total{path="/process",status="200"}'] == 500
    for prompt, text in zip(asked, answers, strict=True):
        assert_greedy(llm, prompt, text, expected[prompt])
