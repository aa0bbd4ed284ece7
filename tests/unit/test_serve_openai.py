"""The official client of OpenAI's API against a server on the demo's model."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from challenge_client import ChallengeClient
from serving import NAME, PROMPTS, Running, assert_greedy, load, serving

from litft.text.conversation import dialogue
from litft.text.encoding import encode_prompt

PROMPT = "The opposite of cold"


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving(slots=16) as made:
        yield made


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def complete(client: openai.OpenAI, prompt: Any = PROMPT, **changes: Any) -> Any:
    given: dict[str, Any] = {"model": NAME, "max_tokens": 8, "temperature": 0, **changes}
    return client.completions.create(prompt=prompt, **given)


def chat(client: openai.OpenAI, text: str = "Give the plural of the noun.", **changes: Any) -> Any:
    given: dict[str, Any] = {"model": NAME, "max_tokens": 8, "temperature": 0, **changes}
    return client.chat.completions.create(messages=[{"role": "user", "content": text}], **given)


def spelled(tokens: list[str]) -> str:
    """Joins tokens as the demo's tokenizer does, which leaves the space at the beginning of a line out."""
    return "".join(tokens).replace("\n ", "\n")


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).owned_by == "litft"
    with pytest.raises(openai.NotFoundError, match="no model 'medlar' here; this server has quince"):
        complete(client, model="medlar")


def test_a_completion_is_the_text_that_generate_gives(running: Running, client: openai.OpenAI) -> None:
    reply = complete(client)
    choice = reply.choices[0]
    assert choice.text == running.llm.generate(PROMPT, max_new_tokens=8)
    assert (choice.finish_reason, choice.logprobs, reply.model) == ("length", None, NAME)
    size = len(running.llm.tokenizer.encode(PROMPT))
    assert reply.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": size,
        "completion_tokens": 8,
        "total_tokens": size + 8,
    }


def test_prompts_come_as_texts_and_as_ids(running: Running, client: openai.OpenAI) -> None:
    encode = running.llm.tokenizer.encode
    texts = [complete(client, prompt).choices[0].text for prompt in PROMPTS[:2]]
    for prompt in (PROMPTS[:2], [encode(prompt) for prompt in PROMPTS[:2]]):
        reply = complete(client, prompt)
        assert [choice.text for choice in reply.choices] == texts
        assert [choice.index for choice in reply.choices] == [0, 1]
        assert reply.usage.prompt_tokens == sum(len(encode(prompt)) for prompt in PROMPTS[:2])
    assert complete(client, encode(PROMPTS[0])).choices[0].text == texts[0]


def test_a_chat_feeds_the_ids_of_training(running: Running, client: openai.OpenAI) -> None:
    question = "Give the plural of the noun."
    reply = chat(client, question)
    ids = encode_prompt(running.llm.tokenizer, running.llm.style, dialogue(question))
    assert reply.usage.prompt_tokens == len(ids)
    expected = running.llm.chat([{"role": "user", "content": question}], max_new_tokens=8)
    assert (reply.choices[0].message.content, reply.choices[0].message.role) == (expected, "assistant")


def test_parts_of_text_are_one_text(client: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": "Give the plural "}, {"type": "text", "text": "of the noun."}]
    whole = client.chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": parts}], max_tokens=8, temperature=0  # type: ignore[list-item, misc]
    )  # fmt: skip
    assert whole.choices[0].message.content == chat(client).choices[0].message.content
    picture = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    with pytest.raises(openai.BadRequestError, match="reads text alone"):
        client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": picture}])  # type: ignore[list-item, misc]


def test_stop_texts_end_an_answer_and_are_left_out(client: openai.OpenAI) -> None:
    whole = complete(client, max_tokens=12).choices[0].text
    word = whole.split()[2]
    for stop in (word, [word, "zyx"]):
        choice = complete(client, max_tokens=12, stop=stop).choices[0]
        assert (choice.text, choice.finish_reason) == (whole[: whole.index(word)], "stop")


