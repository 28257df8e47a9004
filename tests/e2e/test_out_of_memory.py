"""
Every allocation of a request fails in turn: the process lives, the caller gets the right answer, an honest error or a
closed connection, the next request is served, and nothing stays taken. At its end the gateway has leaked nothing.
"""

import contextlib
import itertools
import json
import mmap
import os
import re
import signal
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import short_folder
from gateway import KEY, Gateway, chat_body
from processes import BIN, is_thread_sanitized
from test_captures import CHATS
from wire import Cut, Wire, chunked, wait_for

PROGRAM = BIN / "qwen-gateway-oom"
PATH = "/v1/chat/completions"
BEARER = [("Authorization", f"Bearer {KEY}")]
FRONT_KEY = "a-front-end-speaks-with-this"
CONTROL, OTHERS = 1, 2  # threads, as allocator.c numbers them
FOREVER = 2**63
AT_REST = {"in_flight": 0, "connections_open": 0, "body_bytes": 0, "backend_running": 0}

pytestmark = pytest.mark.skipif(not PROGRAM.exists() or is_thread_sanitized(), reason="not built with this sanitizer")


class Memory:
    """The controls of allocator.c. With QG_TRACE in the environment the gateway says where each allocation failed."""

    def __init__(self, folder):
        self.path = f"{folder}/allocations"
        with open(self.path, "wb+") as file:
            file.truncate(mmap.PAGESIZE)
            self.map = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def fail(self, first, count, threads):
        struct.pack_into("=QQQQQ", self.map, 8, 0, first, first + count, 0, "QG_TRACE" in os.environ)
        struct.pack_into("=Q", self.map, 0, threads)

    def is_back(self):
        """There is memory again. Returns how many allocations failed."""
        struct.pack_into("=Q", self.map, 0, 0)
        return struct.unpack_from("=Q", self.map, 32)[0]


@pytest.fixture(scope="module")
def small(session_fake):
    """small(**settings) gives a gateway that a Memory of its own can take the memory from, with one worker."""
    with contextlib.ExitStack() as stack:
        def start(**settings):
            folder = stack.enter_context(short_folder())
            memory = Memory(folder)
            settings = {"workers": 1, "max_body_bytes": 1 << 20, "rate_limit": {"enabled": True, "max_requests": 100000},
                        "auth": {"valid_keys": [KEY, {"key": FRONT_KEY, "name": "front", "delegate": True}]}, **settings}
            gateway = Gateway(folder, session_fake.url, program=PROGRAM,
                              environment_extra={"QG_ALLOCATIONS": memory.path}, **settings)
            gateway.memory, gateway.fake = memory, session_fake
            stack.callback(lambda: gateway.process.poll() is None and gateway.stop())
            return gateway
        yield start


# --- what callers do; each returns its answer --------------------------------------------------------------------

def ask(wire, body, headers=BEARER, method="POST", path=PATH):
    return wire.request(method, path, headers, body).answer(method)


def short(wire, number):
    return ask(wire, chat_body("say:short")), lambda answer: answer.content == "short"


def long(wire, number):
    return ask(wire, chat_body("tokens:2000")), lambda answer: answer.content == "".join(f" r{n}" for n in range(2000))


def stream(wire, number):
    return ask(wire, chat_body("say:" + "piece " * 9, stream=True)), lambda answer: answer.content == "piece " * 9 and answer.is_done


def thinking(wire, number):
    """Recorded words, with thinking."""
    return ask(wire, chat_body("hi", stream=True)), lambda answer: answer.reasoning and answer.is_done


def agent(wire, number):
    """A turn of a real agent, with tools: it comes in several reads."""
    _, headers, body = next(chat for chat in CHATS if chat[0].startswith("openclaw-tool"))
    body = {**body, "model": "qwen3:32b", "stream": True}
    return ask(wire, body), lambda answer: answer.finish == "tool_calls"


def in_chunks(wire, number):
    body = json.dumps(chat_body("say:in chunks", metadata={"filler": "x" * 500})).encode() + b" " * 6000
    pieces = [body[at:at + 997] for at in range(0, len(body), 997)]
    wire.request("POST", PATH, [*BEARER, ("Transfer-Encoding", "chunked")], b"")
    for piece in pieces:
        wire.send(chunked(piece)[:-5])
    return wire.send("0\r\n\r\n").answer(), lambda answer: answer.content == "in chunks"


def somebody(wire, number):
    """A person nobody has seen before, behind a front end."""
    headers = [("Authorization", f"Bearer {FRONT_KEY}"), ("X-User-Id", f"person-{number}")]
    return ask(wire, chat_body("say:you"), headers), lambda answer: answer.content == "you"


