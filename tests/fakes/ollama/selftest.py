#!/usr/bin/env python3
"""Checks fake-ollama against what a real Ollama answered, and every control verb.

    selftest.py PATH/TO/fake-ollama [part of a test's name]

Standard library only. Starts the fake itself, on ports of its own. The last line is "N passed, N failed".
"""
import base64
import calendar
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
TRANSCRIPTS = HERE.parent / "ollama-transcripts"
TESTS = []


def test(function):
    TESTS.append(function)
    return function


class Fake:
    def __init__(self, *options):
        self.process = subprocess.Popen([PROGRAM, "--quiet", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        line = self.process.stdout.readline().decode()
        match = re.fullmatch(r"listening (\S+):(\d+) control (none|\S+:(\d+))\n", line)
        assert match, f"no ready line but {line!r} {self.process.stderr.read() if not line else ''}"
        self.port = int(match[2])
        self.control_port = int(match[4]) if match[4] else None

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        error = self.process.stderr.read().decode()
        code = self.process.wait(20)
        assert code == 0, f"exit {code}: {error}"
        assert not error, error

    def control(self, method, path, body=None, status=200):
        answer = ask(self.control_port, request(method, path, None if body is None else json.dumps(body)))
        assert answer.status == status, (answer.status, answer.body)
        return json.loads(answer.body)

    def script(self, times=1, path="/api/chat", **do):
        self.control("POST", "/script", {"path": path, "times": times, "do": do})

    def set(self, **settings):
        self.control("POST", "/set", settings)

    def stats(self):
        return self.control("GET", "/stats")

    def seen(self, path="/api/chat"):
        return self.control("GET", f"/seen?path={path}")["requests"]

    def wait(self, **counts):
        query = "&".join(f"{key}={value}" for key, value in {"timeout_ms": 10000, **counts}.items())
        return self.control("GET", f"/wait?{query}")

    def reset(self):
        self.control("POST", "/reset", {"settings": True})


class Answer:
    pass


def request(method, path, body=None, headers=(), host="127.0.0.1:11434"):
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    body = body.encode() if isinstance(body, str) else body
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


def chat(content="hi", **more):
    return json.dumps({"model": "qwen3:32b", "messages": [{"role": "user", "content": content}], **more})


class Peer:
    """A client that reads HTTP strictly and can be rude."""

    def __init__(self, port, data=b""):
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.buffer = bytearray()
        self.raw = bytearray()
        self.pieces = []
        if data:
            self.socket.sendall(data)

    def more(self):
        got = self.socket.recv(65536)
        self.buffer += got
        self.raw += got
        self.pieces.append(len(got))
        return got

    def take(self, size):
        while len(self.buffer) < size:
            assert self.more(), f"closed after {self.raw!r}"
        taken = bytes(self.buffer[:size])
        del self.buffer[:size]
        return taken

    def line(self):
        while b"\r\n" not in self.buffer:
            assert self.more(), f"closed after {self.raw!r}"
        line = self.take(self.buffer.index(b"\r\n"))
        self.take(2)
        return line.decode()

    def head(self):
        answer = Answer()
        answer.version, status, _ = self.line().split(" ", 2)
        answer.status = int(status)
        answer.headers = []
        while line := self.line():
            name, colon, value = line.partition(": ")
            assert colon, line
            answer.headers.append((name, value))
        answer.chunks = []
        answer.body = b""
        return answer

    def chunk(self):
        data = self.take(int(self.line(), 16))
        assert self.take(2) == b"\r\n"
        return data

    def answer(self, is_head=False):
        answer = self.head()
        headers = {name.lower(): value for name, value in answer.headers}
        if is_head:
            return answer
        if headers.get("transfer-encoding") == "chunked":
            while chunk := self.chunk():
                answer.chunks.append(chunk)
            answer.body = b"".join(answer.chunks)
        elif "content-length" in headers:
            answer.body = self.take(int(headers["content-length"]))
        else:
            while self.more():
                pass
            answer.body = self.take(len(self.buffer))
        return answer

    def rest(self):
        """Everything until the end; (bytes, "fin" or "reset")."""
        try:
            while self.more():
                pass
        except ConnectionResetError:
            return bytes(self.raw), "reset"
        return bytes(self.raw), "fin"

    def is_quiet(self, seconds=0.15):
        self.socket.settimeout(seconds)
        try:
            return not self.buffer and self.socket.recv(65536) is None
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(10)

    def close(self):
        self.socket.close()


def ask(port, data, is_head=False):
    peer = Peer(port, data)
    try:
        return peer.answer(is_head)
    finally:
        peer.close()


def post(fake, body, path="/api/chat"):
    return ask(fake.port, request("POST", path, body))


def lines(answer):
    return [json.loads(line) for line in answer.body.decode().splitlines()]


def content(answer):
    return "".join(line["message"]["content"] for line in lines(answer))


def equal(got, wanted, what=""):
    assert got == wanted, f"{what}\n   got {got!r}\nwanted {wanted!r}"


# --- the transcripts ---

VARYING = [
    (rb'"created_at":"[^"]*"', b'"created_at":"T"'),
    (rb'"expires_at":"[^"]*"', b'"expires_at":"T"'),
    (rb'_duration":\d+', b'_duration":1'),
    (rb'"id":"call_[a-z0-9]{8}"', b'"id":"call_X"'),
]


def normal(data):
    for pattern, by in VARYING:
        data = re.sub(pattern, by, data)
    return data


def shape(answer):
    headers = [(n, "V" if n in ("Date", "Content-Length") else v) for n, v in answer.headers if n != "Connection"]
    return answer.version, answer.status, headers, [normal(c) for c in answer.chunks], normal(answer.body)


def recorded(name):
    """(method, path, body, raw answer) of a transcript; the shortened bodies are made whole again."""
    file = (TRANSCRIPTS / f"{name}.http").read_bytes()
    first, second, answer = file.split(b"\n", 2)
    _, method, path = first.decode().split(" ")
    body = second[2:].decode()
    if body.endswith(" bytes)"):
        length = int(re.search(r"\((\d+) bytes\)", body)[1])
        start = body[: body.index("a" * 3)] + "a" * 3
        body = start[:-3] + "a" * (length - len(start) + 3 - len('"}]}')) + '"}]}'
        assert len(body) == length
    return method, path, body, answer


class Recording(Peer):
    def __init__(self, data):
        self.buffer = bytearray(data)
        self.raw = data

    def more(self):
        return b""


def check_transcript(fake, name):
    method, path, body, raw = recorded(name)
    if name == "chat-stream-runner-dies":
        fake.script(error_after_tokens={"n": 3}, token_ms=1)
    if name == "ps":
        fake.set(residents=[{"name": model, "size_vram": 0} for model in ("slow", "loop")])  # it had no graphics card
        for model in ("slow", "loop"):
            post(fake, json.dumps({"model": model, "messages": []}))
    wanted = Recording(raw).answer()
    got = ask(fake.port, request(method, path, body if method == "POST" else None))
    equal(shape(got), shape(wanted), name)
    assert not any(n == "Connection" for n, _ in got.headers), "a real answer keeps the connection"


@test
def the_recorded_answers_are_given_again(fake):
    fake = Fake("--num-ctx", "2048", "--token-bytes", "1")
    names = sorted(path.stem for path in TRANSCRIPTS.glob("*.http"))
    equal(len(names), 33)
    names.sort(key=lambda name: name != "ps")
    for name in names:
        check_transcript(fake, name)
    equal(fake.stats()["malformed"], 0)
    fake.stop()


@test
def a_script_serves_a_recording_byte_for_byte(fake):
    for path in sorted(TRANSCRIPTS.glob("*.http")):
        fake.script(transcript=path.stem)
        got, how = Peer(fake.port, request("POST", "/api/chat", chat())).rest()
        equal((got, how), (recorded(path.stem)[3], "fin"), path.stem)


@test
def a_recording_can_keep_the_connection(fake):
    fake.script(times=2, transcript="chat-plain", keep=True)
    peer = Peer(fake.port)
    for _ in range(2):
        peer.socket.sendall(request("POST", "/api/chat", chat()))
        answer = peer.answer()
        assert "Connection" not in dict(answer.headers)
        assert answer.body.startswith(b'{"model":"qwen3:32b"')


# --- what is asked is what is answered ---

@test
def say_comes_back_in_small_pieces_at_character_boundaries(fake):
    text = 'a <b> & "c" \\ \u4f60\u597d\u2028\U0001f680\x01\n' * 20
    streamed = post(fake, chat("say:" + text))
    equal(content(streamed), text)
    assert all(len(line["message"]["content"].encode()) <= 8 for line in lines(streamed))
    assert b"\\u003cb\\u003e \\u0026" in post(fake, chat("say:" + text, stream=False)).body
    assert b"\\u2028" in streamed.body
    equal(json.loads(post(fake, chat("say:" + text, stream=False)).body)["message"]["content"], text)


@test
def tokens_gives_that_many_pieces(fake):
    got = lines(post(fake, chat("tokens:5")))
    equal([line["message"]["content"] for line in got], [" r0", " r1", " r2", " r3", " r4", ""])
    equal((got[-1]["done_reason"], got[-1]["eval_count"]), ("stop", 5))
    got = lines(post(fake, chat("tokens:5", options={"num_predict": 2})))
    equal((len(got), got[-1]["done_reason"], got[-1]["eval_count"]), (3, "length", 2))


@test
def tokens_can_be_paced_by_the_prompt(fake):
    began = time.monotonic()
    post(fake, chat("tokens:6@20"))
    assert 0.09 < time.monotonic() - began < 2
    began = time.monotonic()
    post(fake, chat("tokens:2@20+200"))
    assert 0.21 < time.monotonic() - began < 2


@test
def keys_match_in_any_case_and_the_last_duplicate_wins(fake):
    got = post(fake, '{"model":"nope","MODEL":"qwen3:32b","Messages":[{"ROLE":"user","Content":"say:x"}],"strEAM":false}')
    equal(json.loads(got.body)["message"]["content"], "x")
    got = post(fake, '{"model":"qwen3:32b","Model":"nope","messages":[]}')
    equal(json.loads(got.body), {"error": "model 'nope' not found"})


@test
def a_tool_call_uses_the_tool_that_was_given(fake):
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {
        "a": {"type": "integer"}, "unit": {"type": "string", "enum": ["C", "F"]}}}}}]
    call = json.loads(post(fake, chat(tools=tools, stream=False)).body)["message"]["tool_calls"][0]
    equal(call["function"], {"index": 0, "name": "add", "arguments": {"a": 0, "unit": "C"}})
    history = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "", "tool_calls": [call]},
               {"role": "tool", "content": "3", "tool_name": "add"}]
    got = post(fake, json.dumps({"model": "qwen3:32b", "messages": history, "tools": tools, "stream": False}))
    assert "tool_calls" not in json.loads(got.body)["message"], "after the result it speaks"


