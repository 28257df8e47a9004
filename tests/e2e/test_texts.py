"""
Agents decide by words whether to try again. Every text that a caller can be shown is put through their patterns:
what will not heal must not look as if it would, and an overflow must look like one.
"""

import json
import re

import pytest

from gateway import KEY, chat_body
from processes import ROOT
from test_refusals import TOOL, UNFIT

RETRY = re.compile(r"overloaded|rate.?limit|too many requests|429|500|502|503|504|service.?unavailable|server error"
                   r"|internal error|connection.?error|connection.?refused|other side closed|fetch failed|upstream.?connect"
                   r"|reset before headers", re.IGNORECASE)
OVERFLOW = re.compile(r"prompt is too long|maximum context length is \d+ tokens|exceeds the context window"
                      r"|context.?length.?exceeded|exceeds the available context size|too many tokens"
                      r"|reduce the length of the messages", re.IGNORECASE)
OVERFLOW_OF_CLAWDBOT = re.compile(r"context length exceeded|maximum context length|prompt is too long|request_too_large"
                                  r"|413.*too large", re.IGNORECASE)
RETRYABLE = {408, 429, 502, 503, 504}


def assert_wording(answer):
    error = answer.error
    message = error["message"]
    will_heal = answer.status in RETRYABLE and answer.header("x-should-retry") != "false"
    if not will_heal:
        assert not RETRY.search(message), f"looks worth a retry: {message}"
    if error["code"] == "context_length_exceeded":
        assert OVERFLOW.search(message) and OVERFLOW_OF_CLAWDBOT.search(message), message
    else:
        assert not OVERFLOW.search(message) and not OVERFLOW_OF_CLAWDBOT.search(message), message
    assert message.strip() == message and len(message) >= 10


CASES = {
    "wrong key": dict(key="wrong"),
    "no key": dict(key=None),
    "too long": dict(content="a" * 50000),
    "long system": dict(messages=[{"role": "system", "content": "s" * 150000}, {"role": "user", "content": "x"}]),
    "unknown model": dict(model="qwen3:500b"),
    "cloud": dict(model="big:429b-cloud"),
    "tools": dict(model="loop", tools=[TOOL]),
    "odd field": dict(max_tokens="500"),
    "odd number": dict(temperature="502"),
    "odd effort": dict(reasoning_effort="server error"),
    "odd role": dict(messages=[{"role": "rate limit", "content": "x"}]),
}


@pytest.mark.parametrize("which", CASES)
def test_what_is_refused_is_not_worth_a_retry(gateway, which):
    assert_wording(gateway.chat(**CASES[which]))


@pytest.mark.parametrize("which", UNFIT)
def test_no_unfit_body_is_worth_a_retry(gateway, which):
    change = UNFIT[which][0]
    body = change if isinstance(change, bytes) else json.dumps({**chat_body(), **change})
    assert_wording(gateway.call("POST", "/v1/chat/completions", body))


@pytest.mark.parametrize("method,path", [("GET", "/500"), ("GET", "/v1/nowhere"), ("PUT", "/v1/chat/completions")])
def test_no_wrong_path_is_worth_a_retry(gateway, method, path):
    assert_wording(gateway.call(method, path))


@pytest.mark.parametrize("head", ["GET / HTTP/9.9\r\n\r\n", "GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
                                  f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
                                  f"Content-Length: {1 << 40}\r\n\r\n"])
def test_nothing_malformed_is_worth_a_retry(gateway, head):
    assert_wording(gateway.wire().send(head).answer("GET"))


OLLAMAS = [
    (400, '{"error":"option 500 must be of type 429"}'),
    (403, '{"error":"ollama cloud is disabled: remote model is unavailable"}'),
    (404, '{"error":"model \'qwen3:500b\' not found"}'),
    (400, '{"error":"rate limit 500 internal error"}'),
]


@pytest.mark.parametrize("status,body", OLLAMAS)
def test_ollamas_own_words_are_not_worth_a_retry_either(gateway, fake, status, body):
    fake.script(status=status, body=body, content_type="application/json")
    assert_wording(gateway.chat())


def test_an_overflow_looks_like_one_and_not_like_a_retry(gateway, fake):
    inner = {"error": {"code": 400, "message": "request (50000 tokens) exceeds the available context size (40960 tokens), try "
                       "increasing it", "type": "exceed_context_size_error", "n_prompt_tokens": 50000, "n_ctx": 40960}}
    fake.script(status=400, body=json.dumps({"error": json.dumps(inner)}), content_type="application/json")
    answer = gateway.chat()
    assert answer.code == "context_length_exceeded"
    assert OVERFLOW.search(answer.error["message"]) and OVERFLOW_OF_CLAWDBOT.search(answer.error["message"])
    assert "40960" in answer.error["message"]


def test_a_model_that_does_not_load_is_not_worth_a_retry(gateway, fake):
    fake.script(status=500, content_type="application/json",
                body='{"error":"model requires more system memory (500.0 GiB) than is available (50.2 GiB)"}')
    assert_wording(gateway.chat())


@pytest.mark.parametrize("do", [{"status": 500, "body": "x", "content_type": "text/plain"}, {"close_before_answer": True}])
def test_what_may_heal_may_be_retried(gateway, fake, do):
    fake.script(times=3, **do)
    answer = gateway.chat()
    assert answer.status in (502, 503)
    assert answer.header("x-should-retry") != "false"


def texts_of_the_table():
    """Every row of the one table of refusals: (name, heals, text)."""
    source = (ROOT / "dataplane" / "refusal" / "refusal.h").read_text(encoding="utf-8")
    source = re.sub(r"\\\n", " ", source)
    rows = re.findall(r'X\(\s*(\w+),\s*\d+,\s*"\w+",\s*"\w+",\s*(true|false),\s*(NULL|(?:"(?:[^"\\]|\\.)*"\s*)+)\)', source)
    return [(name, heals == "true", "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', text))) for name, heals, text in rows]


def test_every_text_of_the_table_is_worded_for_agents():
    rows = texts_of_the_table()
    assert len(rows) > 20 and sum(1 for _, _, text in rows if text) > 15
    for name, heals, text in rows:
        if text and not heals:
            assert not RETRY.search(text), (name, text)
        assert not OVERFLOW.search(text) and not OVERFLOW_OF_CLAWDBOT.search(text), (name, text)


def test_a_request_id_is_made_of_letters_only(gateway):
    for _ in range(20):
        assert re.fullmatch("[a-z]{24}", gateway.chat(key="wrong").error["request_id"])