def test_streams_give_what_whole_replies_give(client: openai.OpenAI) -> None:
    word = complete(client, max_tokens=12).choices[0].text.split()[2]
    for changes in ({}, {"stop": word}, {"echo": True}, {"n": 2}, {"prompt": PROMPTS[:3]}):
        whole = complete(client, max_tokens=12, **changes)
        chunks = list(complete(client, max_tokens=12, stream=True, **changes))
        for index, choice in enumerate(whole.choices):
            own = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == index]
            assert "".join(piece.text for piece in own) == choice.text
            assert [piece.finish_reason for piece in own if piece.finish_reason] == [choice.finish_reason]
    whole, chunks = chat(client, n=2, seed=1), list(chat(client, n=2, seed=1, stream=True))
    for index, choice in enumerate(whole.choices):
        own = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == index]
        assert "".join(piece.delta.content or "" for piece in own) == choice.message.content
        assert [piece.delta.role for piece in own] == ["assistant"] + [None] * (len(own) - 1)
        assert own[-1].finish_reason == choice.finish_reason
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_ends_with_counts_where_they_are_wanted(client: openai.OpenAI) -> None:
    usage = chat(client).usage
    *chunks, last = chat(client, stream=True, stream_options={"include_usage": True})
    assert (last.choices, last.usage.model_dump()) == ([], usage.model_dump())
    assert all(chunk.usage is None for chunk in chunks)