@test
def structured_output_fits_the_schema(fake):
    schema = {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}, "list": {"type": "array", "items": {
        "type": "string"}}, "ok": {"type": ["null", "boolean"]}}, "$defs": {"n": {"type": "number", "minimum": 3}}}
    got = json.loads(post(fake, chat(format=schema, stream=False, think=False)).body)
    equal(json.loads(got["message"]["content"]), {"n": 3, "list": ["text"], "ok": True})
    got = json.loads(post(fake, chat(format="json", stream=False, think=False)).body)
    equal(json.loads(got["message"]["content"]), {"answer": 42})


@test
def logprobs_are_gathered_when_not_streaming(fake):
    got = json.loads(post(fake, chat(logprobs=True, top_logprobs=1, stream=False, think=False)).body)
    equal(len(got["logprobs"]), 16)
    equal(got["logprobs"][0], {"token": "Hello", "logprob": 0, "bytes": [72, 101, 108, 108, 111],
                               "top_logprobs": [{"token": "Hello", "logprob": 0, "bytes": [72, 101, 108, 108, 111]}]})


@test
def a_long_answer_goes_chunked_as_go_does(fake):
    for size, encoding in ((100, "Content-Length"), (3000, "Transfer-Encoding")):
        assert encoding in dict(post(fake, chat("say:" + "x" * size, stream=False)).headers)


@test
def loop_ends_without_a_final_line_and_slow_goes_on(fake):
    got = lines(post(fake, chat(model="loop")))
    equal((len(got), {line["done"] for line in got}), (31, {False}))
    got = json.loads(post(fake, chat(model="loop", stream=False)).body)
    equal((got["done"], "eval_count" in got), (False, False))
    fake.script(token_ms=1)
    got = lines(post(fake, chat(model="slow", options={"num_predict": 3})))
    equal([line["message"]["content"] for line in got], [" r0", " r1", " r2", ""])


@test
def generate_streams_and_answers_whole(fake):
    got = json.loads(post(fake, json.dumps({"model": "qwen3:32b", "prompt": "say:x", "stream": False}), "/api/generate").body)
    equal((got["response"], got["done_reason"]), ("x", "stop"))
    got = json.loads(post(fake, json.dumps({"model": "qwen3:32b"}), "/api/generate").body)
    equal((got["response"], got["done_reason"]), ("", "load"))


