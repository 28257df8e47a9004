"""What real chat agents sent, expanded to its size and replayed with their headers, is served with the default limits."""

import json
import pathlib
import re

import pytest

from gateway import KEY

CAPTURES = pathlib.Path(__file__).parent / "captures"
TEXT = re.compile(r"\(text of (\d+) characters\)")
MORE = re.compile(r"…\[\+(\d+) items\]")
MODELS = [{"name": "qwen3:32b", "capabilities": ["completion", "tools", "thinking"]},
          {"name": "m:latest", "capabilities": ["completion", "tools", "thinking"]}]


def expanded(value):
    if isinstance(value, str):
        return TEXT.sub(lambda found: ("word " * (int(found[1]) // 5 + 1))[:int(found[1])], value)
    if isinstance(value, list):
        items = [expanded(item) for item in value if not (isinstance(item, str) and MORE.fullmatch(item))]
        for item in value:
            if isinstance(item, str) and (more := MORE.fullmatch(item)):
                items += [another(items[n % 2], n) for n in range(int(more[1]))]
        return items
    if isinstance(value, dict):
        return {key: expanded(item) for key, item in value.items()}
    return value


def another(tool, number):
    tool = json.loads(json.dumps(tool))
    tool["function"]["name"] += f"_{number}"
    return tool


def recorded():
    """(name, headers, body) of every chat that was captured."""
    for path in sorted(CAPTURES.glob("*.json")):
        for number, request in enumerate(json.loads(path.read_text(encoding="utf-8"))["first"]):
            if request["request"].startswith("POST /v1/chat/completions "):
                headers = [line.split(": ", 1) for line in request["headers"] if not TEXT.fullmatch(line)]
                yield f"{path.stem}-{number}", headers, expanded(request["body"])


CHATS = list(recorded())


@pytest.fixture
def ollama(start_fake):
    return start_fake().set(models=MODELS)


@pytest.fixture
def door(start_gateway, ollama):
    """Only what must be said: every limit has its default."""
    return start_gateway(ollama, rate_limit=None)


def test_every_agent_is_there():
    assert {name.rpartition("-")[0] for name, _, _ in CHATS} >= {"clawdbot", "clawdbot-tool", "openclaw", "openclaw-tool",
                                                                "aisdk", "sdk7"}


@pytest.mark.parametrize("name,headers,body", CHATS, ids=[name for name, _, _ in CHATS])
def test_a_recorded_request_is_served(door, ollama, name, headers, body):
    own = [(key, value) for key, value in headers if key.lower() not in ("host", "content-length", "authorization")]
    answer = door.call("POST", "/v1/chat/completions", body, own, KEY)
    assert answer.status == 200, answer
    assert answer.finish in ("stop", "tool_calls")
    assert answer.is_stream == bool(body.get("stream"))
    if answer.is_stream:
        assert answer.is_done
    received = ollama.body
    assert received["truncate"] is False and received["shift"] is False
    assert "developer" not in {message["role"] for message in received["messages"]}
    assert len(received.get("tools") or []) == len(body.get("tools") or [])
    if "max_completion_tokens" in body:
        assert received["options"]["num_predict"] == body["max_completion_tokens"]
    if "reasoning_effort" in body:
        assert received["think"] == body["reasoning_effort"]
    for message in received["messages"]:
        if message["role"] == "tool":
            assert message["tool_name"] == "exec" and message["tool_call_id"]


def test_large_ones_have_their_size():
    for name, _, body in CHATS:
        if name.startswith(("clawdbot", "openclaw")):
            assert len(json.dumps(body)) > 25000, name


def test_the_second_step_of_clawdbot_brings_its_reasoning_back(door, ollama):
    headers, body = next((headers, body) for name, headers, body in CHATS if name == "clawdbot-tool-1")
    assert door.call("POST", "/v1/chat/completions", body).status == 200
    assistant = next(message for message in ollama.body["messages"] if message["role"] == "assistant")
    assert assistant["thinking"] == "let me think"
    assert assistant["tool_calls"][0]["function"] == {"name": "exec", "arguments": {"command": "echo hi-from-tool"}} or \
        assistant["tool_calls"][0]["function"]["arguments"] == {"command": "echo hi-from-tool"}
    assert headers
