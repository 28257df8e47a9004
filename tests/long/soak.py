"""
One gateway under mixed load for a long time: good requests, refused ones, callers who leave, who read slowly or not at all;
beside that reloads, good and bad, rotated logs, and a backend that dies, freezes and comes back.
Checked: every answer as it comes; memory and descriptors stay where they are; at the end every book says the same: what
callers sent and were told, what is in the log and what the metrics count, by status and token.
A line a minute, the checks at the end, the verdict; the exit status says the same. Needs nobody.

    soak.py MINUTES
"""

import collections
import contextlib
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time

from fake import Fake
from gateway import ACCESS_LINE, KEY, Gateway, chat_body
from processes import open_descriptors, resident_bytes
from wire import Cut, Wire, wait_for

LOADERS, WORKERS = 24, 2
SAMPLE_S, TROUBLE_S, REPORT_S = 2, 5, 60
LONG_S = 900  # a shorter run's second half may still be filling what its first had no need of
WRITE_TIMEOUT_S, HEAD_TIMEOUT_S = 5, 8  # the second longer than a busy machine holds up a caller who has connected
KEPT_S = 60  # as long as an idle connection to a backend is kept
FEW_KEY = "a-key-with-few-requests"
PATH = "/v1/chat/completions"
AWAY = (502, 503, 504)  # while the backend is dead or frozen
BEARER = [("Authorization", f"Bearer {KEY}")]
SETTINGS = dict(
    workers=WORKERS, write_timeout=f"{WRITE_TIMEOUT_S}s", head_timeout=f"{HEAD_TIMEOUT_S}s", heartbeat_interval="1s", commit_after="1s",
    rate_limit={"enabled": True, "max_requests": 1000000, "window_seconds": 60},
    auth={"valid_keys": [KEY, {"key": FEW_KEY, "name": "few", "max_requests": 20}]})


class Wrong(Exception):
    """An answer that is not what it should be."""


def expect(is_so, what):
    if not is_so:
        raise Wrong(what)


# --- what callers do: each counts what it sends, and leaves only when the gateway surely has it ---------------------------

def said(answer, text):
    """A whole answer or a stream: the text is there to the last byte, or it says why not. False: the connection is closed."""
    if answer.status in AWAY:
        expect(answer.error["code"], answer)
    elif answer.status != 200:
        raise Wrong(answer)
    elif answer.is_stream and answer.stream_error:
        expect(not answer.is_done and answer.finish is None, answer)
        return False
    else:
        expect(answer.content == text and (answer.is_done if answer.is_stream else answer.finish == "stop"), answer)
    return True


def numbered(count):
    """What the stand-in says to tokens:N."""
    return "".join(f" r{i}" for i in range(count))


def whole(gateway, chance, sent):
    text = "x" * chance.randrange(1, 3000)
    sent()
    said(gateway.chat(f"say:{text}"), text)


def stream(gateway, chance, sent):
    text = "Zeichen für Zeichen ✓ " * chance.randrange(1, 40)
    sent()
    said(gateway.stream(f"say:{text}"), text)


def paced(gateway, chance, sent):
    sent()
    said(gateway.stream("tokens:100@10"), numbered(100))


def kept(gateway, chance, sent):
    with contextlib.closing(gateway.wire()) as wire:
        for _ in range(5):
            sent()
            wire.request("POST", PATH, BEARER, chat_body("say:again", stream=chance.random() < 0.5))
            if not said(wire.answer(), "again"):
                break
            sent(2)
            listed = wire.request("GET", "/v1/models", BEARER).answer("GET")
            expect(listed.status == 200 and listed.json["data"], listed)
            unfit = wire.request("POST", PATH, BEARER, chat_body(temperature="hot")).answer()
            expect(unfit.status == 400, unfit)


def pipelined(gateway, chance, sent):
    with contextlib.closing(gateway.wire()) as wire:
        sent(3)
        for _ in range(3):
            wire.request("POST", PATH, BEARER, chat_body("say:in a row"))
        for _ in range(3):
            said(wire.answer(), "in a row")


