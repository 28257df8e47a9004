"""/v1/chat/completions, streamed: the very frames, in order, for what Ollama streams."""

import json
import re

import pytest

from fake import call, last_line, line
from gateway import KEY, MODEL, NULL, chat_body

TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}]


def frames(gateway, fake, *lines, include_usage=False, **fields):
    """(delta, finish_reason) of each chunk, "usage" for the usage chunk, "[DONE]"."""
    fake.script_lines(*lines)
    answer = gateway.stream(stream_options={"include_usage": True} if include_usage else None, **fields)
    assert answer.status == 200 and answer.is_whole, answer
    found = []
    for data in answer.data:
        if data == "[DONE]":
            found.append(data)
            continue
        chunk = json.loads(data)
        if chunk["choices"]:
            found.append((chunk["choices"][0]["delta"], chunk["choices"][0]["finish_reason"]))
        else:
            found.append(("usage", chunk["usage"]))
    return found


def thought(text, **more):
    return {**more, "reasoning": text, "reasoning_content": text}


FIRST = {"role": "assistant"}
FINISH = ({}, "stop")


def test_the_head_of_a_stream(gateway):
    answer = gateway.stream()
    assert answer.header("Content-Type").startswith("text/event-stream")
    assert "no-cache" in answer.header("Cache-Control")
    assert answer.header("X-Accel-Buffering") == "no"
    assert answer.header("Content-Encoding") is None


def test_every_chunk_has_one_id_one_time_and_the_callers_name(gateway, fake):
    fake.script_lines(line("a"), {**line("b"), "created_at": "2026-11-22T15:00:00Z"}, last_line())
    chunks = gateway.stream(model="QWEN3:32b", stream_options={"include_usage": True}).chunks
    assert len(chunks) == 4
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    assert {chunk["model"] for chunk in chunks} == {"QWEN3:32b"}
    assert re.fullmatch(r"chatcmpl-[A-Za-z0-9_-]{16,}", chunks[0]["id"])


def test_content_and_done_in_one_line(gateway, fake):
    assert frames(gateway, fake, last_line("Hi")) == [({**FIRST, "content": "Hi"}, None), FINISH, "[DONE]"]


def test_three_pieces_are_five_frames_and_only_the_first_has_a_role(gateway, fake):
    assert frames(gateway, fake, line("a"), line("b"), line("c"), last_line()) == [
        ({**FIRST, "content": "a"}, None), ({"content": "b"}, None), ({"content": "c"}, None), FINISH, "[DONE]"]


def test_usage_comes_before_done_when_asked_for(gateway, fake):
    assert frames(gateway, fake, line("a"), last_line(prompt=10, produced=20), include_usage=True) == [
        ({**FIRST, "content": "a"}, None), FINISH,
        ("usage", {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}), "[DONE]"]


def test_thinking_content_and_done_in_one_line(gateway, fake):
    assert frames(gateway, fake, last_line("Hi", thinking="Hm", prompt=3, produced=2), include_usage=True) == [
        (thought("Hm", **FIRST), None), ({"content": "Hi"}, None), FINISH,
        ("usage", {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}), "[DONE]"]


def test_thinking_then_content(gateway, fake):
    found = frames(gateway, fake, line("", thinking="Ok"), line("", thinking="ay"), line("Hi"), last_line())
    assert [delta.get("reasoning") for delta, _ in found[:2]] == ["Ok", "ay"]
    assert found[0][0].get("content", "") == "" and found[0][0]["role"] == "assistant"
    assert found[2:] == [({"content": "Hi"}, None), FINISH, "[DONE]"]


def calls_of(delta):
    return [(c["id"], c["index"], c["type"], c["function"]["name"], json.loads(c["function"]["arguments"]))
            for c in delta["tool_calls"]]


WEATHER = ("call_0a5ztg28", 0, "function", "get_weather", {"city": "Paris"})


def test_a_tool_call_comes_whole(gateway, fake):
    found = frames(gateway, fake, line("", tool_calls=[call()]), last_line(), tools=TOOLS)
    assert calls_of(found[0][0]) == [WEATHER]
    assert found[0][0]["role"] == "assistant" and found[0][0].get("content", "") == ""
    assert found[1:] == [({}, "tool_calls"), "[DONE]"]


