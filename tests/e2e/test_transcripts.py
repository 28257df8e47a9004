"""Every answer recorded from a real Ollama is understood, however its bytes are cut."""

import json

import pytest

from fake import TRANSCRIPTS
from gateway import chat_body

HELLO = "Hello ! I am a scripted model . 你好，世界。 Emoji 🚀 done.\n"
THOUGHT = "Okay, the user greets me..\n"
WEATHER = [("call_0a5ztg28", "get_weather", {"city": "Paris"})]
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}]

STREAMS = {
    # name: (content, reasoning, calls, finish, usage)
    "chat-stream-plain": (HELLO, "", [], "stop", (22, 17)),
    "chat-stream-thinking": ("Answer : forty-two indeed!!", THOUGHT, [], "stop", (22, 15)),
    "chat-stream-tool": ("", "", WEATHER, "tool_calls", (22, 10)),
    "chat-stream-length": ("Hello ! I", "", [], "length", (22, 3)),
    "chat-stream-logprobs": ("Hello ! I am", "", [], "length", (22, 4)),
}
WHOLE = {
    "chat-plain": (HELLO, None, [], "stop", (22, 17)),
    "chat-thinking": ("Answer : forty-two indeed!!", THOUGHT, [], "stop", (22, 15)),
    "chat-schema-thinking": ('{"a" : 0 }', THOUGHT, [], "stop", (51, 5)),
    "chat-tool": ("", None, [("call_2l9288dz", "get_weather", {"city": "Paris"})], "tool_calls", (22, 10)),
    "chat-load-only": ("", None, [], "stop", (0, 0)),
}
ERRORS = {
    # name: (status, what the message holds)
    "error-cloud": (403, "cloud"),
    "error-embed-unsupported": (502, None),
    "error-empty": (400, "missing request body"),
    "error-format": (502, None),
    "error-json": (400, None),
    "error-method": (405, None),
    "error-model": (404, "not found"),
    "error-no-model": (400, "model is required"),
    "error-no-thinking": (400, "does not support thinking"),
    "error-no-tools": (400, "does not support tools"),
    "error-option-type": (502, None),
    "error-overflow": (400, "2048"),
    "error-overflow-stream": (400, "6020"),
    "error-path": (404, None),
    "error-tool-schema": (400, None),
    "error-type": (400, None),
}
OTHERS = ["generate-stream", "ps", "root", "show", "tags", "version"]
CUTS = (0, 1, 2, 3, 7)


def answer_length(name):
    """Bytes of the answer itself: the file without the two lines that tell the request."""
    text = (TRANSCRIPTS / f"{name}.http").read_bytes()
    return len(text.split(b"\n", 2)[2])


def cuts_of(name):
    """Pieces of each size up to the whole answer: the first cut falls on every byte in turn."""
    return list(CUTS) + list(range(8, answer_length(name)))


def calls_of(message):
    return [(c["id"], c["function"]["name"], json.loads(c["function"]["arguments"])) for c in message.get("tool_calls", [])]


def usage_of(usage):
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    return usage["prompt_tokens"], usage["completion_tokens"]


def assert_stream(answer, wanted):
    content, reasoning, calls, finish, usage = wanted
    assert answer.is_done and answer.content == content and answer.reasoning == reasoning and answer.finish == finish
    assert [c for delta in answer.deltas for c in calls_of(delta)] == calls
    assert usage_of(answer.chunks[-1]["usage"]) == usage


def assert_whole(answer, wanted):
    content, reasoning, calls, finish, usage = wanted
    message = answer.json["choices"][0]["message"]
    assert (answer.content or "", answer.reasoning, answer.finish) == (content, reasoning, finish)
    assert calls_of(message) == calls
    assert usage_of(answer.json["usage"]) == usage


def assert_error(answer, wanted):
    status, words = wanted
    assert answer.status == status
    assert answer.error["message"]
    if words:
        assert words in answer.error["message"]
    assert "registry" not in answer.text


def test_no_transcript_is_forgotten():
    names = {path.stem for path in TRANSCRIPTS.glob("*.http")}
    assert names == {*STREAMS, *WHOLE, *ERRORS, *OTHERS, "chat-stream-runner-dies"}


@pytest.fixture
def ask(gateway, fake):
    """ask(name, split, **fields): the chat that gets this transcript in pieces of that size, over one kept connection."""
    wire = [gateway.wire()]

    def asked(name, split, **fields):
        fake.script(transcript=name, **({"split": split} if split else {}))
        body = chat_body(tools=TOOLS, **fields)
        wire[0].request("POST", "/v1/chat/completions", {"Authorization": "Bearer prod-key-2024-qwen3"}, body)
        answer = wire[0].answer(may_be_cut=True)
        if (answer.header("Connection") or "").lower() == "close" or (answer.is_stream and answer.stream_error):
            assert wire[0].is_closed()
            wire[0] = gateway.wire()
        return answer
    return asked


@pytest.mark.parametrize("name", STREAMS)
def test_streams_cut_at_every_byte(ask, name):
    for split in cuts_of(name):
        assert_stream(ask(name, split, stream=True, stream_options={"include_usage": True}), STREAMS[name])


@pytest.mark.parametrize("name", WHOLE)
def test_whole_answers_cut_at_every_byte(ask, name):
    for split in cuts_of(name):
        assert_whole(ask(name, split), WHOLE[name])


@pytest.mark.parametrize("name", ERRORS)
def test_refusals_cut_at_every_byte(ask, name, gateway):
    for split in cuts_of(name):
        for stream in (True, None):
            assert_error(ask(name, split, stream=stream), ERRORS[name])
    assert gateway.chat().status == 200


def test_a_runner_that_dies_cut_at_every_byte(ask):
    for split in cuts_of("chat-stream-runner-dies"):
        answer = ask("chat-stream-runner-dies", split, stream=True)
        assert answer.content == " r0 r1 r2"
        assert "unexpected EOF" in answer.stream_error["message"]
        assert answer.finish is None and not answer.is_done


@pytest.mark.parametrize("name", OTHERS)
def test_answers_to_other_questions_are_no_answer(ask, name):
    """The wrong file for a chat: understood as nonsense, told in one sentence."""
    for split in CUTS:
        for stream in (True, None):
            answer = ask(name, split, stream=stream)
            assert answer.status == 502 or answer.stream_error or answer.is_done


def test_logprobs_of_the_recorded_stream(ask):
    answer = ask("chat-stream-logprobs", 0, stream=True, logprobs=True, top_logprobs=2)
    said = [entry for chunk in answer.chunks for entry in (chunk["choices"][0].get("logprobs") or {}).get("content", [])]
    assert [entry["token"] for entry in said] == ["Hello", " !", " I", " am"]
    assert said[0]["bytes"] == [72, 101, 108, 108, 111]
    assert said[0]["top_logprobs"][1] == {"token": "\u0000", "logprob": -45.25, "bytes": [0]}


@pytest.mark.parametrize("split", CUTS)
def test_the_list_of_models_as_it_was_recorded(start_gateway, start_fake, split):
    ollama = start_fake()
    ollama.script(times=0, path="/api/tags", transcript="tags", **({"split": split} if split else {}))
    listing = start_gateway(ollama).get("/v1/models").json["data"]
    assert {model["id"]: model["created"] for model in listing} == {
        "loop:latest": 1795356925, "slow:latest": 1795356756, "qwen3:32b": 1795356697}
