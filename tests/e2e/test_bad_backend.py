"""Ollama answering nonsense: each is one clear sentence to the caller, nothing crashes, and the next request is served."""

import base64
import json
import os
import signal

import pytest

from fake import compact, last_line, line
from gateway import KEY
from wire import wait_for


def raw(text, keep=False):
    data = text if isinstance(text, bytes) else text.encode()
    return {"raw": base64.b64encode(data).decode(), "keep": keep}


JSON = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
GOOD = compact(last_line("fine"))


def chunk(text):
    return f"{len(text.encode()):x}\r\n{text}\r\n"


BEFORE_THE_FIRST_BYTE = {
    "html": {"status": 200, "content_type": "text/html", "body": "<html><h1>It works</h1></html>"},
    "a 500 of html": {"status": 500, "content_type": "text/html", "body": "<html>500</html>"},
    "a 500 of json": {"status": 500, "content_type": "application/json", "body": '{"error":"goroutine 7 [running]"}'},
    "a 500 of nothing": {"status": 500, "content_type": "text/plain", "body": ""},
    "a redirect": {"status": 302, "content_type": "text/plain", "body": ""},
    "no content": {"status": 204, "content_type": "text/plain", "body": ""},
    "not http": raw("SSH-2.0-OpenSSH_9.2\r\n"),
    "random bytes": raw(bytes(range(256))),
    "nothing and the end": {"close_before_answer": True},
    "half a head": raw("HTTP/1.1 200 OK\r\nContent-Ty"),
    "two lengths": raw(JSON + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    "a length that lies": raw(JSON + f"Content-Length: {len(GOOD) + 50}\r\n\r\n{GOOD}"),
    "a bad chunk size": raw(STREAM.replace("x-ndjson", "json") + "zz\r\n" + GOOD),
    "a body that is no json": raw(JSON + "Content-Length: 5\r\n\r\nhello"),
    "an empty body": raw(JSON + "Content-Length: 0\r\n\r\n"),
    "an array": raw(JSON + "Content-Length: 2\r\n\r\n[]"),
    "an object of other things": raw(JSON + "Content-Length: 9\r\n\r\n" + '{"a":"b"}'),
    "half an object": raw(JSON + "Content-Length: 20\r\n\r\n" + GOOD[:20]),
    "bad utf-8": raw(JSON.encode() + b"Content-Length: %d\r\n\r\n" % (len(GOOD)) + GOOD.replace("fine", "fi\xff\xfe", 1)
                     .encode("latin-1")),
    "a reset": {"reset_after_bytes": 0},
    "a reset in the head": {"reset_after_bytes": 20},
    "a reset in the body": {"reset_after_bytes": 200},
    "an end in the body": {"hangup_after_bytes": 200},
    "a head without end": raw("HTTP/1.1 200 OK\r\n" + "X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 20000),
    "another protocol version": raw("HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "an answer and a second one": raw(JSON + "Content-Length: 3\r\n\r\n{}\n" + JSON + "Content-Length: 2\r\n\r\n{}"),
}


@pytest.mark.parametrize("which", BEFORE_THE_FIRST_BYTE)
def test_a_whole_answer_that_is_broken_is_502(gateway, fake, which):
    fake.script(times=3, **BEFORE_THE_FIRST_BYTE[which])
    answer = gateway.chat()
    assert (answer.status, answer.code) in ((502, "upstream_error"), (503, "backend_unavailable")), answer
    check_sentence(answer.error["message"])
    fake.reset()
    assert gateway.chat("say:next").content == "next"


def check_sentence(text):
    assert len(text) > 15 and text[0] not in "{<" and "\n" not in text
    for leak in ("goroutine", "<html", "127.0.0.1", "registry", "ollama", "json:"):
        assert leak not in text.lower(), text


def bad_utf8_chunk():
    text = compact(line("?")).encode().replace(b"?", b"\xff\xfe") + b"\n"
    return b"%x\r\n%s\r\n" % (len(text), text)


BROKEN_STREAMS = {
    # name: (what is sent, the content that got through; None: the status may still tell)
    "html": ({"status": 200, "content_type": "text/html", "body": "<html></html>"}, None),
    "an error line first": ({"lines": ['{"error":"it broke"}']}, None),
    "no json first": (raw(STREAM + chunk("hello\n") + "0\r\n\r\n"), None),
    "half a line": (raw(STREAM + chunk(compact(line("a")) + "\n") + chunk('{"model":"qw') + "0\r\n\r\n"), "a"),
    "half a line and a cut": (raw(STREAM + chunk(compact(line("a")) + "\n") + chunk('{"model":"qw')), "a"),
    "an error midway": ({"lines": [compact(line("a")), '{"error":"an error was encountered: unexpected EOF"}']}, "a"),
    "no json midway": (raw(STREAM + chunk(compact(line("a")) + "\n") + chunk("oops\n") + "0\r\n\r\n"), "a"),
    "bad framing midway": (raw(STREAM + chunk(compact(line("a")) + "\n") + "zz\r\noops\r\n"), "a"),
    "a cut midway": (raw(STREAM + chunk(compact(line("a")) + "\n")), "a"),
    "an array midway": (raw(STREAM + chunk(compact(line("a")) + "\n") + chunk("[1]\n") + "0\r\n\r\n"), "a"),
    "bad utf-8 midway": (raw(STREAM.encode() + chunk(compact(line("a")) + "\n").encode() + bad_utf8_chunk()
                             + b"0\r\n\r\n"), "a"),
}


@pytest.mark.parametrize("which", BROKEN_STREAMS)
def test_a_broken_stream_is_told_and_ends(gateway, fake, which):
    do, through = BROKEN_STREAMS[which]
    fake.script(times=2, **do)
    wire = gateway.open_chat(stream=True)
    answer = wire.answer(may_be_cut=True)
    if through is None and answer.status != 200:
        assert (answer.status, answer.code) == (502, "upstream_error")
    else:
        assert answer.content == (through or "")
        assert answer.stream_error["message"]
        assert answer.finish is None and not answer.is_done
        assert wire.is_closed()
    fake.reset()
    assert gateway.stream("say:next").content == "next"


def test_a_reset_midway_is_told(gateway, fake):
    fake.script(tokens=50, token_ms=1, reset_after_bytes=1200)
    answer = gateway.stream(may_be_cut=True)
    if answer.status == 200:
        assert answer.stream_error["message"] and not answer.is_done
    else:
        assert answer.status == 502


def test_a_reset_that_the_kernel_tells_of_together_with_the_bytes_before_it(gateway, fake):
    fake.script(first_token_ms=150, tokens=50, token_ms=1, reset_after_bytes=1200)
    wire = gateway.open_chat(stream=True)
    fake.wait_chats(1, "running")
    gateway.signal(signal.SIGSTOP)
    fake.wait_running(0)
    gateway.signal(signal.SIGCONT)
    wire.socket.settimeout(2)
    answer = wire.answer(may_be_cut=True)
    assert answer.status == 502 or (answer.stream_error["message"] and not answer.is_done)


def test_a_reset_is_no_end_even_where_the_end_of_the_connection_is_the_end(gateway, fake):
    whole = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n" + compact(line("a")) + "\n"
    fake.script(**raw(whole, keep=True), reset_after_bytes=len(whole))
    answer = gateway.stream(may_be_cut=True)
    assert answer.status in (502, 503) or (answer.stream_error and not answer.is_done)


@pytest.mark.parametrize("status", [404, 500])
def test_a_refusal_without_a_body_is_told_at_once(gateway, fake, status):
    for _ in range(3):
        assert gateway.chat().status == 200
        fake.script(**raw(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n", keep=True))
        answer = gateway.chat()
        assert answer.status == (404 if status == 404 else 502)
        check_sentence(answer.error["message"])


def test_an_error_midway_keeps_its_words(gateway, fake):
    fake.script(tokens=5, error_after_tokens={"n": 2, "text": "the runner has left the building"})
    answer = gateway.stream(may_be_cut=True)
    assert "the runner has left the building" in answer.stream_error["message"]


def test_a_line_of_30_mb_is_served(gateway, fake):
    fake.script(long_line=30 << 20)
    wire = gateway.open_chat(stream=True)
    answer = wire.answer()
    assert len(answer.content) == 30 << 20 and answer.is_done


@pytest.mark.parametrize("stream", [True, None], ids=["streamed", "whole"])
def test_a_line_over_max_line_bytes_is_refused(start_gateway, fake, stream):
    gateway = start_gateway(max_line_bytes="100KiB")
    fake.script(long_line=200_000)
    answer = gateway.chat(stream=stream, may_be_cut=True)
    assert answer.status == 502 or answer.stream_error["message"]
    fake.reset()
    fake.script(long_line=50_000)
    assert len(gateway.chat(stream=stream).content) == 50_000


def test_garbage_after_the_end_does_not_reach_the_next(gateway, fake):
    for stream in (True, None):
        fake.script(trailing="HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        first = gateway.chat("say:first", stream=stream)
        assert first.status == 200 and first.content == "first"
        second = gateway.chat("say:second", stream=stream)
        assert second.status == 200 and second.content == "second"


def test_lines_after_the_last_one_are_not_passed_on(gateway, fake):
    fake.script_lines(line("a"), last_line(), line("late"), last_line())
    answer = gateway.stream()
    assert answer.content == "a" and answer.is_done
    assert answer.data.count("[DONE]") == 1


def test_a_last_line_without_its_line_break_is_taken_or_told(gateway, fake):
    fake.script(**raw(STREAM + chunk(compact(line("a")) + "\n") + chunk(compact(last_line())) + "0\r\n\r\n"))
    answer = gateway.stream(may_be_cut=True)
    assert answer.content == "a"
    assert (answer.finish == "stop" and answer.is_done) or answer.stream_error["message"]


@pytest.mark.parametrize("ending", ["\r\n", "\n\n", " \n"])
def test_odd_line_ends_are_forgiven(gateway, fake, ending):
    fake.script(**raw(STREAM + chunk(compact(line("a")) + ending) + chunk(compact(last_line()) + ending) + "0\r\n\r\n"))
    answer = gateway.stream()
    assert answer.content == "a" and answer.is_done


def test_many_lines_in_one_chunk_and_one_line_in_many(gateway, fake):
    text = "".join(compact(line(letter)) + "\n" for letter in "abcdef") + compact(last_line()) + "\n"
    fake.script(**raw(STREAM + chunk(text) + "0\r\n\r\n"))
    assert gateway.stream().content == "abcdef"
    fake.script(**raw(STREAM + "".join(chunk(letter) for letter in text) + "0\r\n\r\n"))
    assert gateway.stream().content == "abcdef"


def test_a_body_without_length_ends_with_the_connection(gateway, fake):
    fake.script(**raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + GOOD))
    assert gateway.chat().content == "fine"


def test_an_interim_answer_is_stepped_over(gateway, fake):
    fake.script(**raw("HTTP/1.1 100 Continue\r\n\r\n" + JSON + f"Content-Length: {len(GOOD)}\r\n\r\n" + GOOD))
    assert gateway.chat().content == "fine"


def test_a_string_that_is_not_in_an_object_is_still_an_error(gateway, fake):
    fake.script(status=400, content_type="application/json", body='"no"')
    answer = gateway.chat()
    assert answer.status == 400 and answer.error["message"]


def test_plain_text_of_a_4xx_is_told(gateway, fake):
    fake.script(status=405, content_type="text/plain", body="405 method not allowed")
    answer = gateway.chat()
    assert answer.status == 405 and answer.error["message"]


def test_what_ollama_breaks_does_not_break_the_models(start_gateway, start_fake):
    ollama = start_fake()
    gateway = start_gateway(ollama)
    assert gateway.get("/v1/models").status == 200
    for do in ({"status": 500, "body": "x"}, {"status": 200, "body": "<html>"}, {"status": 200, "body": '{"models":5}'},
               raw(b"\x00" * 100), {"status": 200, "body": json.dumps({"models": [{"name": 5}, None, {"name": "x" * 400}]})}):
        ollama.script(times=2, path="/api/tags", **do)
        assert gateway.chat(model="brand-new", headers={"X-Request-Id": "tags"}).status in (404, 502, 503)
        ollama.reset()
        assert gateway.chat().status == 200


def test_dying_after_the_head(start_gateway, start_fake):
    ollama = start_fake()
    gateway = start_gateway(ollama)
    ollama.script(die=True)
    answer = gateway.stream(may_be_cut=True)
    assert answer.status in (502, 503) or answer.stream_error["message"]
    ollama.process.wait(5)
    ollama.process.stdout.close()
    ollama.start()
    wait_for(lambda: gateway.chat(key=KEY).status == 200, 5)


def test_a_backend_that_does_not_close_after_a_probe_holds_no_descriptors(start_gateway, fake):
    """A probe says `Connection: close`: what an answer says of the connection does not matter."""
    said = b'{"version":"0.9"}'
    fake.script_raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said),
                    keep=True, path="/api/version", times=0)
    gateway = start_gateway()
    folder = f"/proc/{gateway.process.pid}/fd"

    def descriptors_after(count):
        wait_for(lambda: len(fake.seen("/api/version")) >= count, 20, "probes")
        return len(os.listdir(folder))
    before = descriptors_after(2)
    assert descriptors_after(6) <= before + 1
