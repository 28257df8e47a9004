"""The judge is judged: what the load generator of tests/bench/run must notice, it notices. No gateway is asked here."""

import json
import pathlib
import sys

import pytest

from fake import last_line, line
from processes import BIN, ROOT, free_port, run

sys.path.insert(0, str(ROOT / "tests" / "bench"))
from slices import in_turn, put_together  # noqa: E402

GOOD = [line(" r0"), line(" r1"), line(" r2"), line(" r3"), last_line()]
# What the backend says instead, and what must be counted.
STREAMS = {
    "a whole one": (GOOD, {}),
    "a frame is lost": (GOOD[:1] + GOOD[2:], {"lost": 1}),
    "the last frame is lost": (GOOD[:3] + GOOD[4:], {"lost": 1, "failed": 1}),
    "a frame comes twice": (GOOD[:2] + GOOD[1:], {"doubled": 1}),
    "a frame comes too late": ([GOOD[0], GOOD[2], GOOD[1], *GOOD[3:]], {"lost": 1, "reordered": 1}),
    "the end is lost": (GOOD[:4], {"failed": 1}),
}


@pytest.fixture
def load(fake, folder):
    """Runs a load against the stand-in for Ollama itself. Gives what was counted."""
    body_path = pathlib.Path(folder) / "body.json"

    def load(kind, body, *arguments, port=fake.port):
        body_path.write_text(json.dumps(body))
        done = run([BIN / "bench_load", kind, "--port", port, "--path", "/api/chat", "--body", body_path, *arguments])
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    return load


def chat(**fields):
    return {"model": "qwen3:32b", "messages": [{"role": "user", "content": "hi"}], **fields}


@pytest.mark.parametrize("name", STREAMS)
def test_what_happens_to_frames_is_counted(load, fake, name):
    lines, expected = STREAMS[name]
    fake.script_lines(*lines, times=3)
    said = load("streams", chat(stream=True), "--connections", 3, "--tokens", 4, "--spread-ms", 10)
    assert said["streams"] == 3
    for fault in ("lost", "doubled", "reordered", "failed"):
        assert said[fault] == 3 * expected.get(fault, 0), (fault, said)


def test_a_stream_that_is_refused_has_failed(load, fake):
    fake.script(times=0, status=503, body={"error": "busy"})
    said = load("streams", chat(stream=True), "--connections", 2, "--tokens", 4)
    assert said["failed"] == 2 and said["tokens"] == 0


def test_a_delay_within_a_stream_is_a_gap(load, fake):
    fake.script_lines(*GOOD, first_token_ms=50, token_ms=100)
    said = load("streams", chat(stream=True), "--connections", 1, "--tokens", 4)
    assert said["first_p50_us"] >= 49_000
    assert said["gap_p999_us"] >= 60_000  # the longest; a machine that stood still before may have made the next ones shorter


def test_wrong_answers_and_broken_connections_are_counted(load, fake):
    fake.script(status=500, body={"error": "no"}).script(close_before_answer=True)
    said = load("requests", chat(stream=False), "--connections", 1, "--run-ms", 300)
    assert said["wrong"] == 1 and said["broken"] == 1 and said["reconnects"] == 1
    assert said["answers"] > 2


def test_at_a_fixed_rate_a_slow_answer_does_not_hide_those_behind_it(load, fake):
    """60 of 100 questions fall due while the only connection waits: more than half of all must be seen to be late."""
    fake.script(head_delay_ms=600, tokens=1)
    said = load("requests", chat(stream=False), "--connections", 1, "--run-ms", 1000, "--rate", 100)
    assert 50 <= said["answers"] <= 101
    assert said["p50_us"] > 50_000


def test_questions_that_were_never_asked_are_told(load, fake):
    fake.script(silent=True)
    said = load("requests", chat(stream=False), "--connections", 1, "--run-ms", 300, "--rate", 100)
    assert said["answers"] == 0 and said["behind"] >= 20


def test_the_start_of_a_program_is_timed_until_it_answers(load):
    port = free_port()
    said = load("start", chat(stream=False), "--", BIN / "fake-ollama", "--listen", f"127.0.0.1:{port}", "--control", "none",
                "--quiet", port=port)
    assert said["start_us"] > 0 and said["resident"] > 1_000_000
    said = load("requests", chat(stream=False), "--run-ms", 50, port=port)
    assert said["answers"] == 0, "it was not ended"


def test_slices_put_together_say_what_one_long_measurement_would(load, fake):
    """Two fast slices and one slow: each latency counts once, so the median is fast, the 99th percentile slow."""
    fake.script(times=0, tokens=1)
    slices = [load("requests", chat(stream=False), "--connections", 1, "--run-ms", 200, "--rate", 100, "--slice") for _ in range(2)]
    fake.reset()
    fake.script(times=0, head_delay_ms=30, tokens=1)
    slices.append(load("requests", chat(stream=False), "--connections", 1, "--run-ms", 200, "--rate", 20, "--slice"))
    answers = [each["answers"] for each in slices]
    slowest = min(value for value, _ in slices[2]["latencies"])
    assert [sum(count for _, count in each["latencies"]) for each in slices] == answers
    said = put_together(slices)
    assert said["answers"] == sum(answers) and said["wrong"] == 0
    assert said["p50_us"] < slowest <= said["p99_us"] and slowest >= 29_000


def test_in_slices_nobody_goes_first_always():
    turns = [in_turn(list("abc"), turn) for turn in range(6)]
    assert all(sorted(turn) == list("abc") for turn in turns)
    assert {turn[0] for turn in turns} == set("abc") == {turn[-1] for turn in turns}