def wrong_key(wire, number):
    return ask(wire, chat_body(), [("Authorization", "Bearer wrong")]), lambda answer: answer.status == 401 and answer.code


def nowhere(wire, number):
    return ask(wire, None, BEARER, "GET", "/nowhere"), lambda answer: answer.status == 404 and answer.code == "not_found"


def too_large(wire, number):
    wire.request("POST", PATH, [*BEARER, ("Content-Length", str(1 << 30))], b"")
    return wire.answer(), lambda answer: answer.status == 413 and answer.code == "request_too_large"


def unfit(wire, number):
    return ask(wire, chat_body(temperature="hot")), lambda answer: answer.status == 400 and answer.code == "invalid_request"


def unknown_model(wire, number):
    return ask(wire, chat_body(model="nobody-knows:cloud")), lambda answer: answer.status == 404 and answer.code == "model_not_found"


def malformed(wire, number):
    return wire.send("GET / HTTP/9.9\r\n\r\n").answer(), lambda answer: answer.status == 400 and answer.code == "bad_http"


def models(wire, number):
    return ask(wire, None, BEARER, "GET", "/v1/models"), lambda answer: [m["id"] for m in answer.json["data"]].count("qwen3:32b") == 1


def one_model(wire, number):
    return (ask(wire, None, BEARER, "GET", "/v1/models/qwen3%3A32b"),
            lambda answer: answer.json["id"] == "qwen3:32b" and answer.json["owned_by"] == "library")


def health(wire, number):
    return ask(wire, None, [], "GET", "/healthz"), lambda answer: answer.status == 200 and answer.json["status"] == "ok"


def leaves(wire, number):
    """In the midst of a stream, or once it is refused."""
    wire.request("POST", PATH, BEARER, chat_body("tokens:100000@5", stream=True)).wait_until_bytes()
    wire.reset()
    raise Cut("left")


def ollama_refuses(wire, number):
    wire.fake.script(status=500, body={"error": "something went wrong over there"})
    return ask(wire, chat_body()), lambda answer: answer.status == 502 and answer.code == "upstream_error"


def ollama_breaks_off(wire, number):
    wire.fake.script(tokens=5, error_after_tokens={"n": 3, "text": "the runner died"})
    return ask(wire, chat_body(stream=True)), lambda answer: answer.stream_error["code"] == "upstream_error" and not answer.is_done


SCRIPTED = [ollama_refuses, ollama_breaks_off]
REQUESTS = [*SCRIPTED, long, short, stream, thinking, agent, in_chunks, somebody, wrong_key, nowhere, too_large, unfit, unknown_model,
            malformed, models, one_model, health, leaves]


# --- what must hold ----------------------------------------------------------------------------------------------

def is_honest(answer):
    """It says that memory is short, or that the one request too many to be remembered must come again."""
    if answer.is_stream:
        return answer.stream_error["code"] == "out_of_memory" and not answer.is_done
    if answer.status == 429:
        return answer.code == "rate_limit_exceeded" and answer.header("Retry-After")
    return answer.status == 503 and answer.code == "out_of_memory"


def holds(claim, answer):
    with contextlib.suppress(AssertionError, KeyError, IndexError, TypeError, ValueError):
        return bool(claim(answer))
    return False


def connect(gateway):
    wire = Wire(("127.0.0.1", gateway.port), timeout=5)
    wire.fake = gateway.fake
    return contextlib.closing(wire)


def one(gateway, request, number, first, count, kept):
    """One request while memory is short, on a connection of its own or on one that is kept."""
    with contextlib.ExitStack() as stack:
        if kept:
            wire = stack.enter_context(connect(gateway))
            assert ask(wire, chat_body("say:first")).status == 200
        gateway.memory.fail(first, count, OTHERS)
        if not kept:
            wire = stack.enter_context(connect(gateway))
        with contextlib.suppress(Cut, ConnectionError):  # closed: the caller sees it
            answer, is_right = request(wire, number)
            assert holds(is_right, answer) or holds(is_honest, answer), answer


def check_rest(gateway, what):
    def rest():
        found = {name[len("qwen_gateway_"):]: value for name, _, value in gateway.metrics()}
        return {name: found[name] for name in AT_REST}
    try:
        wait_for(lambda: rest() == AT_REST, 5)
    except AssertionError:
        raise AssertionError(f"{what}: still taken: {rest()}") from None


def ask_short(gateway):
    with connect(gateway) as wire:
        answer, is_right = short(wire, 0)
        assert answer.status == 200 and is_right(answer), answer


