"""
What a caller meets, in the order of the contract: a test a row, and the order itself. `checks` below is that
order: a request that fails two of them is answered by the earlier one.
"""

import json
import re
import time

import pytest

from fake import last_line, line
from gateway import KEY, chat_body
from wire import wait_for

LIMITED_KEY = "a-key-with-few-requests"
PLACED_KEY = "a-key-of-one-place"
CHOOSY_KEY = "a-key-for-loop-only"
MAX_BODY = 200_000


@pytest.fixture(scope="module")
def strict_settings():
    return dict(
        whitelist={"enabled": True, "ips": ["127.0.0.1"]},
        trusted_proxies=["127.0.0.1"],
        max_body_bytes=MAX_BODY,
        body_timeout="500ms",
        auth={"valid_keys": [
            KEY,
            {"key": LIMITED_KEY, "name": "limited", "max_requests": 1},
            {"key": PLACED_KEY, "name": "placed", "allow": ["10.1.0.0/16"]},
            {"key": CHOOSY_KEY, "name": "choosy", "models": ["loop"]},
        ]},
        rate_limit={"enabled": True, "max_requests": 100000, "window_seconds": 60},
    )


@pytest.fixture
def strict(start_gateway, strict_settings):
    return start_gateway(**strict_settings)


def test_row_1_a_foreign_address_is_closed_before_a_byte_is_read(strict):
    assert strict.wire(source="127.0.0.2").is_closed()
    strict.wait_log("127\\.0\\.0\\.2")
    assert strict.chat().status == 200


def test_row_1_refused_connections_are_counted_and_logged_once_a_second(strict):
    for _ in range(40):
        assert strict.wire(source="127.0.0.3").is_closed()
    strict.wait_log("127\\.0\\.0\\.3")
    said = [text for text in (strict.log + strict.errors).splitlines() if "127.0.0.3" in text]
    assert len(said) <= 3
    counted = wait_for(lambda: [(name, value) for name, labels, value in strict.metrics()
                                if value >= 40 and ("refused" in name or "reject" in name or "whitelist" in
                                                    json.dumps(labels) or "address" in json.dumps(labels))],
                       what="a count of refused connections")
    assert counted


def test_row_1_one_address_twice_a_second_names_both(strict):
    for source in ("127.0.0.4", "127.0.0.5"):
        assert strict.wire(source=source).is_closed()
        strict.wait_log(source.replace(".", "\\."))


def test_row_2_a_malformed_request_is_400_and_the_connection_closed(gateway):
    wire = gateway.wire().send("GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    answer = wire.answer("GET")
    assert answer.status == 400
    assert answer.header("Connection") == "close"
    assert wire.is_closed()


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/chat", "/v1/chat/completions/", "/v2/models", "/api/pull",
                                  "/api/create", "/api/delete", "/api/blobs/sha256:00", "/api/me", "/debug/pprof/",
                                  "/metrics"])
def test_row_3_an_unknown_path_is_404(gateway, fake, path):
    answer = gateway.get(path)
    assert answer.status == 404
    if path.startswith("/api/"):
        assert set(answer.json) == {"error"} and isinstance(answer.json["error"], str)
    else:
        assert answer.error["message"]
    assert fake.seen(path) == []


@pytest.mark.parametrize("method,path,allowed", [
    ("GET", "/v1/chat/completions", {"POST"}),
    ("PUT", "/chat/completions", {"POST"}),
    ("OPTIONS", "/v1/chat/completions", {"POST"}),
    ("DELETE", "/v1/models", {"GET"}),
    ("POST", "/v1/models/qwen3:32b", {"GET"}),
    ("OPTIONS", "/healthz", {"GET"}),
])
def test_row_3_a_wrong_method_is_405_with_allow(gateway, method, path, allowed):
    answer = gateway.call(method, path)
    assert answer.status == 405
    assert set(re.split(r",\s*", answer.header("Allow"))) - {"HEAD"} == allowed


WRONG_KEYS = {
    "none": {},
    "wrong": {"Authorization": "Bearer nonsense"},
    "empty": {"Authorization": "Bearer "},
    "not a bearer": {"Authorization": "Basic cHJvZC1rZXktMjAyNC1xd2VuMzo="},
    "of 300 bytes": {"Authorization": "Bearer " + "k" * 300},
    "a beginning of a good one": {"Authorization": f"Bearer {KEY[:-1]}"},
    "a good one and more": {"Authorization": f"Bearer {KEY}x"},
    "in another case": {"Authorization": f"Bearer {KEY.upper()}"},
    "wrong, beside a good one in the other header": {"Authorization": "Bearer nonsense", "X-Api-Key": KEY},
}


