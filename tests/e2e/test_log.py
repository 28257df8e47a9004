"""The log: one line a request, eight fields that never move, and books that balance."""

import contextlib
import datetime
import json
import os
import re
import resource
import signal
import subprocess

import pytest

from fake import last_line, line
from gateway import ACCESS_LINE, KEY, MODEL
from wire import wait_for


def test_the_eight_fields_and_what_follows(gateway, fake):
    fake.script(transcript="chat-stream-plain")
    answer = gateway.stream("hé!", headers={"X-Request-Id": "my-trace.1"}, path="/v1/chat/completions?secret=1")
    assert answer.is_done
    it = gateway.wait_line(req="my-trace.1")
    assert it["user"] == "key1" and it["key"] == "key1"
    assert it["address"] == "127.0.0.1"
    assert (it["method"], it["path"], it["status"]) == ("POST", "/v1/chat/completions", "200")
    assert (it["model"], it["stream"], it["finish"]) == (MODEL, "1", "stop")
    assert (it["prompt_chars"], it["prompt_tokens"], it["completion_tokens"]) == ("3", "22", "17")
    assert int(it["ttft_ms"]) >= 0 and int(it["queue_ms"]) >= 0
    assert re.fullmatch(r"\d+\.\d{3}", it["response_time"])
    said = datetime.datetime.strptime(it["time"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc)
    assert abs((datetime.datetime.now(datetime.timezone.utc) - said).total_seconds()) < 60


def test_times_are_those_that_passed(gateway, fake):
    fake.script(tokens=2, head_delay_ms=300, token_ms=200)
    it = gateway.line_of(gateway.stream())
    assert 300 <= int(it["ttft_ms"]) < 5000
    assert 0.5 <= float(it["response_time"]) < 9


def test_a_request_that_is_not_streamed(gateway):
    it = gateway.line_of(gateway.chat())
    assert it.get("stream", "0") == "0" and it["finish"] == "stop"


REFUSALS = [
    (dict(key="wrong"), "401", "invalid_api_key"),
    (dict(key=None), "401", "invalid_api_key"),
    (dict(model="nope"), "404", "model_not_found"),
    (dict(content="a" * 40000), "400", "context_length_exceeded"),
    (dict(model="loop", tools=[{"type": "function", "function": {"name": "f"}}]), "400", "unsupported"),
]


@pytest.mark.parametrize("fields,status,why", REFUSALS, ids=[why + str(n) for n, (_, _, why) in enumerate(REFUSALS)])
def test_a_refusal_says_why(gateway, fields, status, why):
    it = gateway.line_of(gateway.chat(**fields))
    assert (it["status"], it["why"]) == (status, why)
    assert "queue_ms" not in it  # it never came so far as to ask for a slot


def test_a_stranger_is_an_exclamation_mark_and_the_address(gateway):
    it = gateway.line_of(gateway.chat(key="wrong"))
    assert it["user"] == "!127.0.0.1"


def test_a_malformed_request_has_its_line_too(gateway):
    before = len(gateway.requests_logged())
    answer = gateway.wire().send("NONSENSE\r\n\r\n").answer()
    assert answer.status == 400
    wait_for(lambda: len(gateway.requests_logged()) > before)
    assert gateway.requests_logged()[-1]["status"] == "400"


@pytest.mark.parametrize("path", ["/a b", "/%20", "/\"quote", "/a=b", "/" + "x" * 3000, "/\x7f", "/é"])
def test_no_path_can_move_the_fields(gateway, path):
    wire = gateway.wire().send(f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nX-Request-Id: moved\r\n"
                               "Connection: close\r\n\r\n")
    status = wire.answer("GET").status
    assert status in (400, 404, 414)
    wait_for(lambda: any(f" {status}" in text for text in gateway.log.splitlines()))
    for text in gateway.log.splitlines():
        assert ACCESS_LINE.match(text) or " GET " not in text, text


def test_an_aborted_request_has_a_line(gateway, fake):
    fake.script(silent=True)
    wire = gateway.open_chat(headers={"X-Request-Id": "gone-away"}, stream=True)
    fake.wait_chats(1, "running")
    wire.close()
    it = gateway.wait_line(req="gone-away")
    assert re.fullmatch(r"\d{3}", it["status"])


def test_prompts_answers_and_secrets_are_never_logged(gateway, fake):
    fake.script_lines(line("TOPSECRETANSWER", thinking="TOPSECRETTHOUGHT"), last_line())
    answer = gateway.stream("TOPSECRETPROMPT", headers={"Cookie": "TOPSECRETCOOKIE"})
    gateway.line_of(answer)
    gateway.line_of(gateway.chat(key="TOPSECRETKEY"))
    assert "TOPSECRET" not in gateway.log + gateway.errors
    assert KEY not in gateway.log + gateway.errors


def test_awk_counts_by_user_and_finds_the_refused(start_gateway, fake):
    gateway = start_gateway(auth={"valid_keys": [{"key": "k1", "name": "alices", "user": "alice"},
                                                 {"key": "k2", "name": "bobs", "user": "bob", "max_requests": 1}]},
                            rate_limit={"enabled": True, "max_requests": 100, "window_seconds": 60})
    for key in ("k1", "k2", "k1", "k2", "wrong"):
        last = gateway.chat(key=key)
    fake.script(status=500, body="x", content_type="text/plain")
    assert gateway.chat(key="k1").status == 502
    gateway.line_of(last)
    gateway.wait_line(status="502")

    def awk(program):
        out = subprocess.run(["awk", program, gateway.log_path], capture_output=True, text=True, check=True).stdout.split()
        return sorted(word for word in out if word in ("alice", "bob", "!127.0.0.1"))
    assert awk("{print $1}") == ["!127.0.0.1", "alice", "alice", "alice", "bob", "bob"]
    assert awk("$8 ~ /^(401|429|5)/ {print $1}") == ["!127.0.0.1", "alice", "bob"]


def test_json_has_the_same_names_and_numbers_as_numbers(start_gateway, fake):
    gateway = start_gateway(log_format="json")
    fake.script(transcript="chat-stream-plain")
    it = gateway.line_of(gateway.stream())
    assert it["user"] == "key1" and it["key"] == "key1" and it["address"] == "127.0.0.1"
    assert (it["method"], it["path"], it["status"]) == ("POST", "/v1/chat/completions", 200)
    assert (it["prompt_tokens"], it["completion_tokens"], it["prompt_chars"]) == (22, 17, 2)
    assert isinstance(it["response_time"], float) and isinstance(it["ttft_ms"], int) and isinstance(it["queue_ms"], int)
    assert it["model"] == MODEL and it["finish"] == "stop"
    refused = gateway.line_of(gateway.chat(key="wrong"))
    assert (refused["status"], refused["why"]) == (401, "invalid_api_key")
    for text in gateway.log.splitlines():
        json.loads(text)


def test_the_log_goes_to_stderr_when_no_file_is_named(start_gateway):
    gateway = start_gateway(log_file=None)
    assert gateway.line_of(gateway.chat())["status"] == "200"


def test_a_log_that_cannot_be_written_drops_and_counts(start_gateway, folder):
    """The file may not grow beyond 4 kB: from there on lines wait, then are dropped; requests are served all the while."""
    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    gateway = start_gateway(log_file=f"{folder}/small.log", preexec=small_files)
    ask_until_lines_are_dropped(gateway)
    assert os.path.getsize(f"{folder}/small.log") <= 4096
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, unlimited)  # there is room again: the books balance


def ask_until_lines_are_dropped(gateway, batch=500):
    wire = gateway.wire()
    for _ in range(80):
        wire.send(f"GET /v1/models/nobody HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n" * batch)
        for _ in range(batch):
            assert wire.answer("GET").status == 404
        if gateway.metric("log_dropped_total") > 0:
            return
    raise AssertionError("no line was dropped")


def test_a_log_that_blocks_never_blocks_a_request(start_gateway, folder):
    """The log is a pipe that nobody reads until lines have been dropped."""
    pipe = f"{folder}/log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    gateway = start_gateway(log_file=pipe)
    gateway.ends_well = False  # the books are checked here
    ask_until_lines_are_dropped(gateway)
    taken = []

    def balanced():
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(reader, 1 << 16):
                taken.append(piece)
        written = sum(1 for text in b"".join(taken).decode().splitlines() if ACCESS_LINE.match(text))
        dropped = gateway.metric("log_dropped_total")
        return dropped > 0 and written + dropped == gateway.metric("requests_total")
    wait_for(balanced, 20, "lines and dropped lines make up the requests")
    os.close(reader)
    gateway.close_wires()
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 0