def test_a_tool_call_on_the_last_line(gateway, fake):
    found = frames(gateway, fake, last_line(tool_calls=[call()]), tools=TOOLS)
    assert calls_of(found[0][0]) == [WEATHER] and found[1:] == [({}, "tool_calls"), "[DONE]"]


def test_thinking_and_a_tool_call_in_one_line_are_two_frames(gateway, fake):
    found = frames(gateway, fake, line("", thinking="Hm", tool_calls=[call()]), last_line(), tools=TOOLS)
    assert found[0] == (thought("Hm", **FIRST), None)
    assert calls_of(found[1][0]) == [WEATHER] and "reasoning" not in found[1][0]
    assert found[2:] == [({}, "tool_calls"), "[DONE]"]


def test_several_calls_keep_ids_and_indexes(gateway, fake):
    found = frames(gateway, fake, line("", tool_calls=[call(index=2, id="call_a"), call("b", {}, 7, "call_b")]),
                   line("", tool_calls=[call("c", {"x": [1, {"y": "é"}]}, 8, "call_c")]), last_line(), tools=TOOLS)
    calls = [c for delta, _ in found[:-2] for c in calls_of(delta)]
    assert [(c[0], c[1], c[3]) for c in calls] == [("call_a", 2, "get_weather"), ("call_b", 7, "b"), ("call_c", 8, "c")]
    assert calls[2][4] == {"x": [1, {"y": "é"}]}


def test_length_stays_length_even_with_a_call(gateway, fake):
    assert frames(gateway, fake, line("a"), last_line(reason="length"))[-2] == ({}, "length")
    assert frames(gateway, fake, line("", tool_calls=[call()]), last_line(reason="length"), tools=TOOLS)[-2] == (
        {}, "length")


@pytest.mark.parametrize("reason", ["load", "unload", "never-heard-of", ""])
def test_an_unknown_end_is_stop(gateway, fake, reason):
    assert frames(gateway, fake, line("a"), last_line(reason=reason))[-2:] == [FINISH, "[DONE]"]


def test_an_empty_answer_still_has_a_first_frame(gateway, fake):
    assert frames(gateway, fake, last_line()) == [({**FIRST, "content": ""}, None), FINISH, "[DONE]"]


LOGPROBS = [{"token": "a", "logprob": -1.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -2, "bytes": [98]}]}]


def test_logprobs_go_with_their_frame(gateway, fake):
    fake.script_lines(line("a", logprobs=LOGPROBS), last_line(logprobs=LOGPROBS))
    choices = [chunk["choices"][0] for chunk in gateway.stream(logprobs=True).chunks]
    assert [choice.get("logprobs") and choice["logprobs"]["content"] for choice in choices] == [LOGPROBS, LOGPROBS, None]
    assert choices[-1]["finish_reason"] == "stop"


def test_logprobs_of_a_split_line_are_on_the_first_half(gateway, fake):
    fake.script_lines(line("Hi", thinking="Hm", logprobs=LOGPROBS), last_line())
    choices = [chunk["choices"][0] for chunk in gateway.stream(logprobs=True).chunks]
    assert choices[0]["logprobs"]["content"] == LOGPROBS and not choices[1].get("logprobs")


def test_unknown_fields_of_ollama_do_no_harm(gateway, fake):
    found = frames(gateway, fake, {**line("a"), "remote_model": "secret", "_debug_info": {"x": [1]}, "new": None}, last_line())
    assert found == [({**FIRST, "content": "a"}, None), FINISH, "[DONE]"]


@pytest.mark.parametrize("text", ["\u0085", "\u2028", "\u2029", "a\u2028b\u0085c"])
def test_line_separators_are_escaped_in_every_event(gateway, fake, text):
    fake.script_lines(line(text, thinking=text), line("", tool_calls=[call(arguments={"a": text})]), last_line())
    answer = gateway.stream(tools=TOOLS)
    assert "\u2028" not in answer.text and "\u2029" not in answer.text and "\u0085" not in answer.text
    assert answer.content == text and answer.reasoning == text