@pytest.mark.parametrize("which", WRONG_KEYS)
def test_row_4_whatever_is_wrong_with_a_key_is_one_401(gateway, fake, which):
    answer = gateway.chat(key=None, headers=WRONG_KEYS[which])
    assert answer.status == 401
    assert answer.error["message"] == "invalid api key"
    assert answer.code == "invalid_api_key"
    assert fake.seen() == []


def test_row_4_a_key_in_its_own_header_only_sees_the_flat_shape(gateway):
    answer = gateway.chat(key=None, headers={"X-Api-Key": "wrong"})
    assert answer.status == 401
    assert answer.json == {"error": "invalid api key"}


@pytest.mark.parametrize("headers", [{"X-Api-Key": KEY}, {"x-api-key": KEY}, {"Authorization": f"Bearer {KEY}"},
                                     {"authorization": f"bearer {KEY}"}])
def test_row_4_a_good_key_is_taken_from_either_header(gateway, headers):
    assert gateway.chat(key=None, headers=headers).status == 200


def test_row_4_the_request_id_is_in_the_error_and_never_in_the_message(gateway):
    answer = gateway.chat(key="wrong", headers={"X-Request-Id": "trace.A-1_z"})
    assert answer.header("X-Request-Id") == "trace.A-1_z"
    assert answer.error["request_id"] == "trace.A-1_z"
    assert "trace" not in answer.error["message"]


def test_row_5_a_key_of_one_place_is_403_from_another(strict):
    assert strict.chat(key=PLACED_KEY, headers={"X-Forwarded-For": "10.1.2.3"}).status == 200
    answer = strict.chat(key=PLACED_KEY, headers={"X-Forwarded-For": "10.2.2.3"})
    assert (answer.status, answer.code) == (403, "address_not_allowed")
    assert "10." not in answer.error["message"]


def test_row_6_the_31st_in_a_minute_is_429_with_retry_after_60(start_gateway, fake):
    gateway = start_gateway(rate_limit=None)
    for left in range(29, -1, -1):
        answer = gateway.chat()
        assert answer.status == 200
        assert answer.header("x-ratelimit-limit-requests") == "30"
        assert answer.header("x-ratelimit-remaining-requests") == str(left)
    answer = gateway.chat()
    assert answer.status == 429
    assert answer.header("Retry-After") == "60"
    assert answer.code == "rate_limit_exceeded"
    assert answer.header("x-ratelimit-remaining-requests") == "0"
    assert 0 < seconds(answer.header("x-ratelimit-reset-requests")) <= 60
    assert len(fake.seen()) == 30