def large(gateway, chance, sent):
    tool = {"type": "function", "function": {"name": "f", "description": "d" * chance.randrange(100000, 500000),
                                             "parameters": {"type": "object", "properties": {}}}}
    sent()
    answer = gateway.chat("hi", tools=[tool])
    expect(answer.status in AWAY or answer.finish == "tool_calls", answer)


def refused(gateway, chance, sent):
    method, path, body, key, status = chance.choice([
        ("POST", PATH, chat_body(), "wrong", 401), ("GET", "/nowhere", None, KEY, 404), ("PUT", PATH, None, KEY, 405),
        ("POST", PATH, "{", KEY, 400), ("POST", PATH, chat_body(model="nobody-knows:cloud"), KEY, 404),
        ("POST", PATH, chat_body("a" * 40000), KEY, 400), ("GET", "/healthz", None, None, 200)])
    sent()
    answer = gateway.call(method, path, body, key=key)
    expect(answer.status == status, answer)


def limited(gateway, chance, sent):
    sent()
    answer = gateway.chat("say:few", key=FEW_KEY)
    expect(answer.status in (200, 429, *AWAY), answer)


def malformed(gateway, chance, sent):
    with contextlib.closing(gateway.wire()) as wire:
        sent()
        answer = wire.send(chance.choice(["GET / HTTP/9.9\r\n\r\n", "\0\1\2\r\n\r\n", f"POST {PATH} HTTP/1.1\r\n\r\n"])).answer()
        expect(answer.status == 400 and wire.is_closed(), answer)


def announced(gateway, chance, sent):
    with contextlib.closing(gateway.wire()) as wire:
        sent()
        answer = wire.request("POST", PATH, [*BEARER, ("Content-Length", str(1 << 30))], b"").answer()
        expect(answer.status == 413, answer)


def leaves_in_stream(gateway, chance, sent):
    sent()
    wire = gateway.open_chat("tokens:400@5", stream=True).wait_until_bytes()
    chance.choice([wire.close, wire.reset])()


def leaves_before_the_answer(gateway, chance, sent):
    sent()
    with contextlib.closing(gateway.open_chat(model="slow", max_tokens=200)) as wire:
        wire.half_close().until_closed()


def leaves_before_the_body(gateway, chance, sent):
    sent()
    wire = gateway.wire().request("POST", PATH, [*BEARER, ("Content-Length", "1000"), ("Expect", "100-continue")], b"")
    expect(wire.head().status == 100, "no 100 Continue came")
    chance.choice([wire.close, wire.reset])()


def leaves_in_the_body(gateway, chance, sent):
    sent()
    gateway.wire().request("POST", PATH, [*BEARER, ("Content-Length", "1000")], b'{"model":').close()


def stops_in_the_head(gateway, chance, sent):
    with contextlib.closing(gateway.wire().send(f"POST {PATH} HTTP/1.1\r\nHost: a")) as wire:
        sent()
        expect(wire.answer().status == 408, "no 408 came")


def says_nothing(gateway, chance, sent):
    gateway.wire().close()


def long_answer(wire):
    """As wire.answer(), for tens of thousands of chunks."""
    answer = wire.head()
    if answer.header("Transfer-Encoding"):
        answer.body = b"".join(iter(wire.chunk, b""))
    else:
        wire.body_of(answer)
    return answer


def reads_slowly(gateway, chance, sent):
    sent()
    with contextlib.closing(gateway.open_chat("tokens:25000", stream=True, receive_buffer=131072)) as wire:
        more, pauses = wire.more, iter(range(100))
        wire.ends_at += 300

        def slowly():
            if next(pauses, None) is not None:
                time.sleep(0.02)  # the slowness is what is tried
            return more()
        wire.more = slowly
        said(long_answer(wire), numbered(25000))