TOOL = '{"type":"function","function":{"name":"a","parameters":%s}}'
REFUSED = [
    ('', 400, "missing request body"),
    ('  \n', 400, "missing request body"),
    ('{', 400, "unexpected EOF"),
    ('{"model":x', 400, "invalid character 'x' looking for beginning of value"),
    ('{"model" "x"}', 400, "invalid character '\"' after object key"),
    ('{"a":1 "b":2}', 400, "invalid character '\"' after object key:value pair"),
    ('{"a":[1 2]}', 400, "invalid character '2' after array element"),
    ('{"a":"\n"}', 400, "invalid character '\\n' in string literal"),
    ('{"a":"\\x"}', 400, "invalid character 'x' in string escape code"),
    ('{"a":tru0}', 400, "invalid character '0' in literal true (expecting 'e')"),
    ('{"a":1.}', 400, "invalid character '}' after decimal point in numeric literal"),
    ('{,}', 400, "invalid character ',' looking for beginning of object key string"),
    ('[' * 10001, 400, "exceeded max depth"),
    ('[]', 400, "json: cannot unmarshal array into Go value of type api.ChatRequest"),
    ('{"model":5}', 400, "json: cannot unmarshal number into Go struct field ChatRequest.model of type string"),
    ('{"model":"qwen3:32b","stream":"no"}', 400,
     "json: cannot unmarshal string into Go struct field ChatRequest.stream of type bool"),
    ('{"model":"qwen3:32b","options":[]}', 400,
     "json: cannot unmarshal array into Go struct field ChatRequest.options of type map[string]interface {}"),
    ('{"model":"qwen3:32b","top_logprobs":1.5}', 400,
     "json: cannot unmarshal number 1.5 into Go struct field ChatRequest.top_logprobs of type int"),
    ('{"model":"qwen3:32b","messages":[{"content":["x"]}]}', 400,
     "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type string"),
    ('{"model":"qwen3:32b","messages":[{"role":"assistant","tool_calls":[{"function":{"name":5}}]}]}', 400,
     "json: cannot unmarshal number into Go struct field ChatRequest.messages.tool_calls.function.name of type string"),
    ('{"model":"qwen3:32b","messages":[{"role":"assistant","tool_calls":[{"function":{"arguments":"{}"}}]}]}', 400,
     "Value looks like object, but can't find closing '}' symbol"),
    ('{"model":"qwen3:32b","messages":[{"images":["!!!"]}]}', 400, "illegal base64 data at input byte 0"),
    ('{"model":"qwen3:32b","messages":[{"images":["QUJD","QUI"]}]}', 400, "illegal base64 data at input byte 0"),
    ('{"model":"qwen3:32b","tools":[' + TOOL % '{"type":"object","required":"x"}' + ']}', 400,
     "json: cannot unmarshal string into Go struct field ToolFunctionParameters.tools.function.parameters.required"
     " of type []string"),
    ('{"model":"qwen3:32b","tools":[' + TOOL % '{"type":"object","required":[1]}' + ']}', 400,
     "json: cannot unmarshal number into Go struct field ToolFunctionParameters.tools.function.parameters.required"
     " of type string"),
    ('{"model":"qwen3:32b","tools":[' + TOOL % '{"type":"object","properties":{"x":true}}' + ']}', 400,
     "json: cannot unmarshal bool into Go struct field ToolFunctionParameters.tools.function.parameters.properties"
     " of type api.ToolProperty"),
    ('{"model":"qwen3:32b","think":"very"}', 400,
     'invalid think value: "very" (must be "high", "medium", "low", "max", true, or false)'),
    ('{"model":"qwen3:32b","keep_alive":"soon"}', 400, 'time: invalid duration "soon"'),
    ('{"model":"qwen3:32b","top_logprobs":21}', 400, "top_logprobs must be between 0 and 20"),
    ('{"model":""}', 400, "model is required"),
    ('{"model":"x:cloud","messages":[]}', 403, "ollama cloud is disabled: remote model is unavailable"),
    ('{"model":"qwen3:32b","options":{"temperature":"hot"}}', 500, 'option "temperature" must be of type float32'),
    ('{"model":"qwen3:32b","options":{"stop":"x"}}', 500, 'option "stop" must be of type array'),
    ('{"model":"qwen3:32b","options":{"stop":["x",1]}}', 500, 'option "stop" must be of an array of strings'),
]


@test
def what_ollama_refuses_is_refused_in_its_words(fake):
    for body, status, text in REFUSED:
        got = post(fake, body)
        equal((got.status, json.loads(got.body)), (status, {"error": text}), body[:200])
        assert dict(got.headers)["Content-Type"] == "application/json; charset=utf-8"
    equal(fake.stats()["malformed"], 0)


ACCEPTED = [
    '{"model":"QWEN3:32B","messages":[{"role":"user","content":"say:y"}],"stream":false} trailing is ignored',
    '{"model":"qwen3:32b","messages":[{"role":"user","content":"say:y","tool_calls":null,"images":null}],"stream":false,'
    '"format":null,"think":null,"options":{"num_predict":10.0,"unknown":{},"seed":null},"keep_alive":-1}',
    '{"model":"qwen3:32b","messages":[{"role":"user","content":"say:y"}],"stream":false,"format":"","tools":[' +
    TOOL % '{"type":"object","properties":{"x":{"type":["string","null"],"minimum":{},"enum":[1,"a"],"items":true}}}' + ']}',
]


@test
def what_ollama_takes_is_taken(fake):
    for body in ACCEPTED:
        got = post(fake, body)
        assert got.status == 200, (body, got.body)
        equal(json.loads(got.body)["message"]["content"], "y", body)


@test
def broken_text_becomes_replacement_characters(fake):
    got = post(fake, b'{"model":"qwen3:32b","stream":false,"messages":[{"role":"user","content":"say:\xff\\ud800z"}]}')
    equal(json.loads(got.body)["message"]["content"], "\ufffd\ufffdz")


@test
def a_long_prompt_overflows_only_without_truncation(fake):
    big = "a" * 200000
    got = post(fake, chat(big, truncate=False))
    inner = json.loads(json.loads(got.body)["error"])["error"]
    equal((got.status, inner["n_prompt_tokens"], inner["n_ctx"]), (400, 50020, 40960))
    got = json.loads(post(fake, chat(big, stream=False)).body)
    equal(got["prompt_eval_count"], 20482)
    got = post(fake, chat("a" * 200, truncate=False, options={"num_ctx": 64}))
    equal(got.status, 400)
    got = json.loads(post(fake, chat("tokens:100", shift=False, stream=False, options={"num_ctx": 64})).body)
    equal((got["done_reason"], got["eval_count"]), ("length", 64 - 23))