def seconds(text):
    """Of a duration such as 1s, 59.3s, 6m0s, 120ms."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?", text)
    assert text and match, f"not a duration: {text!r}"
    hours, minutes, secs, ms = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + secs + ms / 1000


def test_row_6_exact_gives_the_seconds_left(start_gateway):
    gateway = start_gateway(rate_limit={"enabled": True, "max_requests": 1, "window_seconds": 600,
                                        "retry_after": "exact"})
    assert gateway.chat().status == 200
    answer = gateway.chat()
    assert answer.status == 429
    assert 595 <= int(answer.header("Retry-After")) <= 601  # the millisecond it ends in counts too


@pytest.mark.timing
def test_row_6_the_window_slides(start_gateway):
    gateway = start_gateway(rate_limit={"enabled": True, "max_requests": 3, "window_seconds": 1})
    began = time.monotonic()
    admitted = []
    while len(admitted) < 9:
        before = time.monotonic()
        if gateway.chat().status == 200:
            admitted.append((before, time.monotonic()))
        assert time.monotonic() < began + 20
    for first, fourth in zip(admitted, admitted[3:]):
        assert fourth[1] - first[0] >= 1, "four within one second"
    assert admitted[-1][1] - admitted[0][0] < 4, "admitted too few"


def test_row_6_keys_have_windows_of_their_own(start_gateway):
    gateway = start_gateway(rate_limit={"enabled": True, "max_requests": 1, "window_seconds": 60},
                            auth={"valid_keys": ["first-key", "second-key"]})
    assert gateway.chat(key="first-key").status == 200
    assert gateway.chat(key="first-key").status == 429
    assert gateway.chat(key="second-key").status == 200


def test_row_6_refused_requests_consume_nothing(start_gateway):
    gateway = start_gateway(rate_limit={"enabled": True, "max_requests": 1, "window_seconds": 60}, max_body_bytes=9999)
    for _ in range(3):
        assert gateway.chat(model="nobody-knows").status == 404
        assert gateway.chat(messages=[]).status == 400
        assert gateway.chat(temperature="hot").status == 400
        assert gateway.chat("a" * 10000).status == 413
        assert gateway.call("POST", "/v1/chat/completions", "{").status == 400
        assert gateway.chat(key="wrong").status == 401
    assert gateway.chat().status == 200
    assert gateway.chat().status == 429


def test_row_7_an_announced_body_over_the_limit_is_413_at_once(strict, fake):
    wire = strict.wire().send("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                              f"Authorization: Bearer {KEY}\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n")
    answer = wire.answer()
    assert answer.status == 413
    assert answer.error["message"]
    assert fake.seen() == []


def test_row_7_a_chunked_body_over_the_limit_is_413(strict):
    wire = strict.wire().send("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                              f"Authorization: Bearer {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(9):
        wire.send_as_far_as_possible(b"8000\r\n" + b" " * 0x8000 + b"\r\n")
    assert wire.answer().status == 413


def test_row_7_a_body_of_the_limit_is_served(strict):
    body = json.dumps(chat_body()).encode()
    assert strict.call("POST", "/v1/chat/completions", body + b" " * (MAX_BODY - len(body))).status == 200


@pytest.mark.parametrize("sent", [b"", b'{"model":"qwen3:32b"'])
def test_row_8_a_body_that_stops_halfway_is_408(strict, sent):
    wire = strict.wire().send("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                              f"Authorization: Bearer {KEY}\r\nContent-Length: 400\r\n\r\n", sent)
    answer = wire.answer()
    assert answer.status == 408
    assert wire.is_closed()


USER = {"role": "user", "content": "hi"}
UNFIT = {
    # name: (body or changes, the field that `param` names; None: any)
    "not JSON": (b"this is no JSON", None),
    "an array": (b"[]", None),
    "nothing": (b"", None),
    "half": (b'{"model":"qwen3:32b","messages":[{"role":"user","content":"hi', None),
    "two values": (json.dumps(chat_body()).encode() + b"{}", None),
    "bad UTF-8": (b'{"model":"qwen3:32b","messages":[{"role":"user","content":"\xff\xfe"}]}', None),
    "half a surrogate pair": (b'{"model":"qwen3:32b","messages":[{"role":"user","content":"\\ud800"}]}', None),
    "random bytes": (bytes(range(256)) * 4, None),
    "a key twice": (b'{"model":"qwen3:32b","model":"qwen3:32b","messages":[{"role":"user","content":"hi"}]}', "model"),
    "a key twice in another case": (b'{"model":"qwen3:32b","Model":"slow","messages":[{"role":"user","content":"hi"}]}',
                                    None),
    "a role twice": (b'{"model":"qwen3:32b","messages":[{"role":"user","role":"system","content":"hi"}]}', "messages"),
    "deep nesting": (b'{"model":"qwen3:32b","x":' + b"[" * 100000 + b"]" * 100000 + b"}", None),
    "no model": ({"model": None}, "model"),
    "model empty": ({"model": ""}, "model"),
    "model a number": ({"model": 5}, "model"),
    "no messages": ({"messages": "REMOVE"}, "messages"),
    "messages empty": ({"messages": []}, "messages"),
    "messages an object": ({"messages": {}}, "messages"),
    "a message a string": ({"messages": ["hi"]}, "messages"),
    "role missing": ({"messages": [{"content": "hi"}]}, "messages"),
    "role unknown": ({"messages": [{"role": "wizard", "content": "hi"}]}, "messages"),
    "content a number": ({"messages": [{"role": "user", "content": 5}]}, "messages"),
    "content missing": ({"messages": [{"role": "user"}]}, "messages"),
    "a part of unknown kind": ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "messages"),
    "a file": ({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, "messages"),
    "an image by address": ({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}]}]}, "messages"),
    "an image that is none": ({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,!!!"}}]}]}, "messages"),
    "arguments not an object": ({"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "[1]"}}]}]}, "messages"),
    "temperature a string": ({"temperature": "hot"}, "temperature"),
    "temperature beyond a double": (b'{"model":"qwen3:32b","messages":[{"role":"user","content":"hi"}],"temperature":1e999}',
                                    None),
    "top_p a list": ({"top_p": []}, "top_p"),
    "max_tokens a half": ({"max_tokens": 1.5}, "max_tokens"),
    "max_tokens huge": ({"max_tokens": 1e300}, "max_tokens"),
    "max_completion_tokens a string": ({"max_completion_tokens": "8"}, "max_completion_tokens"),
    "stream a string": ({"stream": "yes"}, "stream"),
    "stop with a number": ({"stop": ["a", 2]}, "stop"),
    "seed a string": ({"seed": "x"}, "seed"),
    "two choices": ({"n": 2}, "n"),
    "top_logprobs over 20": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    "unknown response format": ({"response_format": {"type": "poem"}}, "response_format"),
    "a schema that is no object": ({"response_format": {"type": "json_schema", "json_schema": {"schema": 1}}},
                                   "response_format"),
    "unknown effort": ({"reasoning_effort": "extreme"}, "reasoning_effort"),
    "a tool of unknown type": ({"tools": [{"type": "magic"}]}, "tools"),
    "functions of old": ({"functions": [{"name": "f"}]}, "functions"),
}


@pytest.mark.parametrize("which", UNFIT)
def test_row_9_an_unfit_body_is_400_naming_the_field(gateway, fake, which):
    change, param = UNFIT[which]
    if isinstance(change, dict):
        body = {**chat_body(), **change}
        body = {key: value for key, value in body.items() if value != "REMOVE" and (key, value) != ("model", None)}
        change = json.dumps(body)
    answer = gateway.call("POST", "/v1/chat/completions", change)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert len(answer.error["message"]) > 10
    if param:
        assert (answer.error["param"] or "").startswith(param), answer
    assert fake.seen() == [], "a refused request reached Ollama"


def test_row_10_a_hundred_thousand_characters_are_too_long(gateway, fake):
    answer = gateway.chat("a" * 100000)
    assert answer.status == 400
    assert answer.error["message"].startswith("prompt too long, max 32768 chars")
    assert "the prompt is too long" in answer.error["message"]
    assert answer.code == "context_length_exceeded"
    assert fake.seen() == []


@pytest.mark.parametrize("letter", ["a", "é", "世", "🚀", "\n"])
def test_row_10_characters_are_code_points(gateway, letter):
    assert gateway.chat(letter * 32768).status == 200
    assert gateway.chat(letter * 32769).status == 400


def test_row_10_user_assistant_and_tool_texts_count_together(gateway):
    def messages(last):
        return [{"role": "system", "content": "s" * 40000},
                {"role": "user", "content": [{"type": "text", "text": "a" * 10000}]},
                {"role": "assistant", "content": "b" * 10000, "reasoning": "not counted " * 1000, "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps(
                        {"text": "not counted " * 1000})}}]},
                {"role": "tool", "tool_call_id": "c", "content": "c" * 10000},
                {"role": "user", "content": "d" * last}]
    tools = [{"type": "function", "function": {"name": "f", "description": "not counted " * 1000}}]
    assert gateway.chat(messages=messages(2768), tools=tools).status == 200
    assert gateway.chat(messages=messages(2769), tools=tools).status == 400


def test_row_10_system_texts_count_apart(gateway):
    def messages(count):
        return [{"role": "system", "content": "s" * 100000}, {"role": "developer", "content": "d" * count}, USER]
    assert gateway.chat(messages=messages(31072)).status == 200
    answer = gateway.chat(messages=messages(31073))
    assert (answer.status, answer.code) == (400, "context_length_exceeded")


def test_row_10_zero_turns_the_cap_off(start_gateway):
    gateway = start_gateway(max_prompt_chars=0, max_system_chars=0)
    assert gateway.chat("a" * 100000).status == 200
    assert gateway.chat(messages=[{"role": "system", "content": "s" * 150000}, USER]).status == 200


@pytest.mark.parametrize("model,status,code", [
    ("nobody-knows", 404, "model_not_found"),
    ("qwen3:33b", 404, "model_not_found"),
    ("gpt-oss:120b-cloud", 404, "model_not_found"),
    ("qwen3:cloud", 404, "model_not_found"),
    ("QWEN3:CLOUD", 404, "model_not_found"),
])
def test_row_11_an_unknown_model_is_404(gateway, fake, model, status, code):
    answer = gateway.chat(model=model)
    assert (answer.status, answer.code) == (status, code)
    assert answer.header("x-should-retry") == "false"
    assert fake.seen() == []


def test_row_11_a_model_that_the_key_may_not_use_is_403(strict, fake):
    answer = strict.chat(key=CHOOSY_KEY)
    assert (answer.status, answer.code) == (403, "model_not_allowed")
    assert fake.seen() == []
    assert strict.chat("say:yes", key=CHOOSY_KEY, model="loop").status == 200


@pytest.mark.parametrize("model", ["qwen3:32b", "QWEN3:32B", "loop", "loop:latest", "Loop"])
def test_row_11_names_match_in_lower_case_with_latest_added(gateway, model):
    answer = gateway.chat("say:yes", model=model)
    assert answer.status == 200
    assert answer.json["model"] == model


TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}


def test_row_12_tools_on_a_model_without_them_are_400(gateway):
    answer = gateway.chat(model="loop", tools=[TOOL])
    assert (answer.status, answer.code) == (400, "unsupported")
    assert "tools" in answer.error["message"]
    assert "registry" not in answer.text


def test_row_13_the_rate_is_taken_once_the_body_is_judged(start_gateway, fake):
    gateway = start_gateway(rate_limit={"enabled": True, "max_requests": 1, "window_seconds": 60})
    body = json.dumps(chat_body()).encode()
    wires = [gateway.wire().send("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                                 f"Authorization: Bearer {KEY}\r\nExpect: 100-continue\r\n"
                                 f"Content-Length: {len(body)}\r\n\r\n") for _ in range(2)]
    for wire in wires:
        assert wire.head().status == 100
    assert wires[0].send(body).answer().status == 200
    answer = wires[1].send(body).answer()
    assert (answer.status, answer.code) == (429, "rate_limit_exceeded")
    assert answer.header("Retry-After") == "60"
    assert len(fake.seen()) == 1


def test_row_13_what_was_taken_stays_taken(start_gateway, fake):
    gateway = start_gateway(rate_limit={"enabled": True, "max_requests": 1, "window_seconds": 60})
    fake.script(status=500, body="boom", content_type="text/plain")
    assert gateway.chat().status == 502
    assert gateway.chat().status == 429


@pytest.mark.timing
def test_row_16_a_dead_ollama_is_503_within_3_2_seconds(start_gateway, start_fake):
    ollama = start_fake()
    gateway = start_gateway(ollama)
    ollama.kill()
    began = time.monotonic()
    answer = gateway.chat()
    assert time.monotonic() - began < 3.2
    assert (answer.status, answer.code) == (503, "backend_unavailable")
    assert int(answer.header("Retry-After")) >= 1
    assert "127.0.0.1" not in answer.text and str(ollama.port) not in answer.text


def test_row_17_a_busy_ollama_is_waited_for(start_gateway, fake):
    gateway = start_gateway(first_token_timeout="10s")
    fake.script(head_delay_ms=3500)
    assert gateway.chat().status == 200


def test_row_17_over_first_token_timeout_is_504(start_gateway, fake):
    gateway = start_gateway(first_token_timeout="500ms")
    fake.script(silent=True)
    answer = gateway.chat()
    assert answer.status == 504
    assert answer.error["message"]
    assert len(fake.wait_chats(1, "aborted")) == 1


def test_row_18_a_refusal_by_ollama_keeps_its_status_and_loses_its_paths(gateway, fake):
    fake.script(status=400, content_type="application/json; charset=utf-8",
                body='{"error":"registry.ollama.ai/library/qwen3:32b does not support vision"}')
    answer = gateway.chat()
    assert answer.status == 400
    assert "does not support vision" in answer.error["message"]
    assert "registry.ollama.ai" not in answer.text


@pytest.mark.parametrize("transcript", ["error-overflow", "error-overflow-stream"])
def test_row_18_an_overflow_is_told_as_openai_tells_it(gateway, fake, transcript):
    fake.script(transcript=transcript)
    answer = gateway.chat(stream=transcript.endswith("stream") or None)
    assert answer.status == 400
    assert answer.code == "context_length_exceeded"
    assert answer.error["type"] == "invalid_request_error"
    assert "maximum context length is 2048 tokens" in answer.error["message"]
    assert "6020" in answer.error["message"]


def test_row_19_a_model_that_does_not_load_is_503_and_not_to_be_retried(gateway, fake):
    fake.script(status=500, content_type="application/json; charset=utf-8",
                body='{"error":"llama runner process has terminated: exit status 2 error loading model /a/b/sha256-1"}')
    answer = gateway.chat()
    assert (answer.status, answer.code) == (503, "model_load_failed")
    assert answer.header("x-should-retry") == "false"


@pytest.mark.parametrize("status", [500, 501, 502])
def test_row_20_any_other_failure_of_ollama_is_502(gateway, fake, status):
    fake.script(status=status, content_type="text/html", body="<html><body>goroutine 1 [running]: main.go:17</body></html>")
    answer = gateway.chat()
    assert (answer.status, answer.code) == (502, "upstream_error")
    assert "goroutine" not in answer.text and "html" not in answer.text


def test_row_21_a_failure_after_the_status_is_one_event_and_the_end(gateway, fake):
    fake.script_lines(line("Hello"), {"error": "an error was encountered while running the model: unexpected EOF"})
    wire = gateway.open_chat(stream=True)
    answer = wire.answer(may_be_cut=True)
    assert answer.status == 200
    assert answer.content == "Hello"
    assert answer.stream_error["message"]
    assert answer.finish is None and not answer.is_done
    assert wire.is_closed()


# --- the order ------------------------------------------------------------------------------------------------

LONG = "a" * 40000


class Request:
    """A request with several faults; each fault changes it in one place."""

    def __init__(self):
        self.method, self.path, self.key = "POST", "/v1/chat/completions", KEY
        self.address = "10.1.2.3"
        self.extra = ""
        self.length = None
        self.body = chat_body()
        self.raw_body = None
        self.is_cut = False

    def send(self, gateway):
        body = self.raw_body if self.raw_body is not None else json.dumps(self.body).encode()
        length = len(body) if self.length is None else self.length
        wire = gateway.wire()
        wire.send_as_far_as_possible(
            f"{self.method} {self.path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {self.key}\r\n"
            f"X-Forwarded-For: {self.address}\r\nContent-Type: application/json\r\n{self.extra}"
            f"Content-Length: {length}\r\n\r\n".encode() + (body[:len(body) // 2] if self.is_cut else body))
        return wire.answer(self.method)


def malformed(r):
    r.extra += "Host: b\r\n"


def nowhere(r):
    r.path = "/nowhere"


def wrong_method(r):
    r.method = "PUT"


def wrong_key(r):
    r.key = "wrong"


def wrong_place(r):
    r.key, r.address = PLACED_KEY, "10.9.9.9"


def over_rate(r):
    r.key = LIMITED_KEY


def announced_too_big(r):
    r.length = MAX_BODY + 1


def slow_body(r):
    r.is_cut = True


def not_json(r):
    r.raw_body = b"{" + json.dumps(r.body).encode()


def bad_field(r):
    r.body["temperature"] = "hot"


def too_long(r):
    r.body["messages"] = [{"role": "user", "content": LONG}]


def unknown_model(r):
    r.body["model"] = "nobody-knows"


def cannot(r):
    r.body["model"] = "loop"
    r.body["tools"] = [TOOL]


# Each pair: the earlier check, what it answers, the later check.
ORDER = [
    (malformed, 400, nowhere), (malformed, 400, wrong_key),
    (nowhere, 404, wrong_key), (wrong_method, 405, wrong_key), (nowhere, 404, announced_too_big),
    (wrong_key, 401, announced_too_big), (wrong_key, 401, not_json), (wrong_key, 401, slow_body),
    (wrong_place, 403, announced_too_big), (wrong_place, 403, bad_field),
    (over_rate, 429, announced_too_big), (over_rate, 429, slow_body), (over_rate, 429, not_json),
    (over_rate, 429, too_long), (over_rate, 429, unknown_model),
    (announced_too_big, 413, slow_body), (announced_too_big, 413, not_json),
    (slow_body, 408, bad_field),
    (bad_field, "temperature", too_long), (bad_field, "temperature", unknown_model),
    (too_long, "context_length_exceeded", unknown_model), (too_long, "context_length_exceeded", cannot),
]


@pytest.mark.parametrize("first,answered,second", ORDER,
                         ids=[f"{first.__name__} before {second.__name__}" for first, _, second in ORDER])
def test_the_earlier_check_answers(shared_strict, first, answered, second):
    request = Request()
    second(request)
    first(request)
    answer = request.send(shared_strict)
    if isinstance(answered, int):
        assert answer.status == answered
    else:
        assert answer.status == 400 and answered in (answer.error["param"], answer.code), answer


@pytest.fixture(scope="module")
def shared_strict(session_fake, strict_settings):
    """One gateway for all the pairs, with the window of LIMITED_KEY full already."""
    from conftest import short_folder
    from gateway import Gateway
    with short_folder() as path:
        gateway = Gateway(path, session_fake.url, **strict_settings)
        assert gateway.chat(key=LIMITED_KEY).status == 200
        yield gateway
        gateway.stop()


def test_a_full_rate_does_not_hide_a_wrong_place(start_gateway, strict_settings):
    settings = dict(strict_settings, rate_limit={"enabled": True, "max_requests": 1, "window_seconds": 60})
    gateway = start_gateway(**settings)
    assert gateway.chat(key=PLACED_KEY, headers={"X-Forwarded-For": "10.1.0.1"}).status == 200
    assert gateway.chat(key=PLACED_KEY, headers={"X-Forwarded-For": "10.1.0.1"}).status == 429
    assert gateway.chat(key=PLACED_KEY, headers={"X-Forwarded-For": "10.2.0.1"}).status == 403


# --- every answer ---------------------------------------------------------------------------------------------

def test_every_answer_has_a_request_id_of_24_letters(gateway):
    for answer in (gateway.get("/nowhere"), gateway.chat(), gateway.get("/healthz"), gateway.chat(key="wrong")):
        assert re.fullmatch("[a-z]{24}", answer.header("X-Request-Id")), answer


@pytest.mark.parametrize("sent", ["", "a" * 65, "with space", "semi;colon", "sl/ash", "ünï"])
def test_a_request_id_that_is_not_sane_is_replaced(gateway, sent):
    answer = gateway.chat(headers={"X-Request-Id": sent})
    assert re.fullmatch("[a-z]{24}", answer.header("X-Request-Id"))


@pytest.mark.parametrize("make", ["backend", "load", "busy"])
def test_a_browser_gets_a_friendly_page_for_5xx(start_gateway, fake, make):
    gateway = start_gateway(first_token_timeout="300ms")
    if make == "busy":
        fake.script(silent=True)
    elif make == "load":
        fake.script(status=500, content_type="application/json", body='{"error":"llama runner process has terminated"}')
    else:
        fake.script(status=500, content_type="text/plain", body="boom")
    answer = gateway.chat(headers={"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"})
    assert answer.status >= 500
    assert answer.header("Content-Type").startswith("text/html")
    assert "<" in answer.text and "boom" not in answer.text


def test_a_browser_gets_json_for_4xx(gateway):
    answer = gateway.chat(key="wrong", headers={"Accept": "text/html"})
    assert answer.status == 401
    assert answer.header("Content-Type").startswith("application/json")


def test_no_error_names_the_backend(gateway, fake):
    for do in ({"status": 500, "body": "x"}, {"raw": "AAAA", "keep": False}, {"reset_after_bytes": 10},
               {"close_before_answer": True}):
        fake.script(**do)
        text = gateway.chat().text
        assert "127.0.0.1" not in text and str(fake.port) not in text and "ollama" not in text.lower()


def test_after_a_refused_request_the_connection_serves_the_next(gateway, fake):
    wire = gateway.wire()
    bearer = [("Authorization", f"Bearer {KEY}")]
    for body, status in (({}, 400), (chat_body(model="nope"), 404), (chat_body(), 200)):
        assert wire.request("POST", "/v1/chat/completions", bearer, body).answer().status == status
    fake.script_lines(line("x"), last_line())
    assert wire.request("POST", "/v1/chat/completions", bearer, chat_body(stream=True)).answer().content == "x"
