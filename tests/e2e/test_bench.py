"""The judge is judged: what the load generator of tests/bench/run must notice, it notices. No gateway is asked here."""

import collections
import contextlib
import json
import os
import pathlib
import sys
import types

import pytest

from fake import last_line, line
from processes import BIN, ROOT, free_port, run

sys.path.insert(0, str(ROOT / "tests" / "bench"))
from loads import Job, pace_of, spread_of  # noqa: E402
from measure import FIRST_MS, measure  # noqa: E402
from slices import ANSWERED, STREAMED, USED, cost_of, in_turn, put_streams_together, put_together  # noqa: E402

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
    slices = [load("requests", chat(stream=False), "--connections", 1, "--run-ms", 200, "--rate", 100) for _ in range(2)]
    fake.reset()
    fake.script(times=0, head_delay_ms=30, tokens=1)
    slices.append(load("requests", chat(stream=False), "--connections", 1, "--run-ms", 200, "--rate", 20))
    answers = [each["answers"] for each in slices]
    slowest = min(value for value, _ in slices[2]["latencies"])
    assert [sum(count for _, count in each["latencies"]) for each in slices] == answers
    said = put_together(slices)
    assert said["answers"] == sum(answers) and said["wrong"] == 0
    assert said["p50_us"] < slowest <= said["p99_us"] and slowest >= 29_000
    assert said["per_s"] == pytest.approx(sum(answers) * 1e6 / sum(each["took_us"] for each in slices))


def test_what_slices_cost_is_all_that_ran_by_all_that_was_answered(load, fake):
    """The stand-in itself is watched. A slice of few answers weighs as little as it should: a mean of the slices is not meant."""
    fake.script(times=0, tokens=1)
    slices = [load("requests", chat(stream=False), "--connections", 2, "--run-ms", run_ms, "--rate", rate, "--pid", fake.process.pid)
              for run_ms, rate in ((100, 50), (400, 1000))]
    assert all(each["ran_us"] > 0 for each in slices)
    said = put_together(slices)
    assert said["cpu_us"] * said["answers"] == pytest.approx(sum(each["ran_us"] for each in slices))
    assert said["user_us"] + said["system_us"] == pytest.approx(said["cpu_us"])
    took = sum(each["took_us"] for each in slices)
    assert said["own_percent"] * took == pytest.approx(100 * sum(each["ran_us"] for each in slices))


def test_costs_are_shared_by_ticks_and_none_is_told_of_what_was_not_seen():
    used = {**dict.fromkeys(USED, 0), "took_us": 1000, "ran_us": 600, "user_ticks": 1, "system_ticks": 3, "callers_us": 250}
    said = cost_of(used, 30)
    assert (said["cpu_us"], said["user_us"], said["system_us"]) == (20, 5, 15)
    assert (said["own_percent"], said["callers_percent"], said["backend_percent"]) == (60, 25, 0)
    assert "cpu_us" not in cost_of(used, 0) and "cpu_us" not in cost_of({**used, "ran_us": 0}, 30)
    assert not cost_of(dict.fromkeys(USED, 0), 0)


def test_slices_of_streams_add_their_faults_and_pool_their_gaps(load, fake):
    """One slice is slow and loses a frame; of one all streams end before the last begins, which then tells nothing of costs."""
    fake.script_lines(*GOOD, times=4, token_ms=40)
    slices = [load("streams", chat(stream=True), "--connections", 4, "--tokens", 4, "--pid", fake.process.pid)]
    fake.script_lines(*GOOD[:1], *GOOD[2:], times=1, token_ms=200)
    slices.append(load("streams", chat(stream=True), "--connections", 1, "--tokens", 4, "--pid", fake.process.pid))
    fake.script_lines(*GOOD, times=2)
    slices.append(load("streams", chat(stream=True), "--connections", 2, "--tokens", 4, "--spread-ms", 600, "--pid", fake.process.pid))
    assert [each["streams_measured"] for each in slices] == [4, 1, 0] and slices[2]["tokens_measured"] == 0
    said = put_streams_together(slices)
    assert (said["streams"], said["tokens"], said["lost"], said["failed"]) == (7, 4 * 4 + 3 + 2 * 4, 1, 0)
    assert said["cpu_us"] * said["tokens_measured"] == pytest.approx(slices[0]["ran_us"] + slices[1]["ran_us"])
    assert said["gap_p50_ms"] < 120 < said["gap_p999_ms"]
    assert said["kib_a_stream"] == pytest.approx((slices[0]["grown_bytes"] + slices[1]["grown_bytes"]) / 5 / 1024)


def test_in_slices_nobody_goes_first_always():
    turns = [in_turn(list("abc"), turn) for turn in range(6)]
    assert all(sorted(turn) == list("abc") for turn in turns)
    assert {turn[0] for turn in turns} == set("abc") == {turn[-1] for turn in turns}


class Stage:
    """Contenders and callers that only note what happens: who began, who was asked for how long, who ended."""

    def __init__(self, names):
        self.seen = []
        self.contenders = [types.SimpleNamespace(name=name, path="/", running=self.running_of(name)) for name in names]
        self.bench = types.SimpleNamespace(bodies=collections.defaultdict(str), backend_pid=0, count=None, callers=self.callers)
        self.answer = {"latencies": [], "firsts": [], "gaps": [], "late_p99_us": 0, "streams_measured": 0, "answers": 1,
                       **dict.fromkeys((*USED, *ANSWERED, *STREAMED), 1)}

    def running_of(self, name):
        @contextlib.contextmanager
        def running(bench, job, backend_port):
            self.seen.append(("begins", name))
            yield name, os.getpid()
            self.seen.append(("ends", name))
        return running

    def callers(self, arguments):
        told = dict(zip(arguments[1::2], arguments[2::2]))
        self.seen.append((told.get("--run-ms"), told["--port"]))
        return self.answer


def test_all_run_while_each_is_asked_in_turn_and_first_once_without_counting():
    stage = Stage("ab")
    job = Job("a", "a", "requests", "", slices=4, connections=1, slice_ms=7)
    said = measure(stage.bench, job, stage.contenders, 0)
    assert stage.seen == [("begins", "a"), ("begins", "b"), (FIRST_MS, "a"), (FIRST_MS, "b"),
                          *((7, name) for name in "abbabaab"), ("ends", "b"), ("ends", "a")]
    assert [each["answers"] for each in said] == [4, 4]
    assert all(each["idle_percent"] >= 0 for each in said)


def test_streams_of_one_run_while_nobody_else_is_there():
    stage = Stage("ab")
    said = measure(stage.bench, Job("c", "c", "streams", "", slices=2, connections=1, tokens=1), stage.contenders, 0)
    assert stage.seen == [step for name in "abba" for step in (("begins", name), (None, name), ("ends", name))]
    assert [each["streams"] for each in said] == [2, 2]


@pytest.mark.parametrize("streams", [3, 200, 1000, 5000, 9000])
def test_streams_begin_so_that_no_two_are_in_step(streams):
    """The backend keeps to the moment at which it was asked, so whoever is asked in step stays in step."""
    token_ms = pace_of(streams, 50_000)
    spread_ms = spread_of(streams, token_ms)
    moments = {spread_ms * index % (token_ms * streams) for index in range(streams)}  # in parts of a millisecond
    assert len(moments) == streams
    assert streams / spread_ms <= 2, "that is more than 2,000 a second"