def try_one(gateway, request, number, first, count, kept=False):
    """One request while memory is short, and what must be true after it. False: as many allocations were not made."""
    what = f"{request.__name__}, allocation {first}{' and all after it' if count > 1 else ''}"
    try:
        one(gateway, request, number, first, count, kept)
        check_rest(gateway, what)  # memory is still short
        failed = gateway.memory.is_back()
        if request in SCRIPTED:
            gateway.fake.reset()
        ask_short(gateway)
        check_rest(gateway, what)
    except (AssertionError, OSError, Cut) as wrong:
        gateway.memory.is_back()
        raise AssertionError(f"{what}: {type(wrong).__name__} {wrong}; status {gateway.process.poll()}"
                             f" {gateway.errors[-9000:]}") from wrong
    return failed > 0


def try_all(gateway, request, kept=False):
    """Fails the first allocation, the second ... until no more are made. Returns how many there are."""
    numbers = itertools.count()
    made = []
    for count in (1, FOREVER):
        made.append(next(first for first in itertools.count() if not try_one(gateway, request, next(numbers), first + 1, count, kept)))
    gateway.check_books()
    return made


@pytest.fixture
def small_shared(small_of_the_module, fake):  # whose books and scripts are empty
    return small_of_the_module


@pytest.fixture(scope="module")
def small_of_the_module(small):
    return small()


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.__name__)
def test_every_allocation_of_a_request_fails_in_turn(small_shared, request_):
    made = try_all(small_shared, request_)
    assert made[0] >= 3, "was anything tried?"  # the connection takes that many


def test_and_of_a_second_one_on_a_kept_connection(small_shared):
    made = [try_all(small_shared, request, kept=True)[0] for request in (short, long, stream, agent, in_chunks, models, wrong_key)]
    assert sum(made) >= 3, f"{made}: was anything tried?"  # most of it is there already


@pytest.mark.parametrize("request_", [agent, somebody, models, malformed], ids=lambda request: request.__name__)
def test_every_allocation_of_a_first_request_fails_in_turn(small, fake, request_):
    """Nothing is warm yet: what a worker keeps for its next requests must be made."""
    def attempt(first, count):
        gateway = small()
        try:
            return try_one(gateway, request_, 0, first, count)
        finally:
            gateway.stop()
    with ThreadPoolExecutor(2) as pool:
        for count in (1, FOREVER):
            made = 0
            while all(pool.map(attempt, range(made + 1, made + 9), [count] * 8)):
                made += 8
            assert made >= 8, "was anything tried?"


# --- the control thread ------------------------------------------------------------------------------------------

def says(gateway):
    return len(re.findall("configuration reloaded from|reload refused, ", gateway.errors))


def reload_one(gateway, number, first, count):
    """A reload while memory is short is taken whole or not at all, and says which. Returns whether an allocation failed."""
    keys = [KEY, f"key-{number}"]
    _, other = gateway.backends  # not the one in force: it must be made, and watched
    gateway.write_config(auth={"valid_keys": [KEY, {"key": keys[1], "name": f"name-{number}"}]},
                         ollama_api=None,
                         backends=[{"name": f"gpu-{other}", "url": f"http://127.0.0.1:{other}", "slots": 4,
                                    "models": ["qwen3:32b", "llama3"]},
                                   {"name": "standby", "url": "http://127.0.0.1:9", "weight": 0}],
                         max_prompt_chars=1000 + number)
    before = says(gateway)
    gateway.memory.fail(first, count, CONTROL | OTHERS)
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: says(gateway) > before or gateway.process.poll() is not None, 5, "a word about the reload")
    failed = gateway.memory.is_back()
    assert gateway.process.poll() is None, f"it ended with {gateway.process.returncode}"
    is_new = re.findall("configuration reloaded from|reload refused, ", gateway.errors)[-1].startswith("configuration")
    gateway.backends = gateway.backends[::-1] if is_new else gateway.backends
    wait_for(lambda: gateway.operator("/readyz").status == 200, 5, "readiness")
    wait_for(lambda: gateway.chat("say:short", key=keys[1]).status == (200 if is_new else 401), 5, "the keys of the reload")
    return failed > 0


def test_every_allocation_of_a_reload_fails_in_turn(small, fake, start_fake):
    gateway = small()
    gateway.backends = [fake.port, start_fake().port]
    numbers = itertools.count()
    for count, step in ((1, 1), (FOREVER, 5)):
        for first in itertools.count(1, step):
            try:
                if not reload_one(gateway, next(numbers), first, count):
                    break
            except (AssertionError, OSError, Cut) as wrong:
                gateway.memory.is_back()
                raise AssertionError(f"allocation {first} of a reload: {wrong}; {gateway.errors[-6000:]}") from wrong
        assert first > 100, "was anything tried?"
    check_rest(gateway, "reloads")
    gateway.check_books()