@test
def embeddings_need_a_model_for_them(fake):
    fake.set(models=[{"name": "embed", "capabilities": ["embedding"]}])
    got = json.loads(post(fake, json.dumps({"model": "embed", "input": ["a", "b"]}), "/api/embed").body)
    equal([len(vector) for vector in got["embeddings"]], [8, 8])
    got = post(fake, json.dumps({"model": "nope", "input": "a"}), "/api/embed")
    equal((got.status, json.loads(got.body)), (404, {"error": 'model "nope" not found, try pulling it first'}))
    got = post(fake, json.dumps({"model": "embed", "input": [1]}), "/api/embed")
    equal((got.status, json.loads(got.body)), (400, {"error": "invalid input type"}))


@test
def models_can_be_replaced(fake):
    fake.set(models=[{"name": "mine", "capabilities": ["completion", "tools"]}, {"name": "a/b:7b"}])
    tags = json.loads(ask(fake.port, request("GET", "/api/tags")).body)
    equal([(m["name"], m["capabilities"]) for m in tags["models"]],
          [("mine:latest", ["completion", "tools"]), ("a/b:7b", ["completion"])])
    equal(json.loads(ask(fake.port, request("POST", "/api/show", '{"model":"MINE"}')).body)["capabilities"],
          ["completion", "tools"])
    equal(post(fake, chat()).status, 404)
    equal(json.loads(post(fake, chat("say:x", model="mine", stream=False)).body)["model"], "mine")
    fake.reset()
    equal(post(fake, chat()).status, 200)


# --- HTTP ---

@test
def connections_are_kept_and_pipelined_requests_answered_in_order(fake):
    peer = Peer(fake.port, b"".join(request("POST", "/api/chat", chat(f"say:{i}", stream=False)) for i in range(5)))
    for i in range(5):
        equal(json.loads(peer.answer().body)["message"]["content"], str(i))
    peer.socket.sendall(request("GET", "/api/version", headers=["Connection: close"]))
    assert ("Connection", "close") in peer.answer().headers
    equal(peer.rest()[1], "fin")


@test
def http_1_0_is_answered_without_chunks(fake):
    body = chat("say:x")
    data = f"POST /api/chat HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    got = Peer(fake.port, data).answer()
    equal((got.version, content(got)), ("HTTP/1.0", "x"))
    assert "Transfer-Encoding" not in dict(got.headers)


@test
def a_request_may_come_in_any_pieces(fake):
    body = chat("say:bits", stream=False).encode()
    chunked = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 5]), body[i:i + 5]) for i in range(0, len(body), 5))
    for data in (request("POST", "/api/chat", body), chunked + b"0\r\n\r\n", chunked + b"0\r\nX-T: 1\r\n\r\n"):
        peer = Peer(fake.port)
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(data)):
            peer.socket.sendall(data[i:i + 1])
        equal(json.loads(peer.answer().body)["message"]["content"], "bits")
    equal(fake.stats()["malformed"], 0)


@test
def expect_100_continue_is_served(fake):
    body = chat("say:x", stream=False)
    peer = Peer(fake.port, request("POST", "/api/chat", headers=["Expect: 100-continue", f"Content-Length: {len(body)}"]))
    equal(peer.head().status, 100)
    peer.socket.sendall(body.encode())
    equal(peer.answer().status, 200)


@test
def head_has_no_body(fake):
    for path in ("/", "/api/version"):
        peer = Peer(fake.port, request("HEAD", path) + request("GET", "/api/version"))
        assert dict(peer.answer(is_head=True).headers)["Content-Length"]
        equal(peer.answer().body, b'{"version":"0.0.0"}')


@test
def foreign_hosts_and_origins_are_turned_away_bare(fake):
    for host, headers in (("evil.example", []), ("127.0.0.1", ["Origin: https://evil.example"])):
        got = ask(fake.port, request("GET", "/api/version", headers=headers, host=host))
        equal((got.status, got.body, [n for n, _ in got.headers]), (403, b"", ["Date", "Content-Length"]))
    for host in ("localhost", "localhost:1", "127.0.0.1:11434", "10.1.2.3", "box.local", "[::1]:80"):
        equal(ask(fake.port, request("GET", "/api/version", host=host)).status, 200, host)
    equal(ask(fake.port, request("GET", "/", headers=["Origin: http://localhost:3000"])).status, 200)


@test
def wrong_paths_and_methods_get_plain_text(fake):
    for method, path, status, allow in (("POST", "/api/nope", 404, None), ("DELETE", "/api/chat", 405, "POST"),
                                        ("POST", "/api/tags", 405, "GET, HEAD"), ("GET", "/v1/models", 404, None)):
        got = ask(fake.port, request(method, path))
        equal((got.status, dict(got.headers).get("Allow")), (status, allow), path)


