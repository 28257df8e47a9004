"""The real openai package of npm."""

import json
import shutil
import subprocess

import pytest

from fake import line
from gateway import KEY
from processes import ROOT, die_with_parent, spawn

NODE = ROOT / "tests" / "e2e" / "node"
pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="no node here")


@pytest.fixture
def ask(gateway):
    def asked(what, key=KEY, door=gateway):
        done = subprocess.run(["node", NODE / "ask.mjs", what, f"{door.url}/v1", key], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60, preexec_fn=die_with_parent)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    return asked


def test_a_whole_answer(ask, fake):
    fake.script(transcript="chat-plain")
    got = ask("whole")
    assert got["content"].startswith("Hello ! I am a scripted model") and got["finish"] == "stop"
    assert got["usage"] == {"prompt_tokens": 22, "completion_tokens": 17, "total_tokens": 39}
    assert len(got["id"]) == 24


def test_a_stream(ask, fake):
    fake.script(transcript="chat-stream-plain")
    got = ask("stream")
    assert got["content"].startswith("Hello ! I am a scripted model") and got["finish"] == "stop"
    assert got["usage"]["total_tokens"] == 39 and got["chunks"] > 10


def test_the_stream_helper(ask, fake):
    fake.script(transcript="chat-stream-thinking")
    assert ask("helper") == {"content": "Answer : forty-two indeed!!", "finish": "stop"}


def test_a_round_of_tools(ask, fake):
    fake.script(transcript="chat-tool")
    fake.script(transcript="chat-plain")
    got = ask("tools")
    assert (got["name"], got["finish"]) == ("get_weather", "tool_calls") and got["second"].startswith("Hello")
    told = fake.body["messages"][-1]
    assert told == {"role": "tool", "content": "sunny in Paris", "tool_name": "get_weather", "tool_call_id": "call_2l9288dz"}


def test_a_streamed_tool_call(ask, fake):
    fake.script(transcript="chat-stream-tool")
    assert ask("toolStream") == {"name": "get_weather", "arguments": {"city": "Paris"}, "finish": "tool_calls"}


def test_structured_output(ask, fake):
    fake.script(transcript="chat-schema-thinking")
    assert ask("schema") == {"a": 0}
    assert fake.body["format"]["properties"] == {"a": {"type": "integer"}}


def test_models(ask):
    assert set(ask("models")["ids"]) == {"qwen3:32b", "slow:latest", "loop:latest"}
    assert ask("model")["id"] == "qwen3:32b"


@pytest.mark.timing
def test_leaving_a_stream_closes_ollamas_side_within_100_ms(gateway, fake):
    fake.script(tokens=1000, token_ms=10)
    node = spawn(["node", NODE / "ask.mjs", "abort", f"{gateway.url}/v1", KEY], stdout=subprocess.PIPE)
    try:
        left = json.loads(node.stdout.readline())["left"]
        assert fake.wait_chats(1, "aborted")[0]["ended_ms"] - left < 100
    finally:
        node.kill()
        node.wait()
        node.stdout.close()


@pytest.mark.timing
def test_aborting_a_whole_answer_closes_ollamas_side_within_100_ms(gateway, fake):
    fake.script(silent=True)
    node = subprocess.Popen(["node", NODE / "ask.mjs", "abortWhole", f"{gateway.url}/v1", KEY], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, preexec_fn=die_with_parent)
    fake.wait_chats(1, "running")
    said, _ = node.communicate(b"now\n", 20)
    got = json.loads(said)
    assert got["name"] == "APIUserAbortError"
    assert fake.wait_chats(1, "aborted")[0]["ended_ms"] - got["left"] < 100


def test_errors_are_the_packages_own_classes(ask, fake, start_gateway, start_fake):
    wrong = ask("any", key="wrong")
    assert (wrong["name"], wrong["status"], wrong["code"]) == ("AuthenticationError", 401, "invalid_api_key")
    assert wrong["message"] == "401 invalid api key" and len(wrong["requestID"]) == 24
    bad = ask("badRequest")
    assert (bad["name"], bad["param"], bad["type"]) == ("BadRequestError", "temperature", "invalid_request_error")
    assert ask("notFound")["name"] == "NotFoundError"
    limited = start_gateway(rate_limit={"enabled": True, "max_requests": 1, "window_seconds": 60})
    assert limited.chat().status == 200
    full = ask("any", door=limited)
    assert (full["name"], full["code"]) == ("RateLimitError", "rate_limit_exceeded")
    fake.script(status=500, body="x", content_type="text/plain")
    assert ask("any")["name"] == "InternalServerError"
    dead = start_fake()
    door = start_gateway(dead)
    dead.kill()
    gone = ask("any", door=door)
    assert (gone["name"], gone["status"], gone["code"]) == ("InternalServerError", 503, "backend_unavailable")


def test_an_error_midway_is_raised(ask, fake):
    fake.script_lines(line("a"), {"error": "the runner died"})
    got = ask("anyStream")
    assert got["name"] == "APIError" and "the runner died" in got["message"]


def test_what_will_not_heal_is_not_tried_again(ask, fake):
    fake.script(times=5, status=500, content_type="application/json", body='{"error":"llama runner process has terminated"}')
    assert ask("retried")["status"] == 503
    assert len(fake.seen()) == 1