def reads_nothing(gateway, chance, sent):
    sent()
    with contextlib.closing(gateway.open_chat("tokens:60000", stream=True, receive_buffer=4096)) as wire:
        time.sleep(3 * WRITE_TIMEOUT_S + 1)  # the silence is what is tried; the backend may be frozen meanwhile
        with contextlib.suppress(Cut):
            answer = long_answer(wire)
            expect(answer.status in AWAY or answer.stream_error, "a caller who read nothing got all")


# How often each is done. The slow ones cost seconds, the last megabytes.
MIX = {whole: 30, stream: 30, kept: 10, pipelined: 10, refused: 15, limited: 5, large: 5, malformed: 5, announced: 3,
       leaves_in_stream: 15, leaves_before_the_body: 8, leaves_in_the_body: 8, says_nothing: 5, paced: 4,
       leaves_before_the_answer: 6, stops_in_the_head: 2, reads_slowly: 1, reads_nothing: 1}


class CountingWire(Wire):
    """Counts the answers whose head came."""

    def __init__(self, load, *arguments, **options):
        super().__init__(*arguments, **options)
        self.load = load

    def head(self, method="POST"):
        answer = super().head(method)
        if answer.status != 100:
            with self.load.lock:
                self.load.told[answer.status] += 1
        return answer


class Load:
    """The callers. `sent` counts requests, `told` the statuses that came, `wrong` keeps what was not as it should be."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.ends = threading.Event()
        self.lock = threading.Lock()
        self.sent = 0
        self.told = collections.Counter()
        gateway.wire = self.wire
        self.done = collections.Counter()
        self.wrong = []
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(LOADERS)]

    def wire(self, source=None, **options):
        """A caller's connection; the gateway keeps no list of so many."""
        return CountingWire(self, ("127.0.0.1", self.gateway.port), source, **options)

    def run(self, number):
        chance = random.Random(number)
        while not self.ends.is_set():
            case, = chance.choices(list(MIX), list(MIX.values()))
            began = time.monotonic()
            try:
                case(self.gateway, chance, self.count)
            except Exception as wrong:  # whatever it is, it is a finding
                self.note(f"{time.strftime('%X')} {case.__name__}, after {time.monotonic() - began:.1f} s: "
                          f"{type(wrong).__name__}: {str(wrong)[:600]}")
            with self.lock:
                self.done[case.__name__] += 1

    def count(self, requests=1):
        with self.lock:
            self.sent += requests

    def note(self, wrong):
        with self.lock:
            self.wrong.append(wrong)

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.ends.set()
        for thread in self.threads:
            thread.join()


# --- what operators and bad luck do -----------------------------------------------------------------------------------------

class Trouble(threading.Thread):
    """Every few seconds another thing happens to the gateway or its backend. It must be as before soon after."""

    def __init__(self, load, fake):
        super().__init__()
        self.load, self.gateway, self.fake = load, load.gateway, fake
        self.chance = random.Random(1)
        self.done = collections.Counter()
        self.old = Book()  # of logs that were rotated away
        self.rotated = None

    def run(self):
        kinds = [self.reload, self.reload_badly, self.rotate, self.kill, self.freeze]
        while not self.load.ends.wait(TROUBLE_S):
            kind = self.chance.choice(kinds)
            try:
                kind()
                self.done[kind.__name__] += 1
                wait_for(self.is_ready, 10, f"ready after {kind.__name__}")
            except (AssertionError, OSError) as wrong:
                self.load.note(f"{time.strftime('%X')} {kind.__name__}: {wrong}")

    def is_ready(self):
        return self.gateway.operator("/readyz").status == 200

    def hup(self, result):
        before = self.gateway.metric("reloads_total", result=result)
        self.gateway.signal(signal.SIGHUP)
        wait_for(lambda: self.gateway.metric("reloads_total", result=result) == before + 1, 10, f"a reload {result}")

    def reload(self):
        self.gateway.write_config(heartbeat_interval=self.chance.choice(["500ms", "1s"]))
        self.hup("ok")

    def reload_badly(self):
        self.gateway.config_path.write_text("listen: {\n")
        self.hup("refused")
        self.gateway.write_config()

    def rotate(self):
        """What was rotated away last time has nobody writing to it any more."""
        self.count_rotated()
        self.rotated = self.gateway.log_path.with_suffix(".old")
        self.gateway.log_path.rename(self.rotated)
        self.gateway.signal(signal.SIGUSR1)
        wait_for(self.gateway.log_path.exists, 10, "a new log")

    def count_rotated(self):
        if self.rotated:
            self.old.read(self.rotated)
            self.rotated.unlink()
            self.rotated = None

    def kill(self):
        self.fake.kill()
        self.load.ends.wait(self.chance.uniform(0.1, 3))
        self.fake.start()

    def freeze(self):
        self.fake.freeze()
        self.load.ends.wait(self.chance.uniform(0.1, 5))
        self.fake.thaw()