def test_logprobs_in_both_shapes(running: Running, client: openai.OpenAI) -> None:
    ids = running.llm.tokenizer.encode(PROMPT)
    known = running.llm.logits([ids])[0, -1].log_softmax(-1).topk(3)
    told = complete(client, logprobs=3).choices[0]
    assert len(told.logprobs.tokens) == len(told.logprobs.token_logprobs) == 8
    assert spelled(told.logprobs.tokens) == told.text
    texts = [told.text[begin:] for begin in told.logprobs.text_offset]
    pairs = zip(texts, told.logprobs.tokens, strict=True)
    assert all(text.lstrip(" ").startswith(token.lstrip(" ")) for text, token in pairs)
    assert list(told.logprobs.top_logprobs[0].values())[::-1] == pytest.approx(known.values.tolist(), abs=1e-4)
    assert told.logprobs.token_logprobs[0] == max(told.logprobs.top_logprobs[0].values())
    tokens = chat(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert all(len(token.top_logprobs) == 2 and token.top_logprobs[0].logprob == token.logprob for token in tokens)
    assert all(bytes(token.bytes).decode() == token.token for token in tokens if token.bytes)
    streamed = chat(client, logprobs=True, top_logprobs=2, stream=True)
    again = [token for chunk in streamed if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content]
    assert [token.token for token in again] == [token.token for token in tokens]


def test_the_tokens_of_a_stop_text_are_not_told(client: openai.OpenAI) -> None:
    whole = complete(client, max_tokens=12).choices[0].text
    word = whole.split()[2]
    told = complete(client, max_tokens=12, stop=word, logprobs=1).choices[0]
    assert spelled(told.logprobs.tokens) == told.text
    chunks = complete(client, max_tokens=12, stop=word, logprobs=1, stream=True)
    names = [name for chunk in chunks if chunk.choices[0].logprobs for name in chunk.choices[0].logprobs.tokens]
    assert names == told.logprobs.tokens


def test_an_echo_tells_what_the_prompt_is_worth(running: Running, client: openai.OpenAI) -> None:
    """As a harness asks for log-likelihoods."""
    ids = running.llm.tokenizer.encode(PROMPT)
    told = complete(client, ids, max_tokens=0, echo=True, logprobs=1)
    logprobs = running.llm.logits([ids])[0].log_softmax(-1)
    known = [logprobs[place, number].item() for place, number in enumerate(ids[1:])]
    assert told.choices[0].text == PROMPT
    assert told.choices[0].logprobs.token_logprobs[0] is None
    assert told.choices[0].logprobs.token_logprobs[1:] == pytest.approx(known, abs=1e-4)
    assert told.usage.completion_tokens == 0
    longer = complete(client, PROMPT, max_tokens=2, echo=True, logprobs=1).choices[0]
    assert longer.text == PROMPT + complete(client, max_tokens=2).choices[0].text
    assert len(longer.logprobs.tokens) == len(ids) + 2
    assert longer.logprobs.text_offset[len(ids)] == len(PROMPT)


def test_samples_follow_their_seed(client: openai.OpenAI) -> None:
    def sample(seed: int | None) -> list[str]:
        return [choice.text for choice in complete(client, n=4, temperature=1.5, seed=seed).choices]

    assert sample(5) == sample(5) != sample(6)
    assert len(set(sample(5))) > 1
    assert sample(None) != sample(None)
    assert len({choice.text for choice in complete(client, n=3, temperature=1e-7).choices}) == 1


def test_the_answer_ends_where_the_room_does(client: openai.OpenAI) -> None:
    reply = chat(client, max_tokens=None, max_completion_tokens=None, temperature=2, seed=3, top_p=0.99)
    assert reply.usage.total_tokens == 512 or reply.choices[0].finish_reason == "stop"
    reply = complete(client, [7] * 508, max_tokens=100)
    assert (reply.usage.completion_tokens, reply.choices[0].finish_reason) == (4, "length")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"presence_penalty": 0.5}, "presence_penalty is 0.5; this server cannot do that"),
        ({"frequency_penalty": -1}, "frequency_penalty is -1"),
        ({"logit_bias": {"50": 100}}, "logit_bias is"),
        ({"best_of": 2}, "best_of is 2"),
        ({"suffix": "end"}, 'suffix is "end"'),
        ({"n": 0}, "n is 0; it should be greater than or equal to 1"),
        ({"n": 90}, "asks for 90 answers at once; this server takes 80"),
        ({"temperature": -1}, "temperature is -1; it should be"),
        ({"top_p": 0}, "top_p is 0"),
        ({"stop": [""]}, "none of them empty"),
        ({"stop": ["a"] * 17}, "16 are the most"),
        ({"logprobs": 21}, "logprobs is 21"),
        ({"max_tokens": 600}, "max_tokens is 600; this server gives at most 512 tokens"),
        ({"max_tokens": 0}, "leaves nothing to say without echo"),
        ({"seed": 2**64}, "64 bits"),
        ({"prompt": [7] * 512}, "The prompt has 512 tokens; this server takes 512, those of the answer among them"),
        ({"prompt": [-1]}, "the id -1"),
        ({"prompt": [10**30], "echo": True, "logprobs": 1}, "has the id 1000000000000000000000000000000"),
        ({"prompt": [4000]}, "the id 4000"),
        ({"prompt": [[]]}, "prompt must be a text"),
        ({"prompt": ["a", [1]]}, "prompt must be a text"),
        ({"prompt": 3.5}, "prompt must be a text"),
        ({"extra_body": {"tempurature": 1}}, "not known. Did you mean"),
        ({"extra_body": {"min_p": 7}}, "min_p is 7.0"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_answered_is_refused(client: openai.OpenAI, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, **changes)
    assert said in caught.value.body["message"]  # type: ignore[index, call-overload]
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools is"),
        ({"response_format": {"type": "json_object"}}, "response_format is"),
        ({"top_logprobs": 2}, "top_logprobs goes with logprobs"),
        ({"messages": []}, "messages is empty"),
        ({"messages": [{"content": "a"}]}, "messages[0] has no role"),
        ({"messages": [{"role": "user"}]}, "content of messages[0]"),
        ({"messages": [{"role": "poet", "content": "a"}]}, "must be of user, assistant"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "the last must not be the assistant's"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "cannot frame this conversation"),
        ({"messages": "Hi"}, "messages is"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_said_is_refused(client: openai.OpenAI, changes: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"model": NAME, "messages": [{"role": "user", "content": "Hi"}], **changes}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**given)
    assert said in caught.value.body["message"]  # type: ignore[index, call-overload]


def test_what_changes_no_answer_is_ignored(client: openai.OpenAI) -> None:
    harmless: dict[str, Any] = {"user": "me", "presence_penalty": 0, "logit_bias": {}}
    assert complete(client, **harmless, best_of=1).choices[0].text == complete(client).choices[0].text
    more: dict[str, Any] = {"store": False, "metadata": {"a": "b"}, "tools": [], "response_format": {"type": "text"}}
    assert chat(client, **harmless, **more).choices[0].message.content == chat(client).choices[0].message.content


def test_many_at_once_get_what_each_would_get_alone() -> None:
    """500 requests, 32 at a time: whole and streamed ones of this API, and of the challenge's."""
    llm = load("demo")
    expected = {prompt: llm.generate(prompt, max_new_tokens=4) for prompt in PROMPTS}

    def ask(number: int) -> tuple[str, str, int]:
        prompt, length = PROMPTS[number % len(PROMPTS)], (2, 3, 4)[number % 3]
        if number % 4 == 0:
            chunks = complete(client, prompt, max_tokens=length, stream=True)
            return prompt, "".join(chunk.choices[0].text for chunk in chunks), length
        if number % 4 == 1:
            return prompt, complete(client, prompt, max_tokens=length).choices[0].text, length
        return prompt, ChallengeClient(running.url).process(prompt, length)["text"], length

    with serving(slots=16) as running, ThreadPoolExecutor(32) as pool:
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
            answers = list(pool.map(ask, range(500)))
        told = running.metrics()
    for path in ("/v1/completions", "/process"):
        assert told[f'litft_requests_total{{path="{path}",status="200"}}'] == 250
    assert len(answers) == 500 and {length for _, _, length in answers} == {2, 3, 4}
    for prompt, text, length in answers:
        assert text
        if length == 4 or not expected[prompt].startswith(text):
            assert_greedy(llm, prompt, text, expected[prompt])