GOOD = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\n"
MALFORMED = [
    ("\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "empty line before the request"),
    ("GET / HTTP/1.1\nHost: x\n\n", "line ended by a bare LF"),
    ("GET / HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n", "line ended by a bare LF"),
    ("GET / HTTP/1.1\r\nHost: local\rhost\r\n\r\n", "bare CR in a line"),
    ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", "not HTTP/1.1"),
    ("GET / HTTP/1.2\r\nHost: x\r\n\r\n", "not HTTP/1.1"),
    ("GET / \r\nHost: x\r\n\r\n", "not HTTP/1.1"),
    ("GET /\r\nHost: x\r\n\r\n", "request line without two spaces"),
    ("G@T / HTTP/1.1\r\nHost: x\r\n\r\n", "method is not a token"),
    ("GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", "target is not a path"),
    ("GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", "target with a fragment"),
    ("GET / HTTP/1.1\r\n\r\n", "missing required Host header"),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "two Host headers"),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "malformed Host header"),
    ("GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", "folded header line"),
    ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", "header name is not a token"),
    ("GET / HTTP/1.1\r\nHost: x\r\nnocolon\r\n\r\n", "header line without a colon"),
    ("GET / HTTP/1.1\r\nHost: x\r\nA: b\x01\r\n\r\n", "control character in a header value"),
    (GOOD + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", "two Content-Length headers"),
    (GOOD + "Content-Length: +2\r\n\r\n{}", "Content-Length is not a number"),
    (GOOD + "Content-Length: 2, 2\r\n\r\n{}", "Content-Length is not a number"),
    (GOOD + "Content-Length: \r\n\r\n{}", "Content-Length is not a number"),
    (GOOD + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     "both Content-Length and Transfer-Encoding"),
    (GOOD + "Transfer-Encoding: gzip, chunked\r\n\r\n", "Transfer-Encoding is not just chunked"),
    (GOOD + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding is not just chunked"),
    (GOOD + "Transfer-Encoding: chunked\r\n\r\nz\r\n", "chunk size is not a number"),
    (GOOD + "Transfer-Encoding: chunked\r\n\r\n2 \r\n{}\r\n", "garbage after the chunk size"),
    (GOOD + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n", "chunk longer than its size"),
    (GOOD + "Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n", "line ended by a bare LF"),
    (GOOD + "Transfer-Encoding: chunked\r\n\r\n11111111111111111\r\n", "chunk size too long"),
    (GOOD + "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n", "framing header in a trailer"),
    (GOOD + "".join(f"X-{i}: y\r\n" for i in range(200)) + "\r\n", "more than 128 headers"),
    (GOOD + "X: " + "y" * 70000 + "\r\n\r\n", "head longer than 65536 bytes"),
    (GOOD + "Expect: more\r\n\r\n", "Expect is not 100-continue"),
    ("\x16\x03\x01\x02\x00\x01\x00\n", "line ended by a bare LF"),
]


@test
def malformed_requests_are_refused_and_booked_with_the_reason(fake):
    for data, reason in MALFORMED:
        peer = Peer(fake.port, data.encode("latin-1"))
        got = peer.answer()
        assert got.status in (400, 417, 431), (got.status, data)
        assert ("Connection", "close") in got.headers
        equal(peer.rest()[1], "fin", reason)
        fake.wait(malformed=1)
        record = fake.control("GET", "/seen")["requests"][-1]
        equal((record["outcome"], record["reason"]), ("malformed", reason), data[:100])
        fake.reset()


# --- the books ---

@test
def every_request_is_seen_as_it_came(fake):
    body = chat("say:\u4f60 <", stream=False)
    ask(fake.port, request("POST", "/api/chat?x=1", body, headers=["X-Thing:  a b ", "x-thing: c"]))
    record = fake.wait(answered=1) and fake.seen()[0]
    equal(record["n"], 1)
    equal((record["method"], record["path"], record["body"]), ("POST", "/api/chat?x=1", body))
    equal(record["body_json"], json.loads(body))
    equal(record["headers"][:3], [["Host", "127.0.0.1:11434"], ["X-Thing", "a b"], ["x-thing", "c"]])
    equal((record["outcome"], record["tokens_sent"]), ("answered", 1))
    assert abs(record["received_ms"] - time.monotonic() * 1000) < 5000
    assert record["ended_ms"] >= record["received_ms"]


@test
def looks_are_counted_apart_from_work(fake):
    for path in ("/", "/api/version", "/api/tags", "/api/ps"):
        ask(fake.port, request("GET", path))
    post(fake, chat())
    stats = fake.wait(answered=1)
    equal((stats["requests"], stats["answered"]), (1, 1))
    equal(stats["by_path"]["/api/version"]["answered"], 1)
    equal(fake.wait(path="/api/tags", requests=1)["by_path"]["/api/tags"]["requests"], 1)
    equal(len(fake.control("GET", "/seen")["requests"]), 5)
    equal(len(fake.control("GET", "/seen?from=5")["requests"]), 1)


@test
def reset_clears_scripts_and_books_but_not_what_runs(fake):
    fake.script(silent=True)
    peer = Peer(fake.port, request("POST", "/api/chat", chat()))
    fake.wait(running=1)
    fake.script(status=500, body="x", times=0)
    fake.reset()
    equal((fake.stats()["requests"], fake.stats()["running"], fake.seen()), (0, 1, []))
    equal(post(fake, chat()).status, 200)
    peer.close()
    stats = fake.wait(running=0)
    equal((stats["aborted"], stats["answered"]), (0, 1))


@test
def wait_tells_when_it_was_in_vain(fake):
    began = time.monotonic()
    fake.control("GET", "/wait?answered=1&timeout_ms=50", status=408)
    assert 0.04 < time.monotonic() - began < 2
    fake.control("GET", "/wait?nonsense=1", status=400)
    Peer(fake.control_port, request("GET", "/wait?answered=1")).close()
    post(fake, chat())
    fake.wait(answered=1)


@test
def a_typing_mistake_in_a_script_is_an_error(fake):
    for body in ({"do": {"hangup": 1}}, {"do": {"split": "1"}}, {"path": "/api/chat"}, {"do": {}, "tims": 1},
                 {"do": {"transcript": "nope"}}, {"do": {"raw": "!"}}):
        fake.control("POST", "/script", body, status=400)
    fake.control("POST", "/set", {"mut": True}, status=400)
    fake.control("POST", "/nope", {}, status=404)
    equal(fake.stats()["scripts_left"], 0)


# --- scripts ---

@test
def scripts_are_used_in_order_and_as_often_as_told(fake):
    fake.script(times=2, status=500, body={"error": "one"})
    fake.script(times=1, status=503, body="two", content_type="text/html")
    fake.script(path="/api/tags", status=404)
    got = [post(fake, chat()) for _ in range(4)]
    equal([a.status for a in got], [500, 500, 503, 200])
    equal((got[0].body, got[2].body, dict(got[2].headers)["Content-Type"]), (b'{"error":"one"}', b"two", "text/html"))
    equal(ask(fake.port, request("GET", "/api/tags")).status, 404)
    fake.script(times=0, status=429)
    equal({post(fake, chat()).status for _ in range(5)}, {429})


@test
def lines_and_chunks_are_sent_verbatim(fake):
    fake.script(lines=['{"a":1}', "half"], token_ms=5)
    equal(post(fake, chat()).chunks, [b'{"a":1}\n', b"half\n"])
    fake.script(chunks=["ab", "c\u4f60"], content_type="text/html", status=502)
    got = post(fake, chat())
    equal((got.status, got.chunks, dict(got.headers)["Content-Type"]), (502, [b"ab", "c\u4f60".encode()], "text/html"))
    fake.script(lines=[], trailing="junk")
    peer = Peer(fake.port, request("POST", "/api/chat", chat()))
    equal(peer.answer().body, b"")
    equal(peer.take(4), b"junk")


@test
def raw_bytes_replace_the_answer(fake):
    fake.script(raw=base64.b64encode(b"\x00no http\xff").decode())
    equal(Peer(fake.port, request("POST", "/api/chat", chat())).rest(), (b"\x00no http\xff", "fin"))
    fake.script(raw=base64.b64encode(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").decode(), keep=True)
    peer = Peer(fake.port, request("POST", "/api/chat", chat()) + request("GET", "/api/version"))
    equal([peer.answer().body, peer.answer().body], [b"ok", b'{"version":"0.0.0"}'])


def whole_answer(fake, **do):
    fake.script(transcript="chat-stream-thinking", **do)
    return Peer(fake.port, request("POST", "/api/chat", chat()))


@test
def split_sends_that_many_bytes_at_a_time(fake):
    wanted = recorded("chat-stream-thinking")[3]
    for size, split_ms in ((1, 0), (7, 0), (100, 1)):
        peer = whole_answer(fake, split=size, split_ms=split_ms)
        equal(peer.rest(), (wanted, "fin"))
        if split_ms:
            assert len(peer.pieces) > 10 and max(peer.pieces) <= 1000, peer.pieces


@test
def hangup_and_reset_come_after_exactly_that_many_bytes(fake):
    wanted = recorded("chat-stream-thinking")[3]
    for count in (0, 1, 15, 200, 777, len(wanted)):
        equal(whole_answer(fake, hangup_after_bytes=count).rest(), (wanted[:count], "fin"), count)
        equal(whole_answer(fake, reset_after_bytes=count).rest(), (wanted[:count], "reset"), count)
    equal(whole_answer(fake, hangup_after_bytes=50, split=3).rest(), (wanted[:50], "fin"))
    fake.script(hangup_after_bytes=400)
    equal(len(Peer(fake.port, request("POST", "/api/chat", chat())).rest()[0]), 400)
    fake.wait(running=0)


@test
def stalls_keep_the_connection_open(fake):
    peer = whole_answer(fake, stall_after_bytes=333)
    equal(len(peer.take(333)), 333)
    assert peer.is_quiet()
    equal(fake.stats()["running"], 1)
    peer.close()
    fake.wait(running=0, aborted=1)
    fake.script(stall_after_tokens=2)
    peer = Peer(fake.port, request("POST", "/api/chat", chat("tokens:9")))
    peer.head()
    assert b" r0" in peer.chunk() and b" r1" in peer.chunk() and peer.is_quiet()
    peer.close()
    fake.wait(aborted=2)
    equal(fake.seen()[-1]["tokens_sent"], 2)
    fake.script(stall_after_tokens=0)
    peer = Peer(fake.port, request("POST", "/api/chat", chat()))
    equal(peer.head().status, 200)
    assert peer.is_quiet()


@test
def errors_come_in_the_stream_and_the_connection_lives(fake):
    fake.script(error_after_tokens={"n": 2, "text": "out <of> luck"})
    peer = Peer(fake.port, request("POST", "/api/chat", chat("tokens:9")) + request("GET", "/api/version"))
    got = peer.answer()
    equal(got.chunks[2:], [b'{"error":"out \\u003cof\\u003e luck"}\n'])
    equal(peer.answer().status, 200)
    fake.script(times=2, error_after_tokens={"n": 0, "text": "no"})
    for stream, chunked in ((True, True), (False, False)):
        got = post(fake, chat(stream=stream))
        equal((got.status, got.body, bool(got.chunks)), (500, b'{"error":"no"}', chunked))


@test
def silence_and_hanging_up_before_the_answer(fake):
    fake.script(silent=True)
    peer = Peer(fake.port, request("POST", "/api/chat", chat()))
    fake.wait(running=1)
    assert peer.is_quiet()
    peer.close()
    fake.wait(aborted=1, running=0)
    fake.script(close_before_answer=True)
    equal(Peer(fake.port, request("POST", "/api/chat", chat())).rest(), (b"", "fin"))


@test
def pace_head_and_length_follow_the_script(fake):
    fake.script(tokens=5, token_ms=30, first_token_ms=60)
    peer = Peer(fake.port, request("POST", "/api/chat", chat()))
    began = time.monotonic()
    peer.head()
    first = time.monotonic() - began
    while peer.chunk():
        pass
    assert 0.05 < first < 1 and 0.17 < time.monotonic() - began < 2, first
    fake.script(tokens=1, head_delay_ms=50, first_token_ms=50)
    peer = Peer(fake.port, request("POST", "/api/chat", chat()))
    began = time.monotonic()
    peer.head()
    head = time.monotonic() - began
    assert head > 0.04
    assert not peer.buffer, "the head came alone"
    peer.chunk()
    assert time.monotonic() - began > 0.09
    fake.script(tokens=4, token_ms=20)
    began = time.monotonic()
    equal(content(post(fake, chat(stream=False))), " r0 r1 r2 r3")
    assert time.monotonic() - began > 0.05


@test
def long_lines_and_missing_ends(fake):
    fake.script(long_line=30_000_000)
    got = post(fake, chat())
    equal(len(lines(got)[0]["message"]["content"]), 30_000_000)
    equal(len(got.chunks), 2)
    fake.script(no_done=True)
    equal({line["done"] for line in lines(post(fake, chat()))}, {False})


@test
def dying_takes_the_process_along_after_the_head(fake):
    mortal = Fake()
    mortal.script(die=True)
    data, _ = Peer(mortal.port, request("POST", "/api/chat", chat())).rest()
    assert data.startswith(b"HTTP/1.1 200 OK\r\n") and data.endswith(b"\r\n\r\n") and data.count(b"\r\n\r\n") == 1, data
    equal(mortal.process.wait(10), 1)


@test
def named_paths_can_be_silent(fake):
    fake.set(version_silent=True, tags_silent=True)
    for path in ("/api/version", "/api/tags"):
        peer = Peer(fake.port, request("GET", path))
        fake.wait(path=path, requests=1)
        assert peer.is_quiet()
    equal(post(fake, chat()).status, 200)
    fake.set(version_silent=False)
    equal(ask(fake.port, request("GET", "/api/version")).status, 200)


# --- leaving ---

def leave(peer, how):
    if how == "reset":
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    peer.close()


@test
def leaving_is_seen_at_once_and_cancels(fake):
    for number, (how, stream) in enumerate([("close", True), ("close", False), ("reset", True), ("reset", False)], 1):
        fake.script(tokens=100000, token_ms=5)
        peer = Peer(fake.port, request("POST", "/api/chat", chat(stream=stream)))
        if stream:
            peer.head()
        fake.wait(running=1)
        left = time.monotonic() * 1000
        leave(peer, how)
        fake.wait(aborted=number, running=0)
        record = fake.seen()[-1]
        equal(record["outcome"], "aborted")
        assert -5 < record["abort_seen_ms"] - left < 250, record["abort_seen_ms"] - left
        assert abs(record["abort_after_ms"] - (record["abort_seen_ms"] - record["received_ms"])) < 0.01


@test
def half_closing_cancels_as_in_go(fake):
    fake.script(tokens=1000, token_ms=5)
    peer = Peer(fake.port, request("POST", "/api/chat", chat()))
    peer.head()
    peer.chunk()
    peer.socket.shutdown(socket.SHUT_WR)
    rest = []
    while chunk := peer.chunk():
        rest.append(chunk)
    assert all(b'"done":false' in chunk for chunk in rest)
    equal(peer.rest()[1], "fin")
    fake.script(tokens=1000, token_ms=5)
    peer = Peer(fake.port, request("POST", "/api/chat", chat(stream=False)))
    fake.wait(running=1)
    peer.socket.shutdown(socket.SHUT_WR)
    equal(peer.answer().status, 500)
    equal(fake.stats()["aborted"], 2)


@test
def a_request_cut_short_counts_as_aborted(fake):
    Peer(fake.port, request("POST", "/api/chat", chat())[:-5]).close()
    fake.wait(aborted=1)
    equal(fake.control("GET", "/seen")["requests"][0]["reason"], "closed before the request was whole")
    Peer(fake.port).close()
    fake.wait(connections_open=0)
    equal(fake.stats()["requests"], 1)


# --- slots ---

@test
def slots_are_given_first_come_first_served(fake):
    fake.set(num_parallel=2)
    fake.script(times=2, silent=True)
    first = [Peer(fake.port, request("POST", "/api/chat", chat())) for _ in range(2)]
    fake.wait(running=2)
    waiting = []
    for i in range(4):
        waiting.append(Peer(fake.port, request("POST", "/api/chat", chat(f"say:{i}"))))
        fake.wait(waiting=i + 1)
    assert all(peer.is_quiet(0.02) for peer in waiting)
    waiting[1].close()
    fake.wait(waiting=3, aborted=1)
    equal(post(fake, chat(model="nope")).status, 404, "refusals do not wait")
    first[0].close()
    for i in (0, 2, 3):
        equal(content(waiting[i].answer()), str(i))
    ended = {json.loads(r["body"])["messages"][0]["content"]: r["ended_ms"] for r in fake.seen() if r["outcome"] == "answered"}
    assert ended["say:0"] < ended["say:2"] < ended["say:3"]
    stats = fake.stats()
    equal((stats["peak_running"], stats["running"], stats["waiting"]), (2, 1, 0))


@test
def raising_the_limit_lets_the_waiting_in(fake):
    fake.set(num_parallel=1)
    fake.script(times=3, silent=True)
    peers = [Peer(fake.port, request("POST", "/api/chat", chat())) for _ in range(3)]
    fake.wait(running=1, waiting=2)
    fake.set(num_parallel=0)
    fake.wait(running=3, waiting=0)
    for peer in peers:
        peer.close()


@test
def each_model_has_slots_of_its_own(fake):
    fake.set(num_parallel=2)
    fake.script(times=6, silent=True)
    peers = [Peer(fake.port, request("POST", "/api/chat", chat(model=model))) for model in ("qwen3:32b", "SLOW") * 3]
    fake.wait(running=4, waiting=2)
    by_model = fake.stats()["by_model"]
    for model in ("qwen3:32b", "slow:latest"):
        equal(by_model[model], {"running": 2, "waiting": 1, "peak_running": 2, "loads": 0})
    for peer in peers:
        peer.close()
    fake.wait(running=0, waiting=0)


# --- loading ---

def residents(fake):
    listed = json.loads(ask(fake.port, request("GET", "/api/ps")).body)["models"]
    return {model["name"]: (model["size"], model["size_vram"], model["context_length"]) for model in listed}


@test
def all_models_are_loaded_at_the_start_and_wholly_on_the_card(fake):
    got = residents(fake)
    equal(sorted(got), ["loop:latest", "qwen3:32b", "slow:latest"])
    assert all(size == vram and context == 40960 for size, vram, context in got.values()), got
    fake.set(models=[{"name": "other"}])
    equal(list(residents(fake)), ["other:latest"])


@test
def a_test_says_what_is_loaded_and_how(fake):
    fake.set(residents=[{"name": "qwen3:32b", "size": 20, "size_vram": 14, "context_length": 2048}])
    equal(residents(fake), {"qwen3:32b": (20, 14, 2048)})
    fake.set(residents=[])
    equal(residents(fake), {})
    fake.control("POST", "/set", {"residents": [{"name": "nope"}]}, 400)
    fake.control("POST", "/set", {"residents": [{"name": "slow", "sise": 1}]}, 400)


@test
def a_cold_model_is_loaded_while_its_requests_wait_without_a_head(fake):
    fake = Fake("--cold", "--load-ms", "250")
    equal(residents(fake), {})
    began = time.monotonic()
    peers = [Peer(fake.port, request("POST", "/api/chat", chat("say:x"))) for _ in range(2)]
    assert all(peer.is_quiet(0.05) for peer in peers)
    equal(residents(fake), {}, "not before it is there")
    for peer in peers:
        equal(content(peer.answer()), "x")
    assert 0.2 < time.monotonic() - began < 5
    equal(list(residents(fake)), ["qwen3:32b"])
    began = time.monotonic()
    equal(post(fake, chat("say:x")).status, 200)
    assert time.monotonic() - began < 0.2, "it is loaded once"
    equal(fake.stats()["by_model"]["qwen3:32b"]["loads"], 1)
    fake.stop()


@test
def another_context_or_shift_loads_it_anew_and_keep_alive_does_not(fake):
    def loads(**more):
        equal(post(fake, chat("say:x", **more)).status, 200)
        return fake.stats()["by_model"]["qwen3:32b"]["loads"]
    equal(loads(shift=False), 0)
    equal(loads(shift=False, options={"num_ctx": 4096}), 1)
    equal(loads(shift=False, options={"num_ctx": 4096, "temperature": 1}, keep_alive=-1), 1)
    equal(loads(shift=True, options={"num_ctx": 4096}), 2)
    equal(residents(fake)["qwen3:32b"][2], 4096)


@test
def a_request_without_messages_only_loads_and_counts_apart(fake):
    fake.set(residents=[], num_parallel=1)
    body = json.dumps({"model": "qwen3:32b", "messages": [], "stream": False})
    equal(json.loads(post(fake, body).body)["done_reason"], "load")
    equal(list(residents(fake)), ["qwen3:32b"])
    stats = fake.wait(path="load", requests=1, answered=1)
    equal((stats["requests"], stats["answered"], stats["peak_running"], stats["by_path"]["load"]["requests"]), (0, 0, 0, 1))
    equal([r["is_load"] for r in fake.seen()], [True])
    equal(json.loads(post(fake, json.dumps({"model": "qwen3:32b", "messages": [], "keep_alive": 0, "stream": False})).body)
          ["done_reason"], "unload")
    equal(residents(fake), {})
    fake.script(status=500, body={"error": "no"})
    equal(post(fake, body).status, 500)
    equal(fake.stats()["requests"], 0, "a scripted answer to it, too")


@test
def a_model_goes_when_its_keep_alive_is_over(fake):
    fake.set(residents=[])
    equal(post(fake, chat("say:x", keep_alive="1h30m")).status, 200)
    left = json.loads(ask(fake.port, request("GET", "/api/ps")).body)["models"][0]["expires_at"]
    hours = (calendar.timegm(time.strptime(left[:19], "%Y-%m-%dT%H:%M:%S")) - time.time()) / 3600
    assert 1.4 < hours < 1.6, left
    equal(post(fake, chat("say:x", keep_alive="80ms")).status, 200)
    deadline = time.monotonic() + 5
    while residents(fake) and time.monotonic() < deadline:
        time.sleep(0.01)
    equal(residents(fake), {})
    equal(post(fake, chat("say:x", keep_alive=-1)).status, 200)
    equal(list(residents(fake)), ["qwen3:32b"])


@test
def a_faster_machine_needs_less_time(fake):
    def took():
        began = time.monotonic()
        equal(post(fake, chat("tokens:11@20", stream=False)).status, 200)
        return time.monotonic() - began
    assert took() >= 0.2
    fake.set(speed=400)
    fast = took()
    assert 0.05 <= fast < 0.2, fast


@test
def the_books_can_be_compared_by_the_tests_own_numbers(fake):
    fake.script(close_before_answer=True)
    dead = Peer(fake.port, request("POST", "/api/chat", chat("say:x id=a-1")))
    dead.rest()
    equal(post(fake, chat("tokens:3 id=a-1, please")).status, 200)
    equal(post(fake, chat("tokens:3", stream=False)).status, 200)
    fake.wait(answered=3)
    assert [row[:3] for row in fake.control("GET", "/ids")["ids"]] == [["a-1", "answered", 0], ["a-1", "answered", 3]]
    equal(fake.control("GET", "/ids")["ids"][1][3:], [26, 3])
    last = fake.seen()[-1]
    equal((last["prompt_tokens"], last["eval_tokens"], "id" in last), (22, 3, False))
    assert last["received_ms"] <= last["started_ms"] <= last["ended_ms"]


# --- the whole machine ---

@test
def mute_refuses_connections_until_it_ends(fake):
    kept = Peer(fake.port, request("GET", "/api/version"))
    kept.answer()
    fake.set(mute=True)
    for _ in range(3):
        try:
            Peer(fake.port)
            raise AssertionError("connected")
        except ConnectionRefusedError:
            pass
    kept.socket.sendall(request("GET", "/api/version"))
    equal(kept.answer().status, 200)
    fake.set(drop=True)
    equal(kept.rest()[1], "reset")
    fake.set(mute=False)
    equal(post(fake, chat()).status, 200)


@test
def a_blackhole_accepts_and_says_nothing(fake):
    kept = Peer(fake.port, request("GET", "/api/version"))
    kept.answer()
    fake.script(tokens=100, token_ms=2)
    running = Peer(fake.port, request("POST", "/api/chat", chat()))
    running.head()
    fake.set(blackhole=True)
    fresh = Peer(fake.port, request("GET", "/api/version"))
    kept.socket.sendall(request("GET", "/api/version"))
    gone = Peer(fake.port, request("GET", "/api/version"))
    gone.close()
    assert fresh.is_quiet() and kept.is_quiet(0.05)
    equal(fake.stats()["by_path"]["/api/version"]["requests"], 1)
    fake.set(blackhole=False)
    equal((fresh.answer().status, kept.answer().status), (200, 200))
    while running.chunk():
        pass


@test
def many_workers_keep_one_set_of_books(fake):
    fake = Fake("--workers", "4", "--num-parallel", "3", "--token-ms", "1")
    def client():
        peer = Peer(fake.port)
        for _ in range(10):
            peer.socket.sendall(request("POST", "/api/chat", chat("tokens:3")))
            assert len(peer.answer().chunks) == 4
        peer.close()
    threads = [threading.Thread(target=client) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = fake.wait(answered=120, running=0, connections_open=0)
    equal((stats["requests"], stats["peak_running"], stats["waiting"], stats["tokens_sent"]), (120, 3, 0, 360))
    fake.set(mute=True)
    try:
        Peer(fake.port)
        raise AssertionError("connected")
    except ConnectionRefusedError:
        pass
    fake.set(mute=False, num_parallel=0)
    equal(post(fake, chat()).status, 200)
    fake.stop()


@test
def hundreds_of_paced_streams_run_at_once(fake):
    fake.script(times=400, tokens=20, token_ms=20)
    peers = [Peer(fake.port, request("POST", "/api/chat", chat())) for _ in range(400)]
    for peer in peers:
        equal(len(peer.answer().chunks), 21)
    stats = fake.wait(answered=400)
    assert stats["peak_running"] > 50, stats
    for peer in peers:
        peer.close()


@test
def a_slow_reader_is_waited_for(fake):
    peer = Peer(fake.port, request("POST", "/api/chat", chat("tokens:60000")))
    fake.wait(running=1)
    before = fake.stats()["tokens_sent"]
    assert before < 60000, "it stops when the peer does not read"
    got = peer.answer()
    equal(len(got.chunks), 60001)


@test
def bench_answers_without_looking_closely(fake):
    bench = Fake("--bench", "--control", "none", "--tokens", "3")
    got = post(bench, '{"messages": broken, "stream":true}')
    equal(len(got.chunks), 4)
    got = json.loads(post(bench, '{"stream":false}').body)
    equal(got["message"]["content"], " r0 r1 r2")
    bench.stop()


@test
def a_taken_port_is_named(fake):
    run = subprocess.run([PROGRAM, "--listen", f"127.0.0.1:{fake.port}"], capture_output=True, text=True, timeout=20)
    equal(run.returncode, 1)
    assert f"cannot listen on 127.0.0.1:{fake.port}: Address already in use" in run.stderr, run.stderr
    for wrong in (["--listen", "nowhere"], ["--tokens", "x"], ["--nonsense"], ["extra"]):
        equal(subprocess.run([PROGRAM, *wrong], capture_output=True, timeout=20).returncode, 2)


@test
def it_works_from_any_folder_and_on_named_ports(fake):
    other = Fake("--listen", "localhost:0", "--transcripts", str(TRANSCRIPTS))
    other.script(transcript="version")
    equal(post(other, chat()).body, b'{"version":"0.0.0"}')
    other.stop()


def main():
    failed = []
    wanted = sys.argv[2] if len(sys.argv) > 2 else ""
    tests = [t for t in TESTS if wanted in t.__name__]
    fake = Fake()
    for function in tests:
        try:
            fake.reset()
            function(fake)
        except Exception as error:  # a dead fake must not hide the other failures
            failed.append(function.__name__)
            traceback.print_exc(limit=-4)
            print(f"FAILED {function.__name__}: {type(error).__name__}: {error}"[:3000])
            if fake.process.poll() is not None:
                print(fake.process.stderr.read().decode()[-5000:])
                fake = Fake()
    try:
        fake.stop()
    except AssertionError as error:
        failed.append("stop")
        print(f"FAILED to end well: {error}")
    print(f"{len(tests) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    PROGRAM = sys.argv[1]
    sys.exit(main())