class Book:
    """What access lines say, added up."""

    def __init__(self):
        self.lines = self.prompt_tokens = self.completion_tokens = 0
        self.statuses = collections.Counter()

    def read(self, path):
        with open(path, errors="replace") as log:
            for line in log:
                if match := ACCESS_LINE.match(line.rstrip("\n")):
                    fields = dict(pair.split("=", 1) for pair in match["rest"].split())
                    self.lines += 1
                    self.statuses[int(match["status"])] += 1
                    self.prompt_tokens += int(fields.get("prompt_tokens", 0))
                    self.completion_tokens += int(fields.get("completion_tokens", 0))
        return self

    def plus(self, path):
        """With another log that may still grow."""
        both = Book()
        for name, value in vars(self).items():
            setattr(both, name, value + 0 if isinstance(value, int) else value.copy())
        return both.read(path)

    def classes(self):
        found = collections.Counter()
        for status, count in self.statuses.items():
            found[f"{status // 100}xx"] += count
        return dict(sorted(found.items()))


# --- what is measured -------------------------------------------------------------------------------------------------------

def watch(load, trouble, seconds):
    """[(resident bytes, descriptors)], until the time is over or the gateway is gone. Says a line a minute."""
    samples = []
    began = reported = time.monotonic()
    while time.monotonic() < began + seconds:
        load.ends.wait(SAMPLE_S)
        if load.gateway.process.poll() is not None:
            load.note(f"the gateway ended with {load.gateway.process.returncode}: {load.gateway.errors[-3000:]}")
            break
        samples.append((resident_bytes(load.gateway.process.pid), open_descriptors(load.gateway.process.pid)))
        if time.monotonic() - reported >= REPORT_S:
            reported += REPORT_S
            print(f"{(time.monotonic() - began) / 60:4.0f} min: {load.sent} requests, {sum(trouble.done.values())} events, "
                  f"{samples[-1][0] / 2**20:.1f} MiB, {samples[-1][1]} descriptors, {len(load.wrong)} wrong", flush=True)
    return samples