def test_control_characters_never_break_an_event(gateway, fake):
    text = "".join(map(chr, range(0x20))) + '"\\/<>&'
    fake.script_lines(line(text), last_line())
    assert gateway.stream().content == text


def test_a_stream_that_ends_without_its_last_line_is_finished_with_a_warning(gateway, fake):
    fake.script_lines(line("a"))
    answer = gateway.stream()
    assert [answer.content, answer.finish, answer.is_done] == ["a", "stop", True]
    gateway.wait_log(r"(?i)warn|without")


def test_heartbeats_come_while_ollama_is_silent(start_gateway, fake):
    gateway = start_gateway(heartbeat_interval="100ms", commit_after="100ms")
    fake.script(tokens=2, head_delay_ms=1500)
    answer = gateway.stream()
    assert answer.status == 200
    assert len(answer.pings) >= 3 and set(answer.pings) == {": ping"}
    assert answer.is_done


def test_heartbeats_come_between_tokens(start_gateway, fake):
    gateway = start_gateway(heartbeat_interval="100ms", commit_after="100ms")
    fake.script(tokens=2, token_ms=1000)
    answer = gateway.stream()
    assert len(answer.pings) >= 3 and answer.is_done


def test_an_answer_that_is_not_streamed_has_no_heartbeats(start_gateway, fake):
    gateway = start_gateway(heartbeat_interval="100ms", commit_after="100ms")
    fake.script(head_delay_ms=1000)
    answer = gateway.chat()
    assert answer.status == 200 and answer.json["object"] == "chat.completion"


def test_an_early_error_keeps_its_status_when_nothing_was_committed(start_gateway, fake):
    gateway = start_gateway(commit_after="5s")
    fake.script(status=400, body='{"error":"no"}', content_type="application/json", head_delay_ms=300)
    assert gateway.stream().status == 400


def test_an_error_after_the_commit_is_an_event(start_gateway, fake):
    gateway = start_gateway(commit_after="100ms", heartbeat_interval="100ms")
    fake.script(status=400, body='{"error":"no such thing"}', content_type="application/json", head_delay_ms=1000)
    answer = gateway.stream(may_be_cut=True)
    assert answer.status == 200
    assert "no such thing" in answer.stream_error["message"]
    assert answer.finish is None and not answer.is_done


def test_a_stream_that_falls_silent_is_cut_with_an_error(start_gateway, fake):
    gateway = start_gateway(stream_idle_timeout="500ms")
    fake.script(tokens=5, stall_after_tokens=2)
    answer = gateway.stream(may_be_cut=True)
    assert answer.stream_error["message"] and not answer.is_done
    fake.wait_chats(1, "aborted")


def test_each_event_is_sent_when_it_comes(gateway, fake):
    fake.script(tokens=3, stall_after_tokens=1)
    wire = gateway.open_chat(stream=True)
    assert wire.head().status == 200
    first = wire.chunk()
    assert first.startswith(b"data: ") and first.endswith(b"\n\n")
    wire.close()
    fake.wait_chats(1, "aborted")


def test_a_connection_serves_stream_after_stream(gateway, fake):
    wire = gateway.wire()
    for text in ("one", "two", "three"):
        wire.request("POST", "/v1/chat/completions", {"Authorization": f"Bearer {KEY}"}, chat_body(f"say:{text}", stream=True))
        answer = wire.answer()
        assert (answer.content, answer.is_done) == (text, True)


def test_many_streams_at_once_keep_their_words(gateway, fake):
    texts = [f"this is number {n}. " * 20 for n in range(40)]
    wires = [gateway.open_chat("say:" + text, stream=True) for text in texts]
    assert [wire.answer().content for wire in wires] == texts


def test_null_stream_is_not_streamed(gateway):
    assert gateway.chat(stream=NULL).json["object"] == "chat.completion"


def test_the_model_in_chunks_is_never_ollamas_registry_path(gateway, fake):
    fake.script_lines({**line("a"), "model": "registry.ollama.ai/library/qwen3:32b"}, last_line())
    answer = gateway.stream()
    assert "registry" not in answer.text
    assert {chunk["model"] for chunk in answer.chunks} == {MODEL}