def slope(values):
    """The growth an hour of a straight line through the samples, without the first fifth."""
    values = values[len(values) // 5:]
    middle, mean = (len(values) - 1) / 2, statistics.mean(values)
    steps = sum((at - middle) ** 2 for at in range(len(values)))
    return sum((at - middle) * (value - mean) for at, value in enumerate(values)) / steps * 3600 / SAMPLE_S


def growth(values):
    """The medians of both halves, without the first fifth, in which caches and pools fill."""
    values = values[len(values) // 5:]
    return statistics.median(values[:len(values) // 2]), statistics.median(values[len(values) // 2:])


class Checks:
    passed = failed = 0

    def add(self, what, is_so, shown):
        self.passed += is_so
        self.failed += not is_so
        print(f"{'passed' if is_so else 'FAILED'}: {what}: {shown}", flush=True)


def check_flat(checks, samples):
    if len(samples) < 10:
        checks.add("samples", False, f"only {len(samples)}")
        return
    resident, descriptors = zip(*samples)
    before, after = growth(resident)
    is_long = len(samples) * SAMPLE_S >= LONG_S
    checks.add("memory is flat", after <= before * 1.05 + ((1 if is_long else 4) << 20),
               f"{before / 2**20:.1f} MiB, later {after / 2**20:.1f} MiB, at most {max(resident) / 2**20:.1f} MiB, "
               f"{slope(resident) / 2**20:+.2f} MiB an hour")
    before, after = growth(descriptors)
    checks.add("descriptors are flat", after <= before + LOADERS / 2, f"{before}, later {after}, at most {max(descriptors)}")


def check_books(checks, load, trouble, descriptors_before):
    gateway = load.gateway

    def books():
        book = trouble.old.plus(gateway.log_path)
        return {"sent": load.sent, "lines": book.lines, "requests_total": int(gateway.metric("requests_total"))}

    def rest():
        return {name: int(gateway.metric(name)) for name in ("in_flight", "backend_running", "connections_open", "body_bytes")}

    with contextlib.suppress(AssertionError):
        wait_for(lambda: not any(rest().values()), 20, "rest")
    checks.add("nothing is under way any more", not any(rest().values()), rest())
    trouble.count_rotated()
    with contextlib.suppress(AssertionError):
        wait_for(lambda: len(set(books().values())) == 1, 10, "equal books")
    checks.add("the books are equal", len(set(books().values())) == 1, books())
    checks.add("no line was dropped", gateway.metric("log_dropped_total") == 0, int(gateway.metric("log_dropped_total")))
    compare_books(checks, load, trouble.old.plus(gateway.log_path))
    with contextlib.suppress(AssertionError):
        wait_for(lambda: open_descriptors(gateway.process.pid) <= descriptors_before, KEPT_S + 10, "the descriptors")
    now = open_descriptors(gateway.process.pid)
    checks.add("all descriptors were given back", now <= descriptors_before, f"{descriptors_before} before, {now} now")


def compare_books(checks, load, book):
    """Log and metrics must agree; a caller may have left before he was told what the log says, but not the other way."""
    gateway = load.gateway
    counted = {name: int(gateway.metric("requests_total", status=name)) for name in book.classes()}
    checks.add("log and metrics agree on every status", counted == book.classes(), f"{book.classes()}, counted {counted}")
    tokens = {name: int(gateway.metric("tokens_total", direction=name)) for name in ("prompt", "completion")}
    logged = {"prompt": book.prompt_tokens, "completion": book.completion_tokens}
    checks.add("log and metrics agree on tokens", tokens == logged and all(logged.values()), f"{logged}, counted {tokens}")
    told = {status: count for status, count in sorted(load.told.items()) if status != 200}
    checks.add("what callers were told is in the log", all(count <= book.statuses[status] for status, count in told.items()),
               f"told {told}, logged {dict(sorted(book.statuses.items()))}")


def main():
    minutes = float(sys.argv[1])
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="qg-") as folder:
        fake = Fake(folder)
        gateway = Gateway(folder, fake.url, **SETTINGS)
        load = Load(gateway)
        trouble = Trouble(load, fake)
        descriptors_before = open_descriptors(gateway.process.pid)
        load.start()
        trouble.start()
        samples = watch(load, trouble, minutes * 60)
        load.ends.set()
        trouble.join()
        load.stop()
        print("calls:", dict(load.done), "\nevents:", dict(trouble.done), flush=True)
        checks.add("every answer and every event was as it should be", not load.wrong, load.wrong[:10] or load.sent)
        check_flat(checks, samples)
        if gateway.process.poll() is None:
            check_books(checks, load, trouble, descriptors_before)
        gateway.close_wires()
        try:
            gateway.end(10)
            checks.add("it ends", True, "status 0")
        except AssertionError as wrong:
            checks.add("it ends", False, wrong)
        fake.stop()
    print("VERDICT:", "it holds" if not checks.failed else "it does not hold")
    print(f"{checks.passed} passed, {checks.failed} failed")
    return checks.failed > 0


if __name__ == "__main__":
    sys.exit(main())
