"""SIGHUP, SIGTERM, SIGUSR1, an inherited listening socket, and what systemd is told."""

import pathlib
import signal
import socket
import threading
import time

import pytest

from gateway import KEY, MODEL, chat_body
from processes import free_port
from wire import Cut, wait_for

pytestmark = pytest.mark.threads
BEARER = {"Authorization": f"Bearer {KEY}"}


# --- SIGHUP ---------------------------------------------------------------------------------------------------

def reload(gateway, **changes):
    gateway.write_config(**changes)
    gateway.signal(signal.SIGHUP)


def test_a_reload_brings_new_keys_and_takes_old_ones_away(start_gateway):
    gateway = start_gateway()
    assert gateway.chat(key="new-key").status == 401
    reload(gateway, auth={"valid_keys": ["new-key"]})
    wait_for(lambda: gateway.chat(key="new-key").status == 200)
    assert gateway.chat(key=KEY).status == 401


def test_a_bad_file_changes_nothing_and_says_why(start_gateway):
    gateway = start_gateway()
    good = gateway.config_path.read_text()
    gateway.config_path.write_text(good + "no_such_key: 1\n")
    gateway.signal(signal.SIGHUP)
    gateway.wait_log("no_such_key")
    assert gateway.chat().status == 200
    gateway.config_path.unlink()
    said = (gateway.log + gateway.errors).count("config.yaml")
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: (gateway.log + gateway.errors).count("config.yaml") > said)
    assert gateway.chat().status == 200


@pytest.mark.parametrize("change", ["listen", "operator_listen", "workers"])
def test_a_change_that_needs_a_restart_is_refused_whole(start_gateway, folder, change):
    gateway = start_gateway()
    changed = {"listen": f"127.0.0.1:{free_port()}", "operator_listen": f"unix:{folder}/other.sock", "workers": 1}
    before = gateway.config
    reload(gateway, **{change: changed[change]}, auth={"valid_keys": ["new-key"]})
    gateway.wait_log(f"{change}.*needs a restart; nothing was changed")
    assert gateway.chat(key="new-key").status == 401
    assert gateway.chat(key=KEY).status == 200
    gateway.config = before


def test_backends_take_the_place_of_ollama_api_and_give_it_back(start_gateway, fake):
    gateway = start_gateway()
    assert gateway.metric("backend_up", backend="ollama") == 1
    reload(gateway, ollama_api=None, backends=[{"name": "gpu1", "url": fake.url, "slots": 4, "models": [MODEL]},
                                               {"name": "spare", "url": "http://127.0.0.1:9", "weight": 0}])
    wait_for(lambda: gateway.metric("backend_up", backend="gpu1") == 1)
    assert {its["backend"] for name, its, _ in gateway.metrics() if name == "qwen_gateway_backend_up"} == {"gpu1", "spare"}
    assert gateway.chat().status == 200
    reload(gateway, ollama_api=fake.url, backends=None)
    wait_for(lambda: gateway.metric("backend_up", backend="ollama") == 1)
    assert gateway.chat().status == 200


def test_rate_windows_survive_a_reload(start_gateway):
    gateway = start_gateway(rate_limit={"enabled": True, "max_requests": 2, "window_seconds": 60})
    assert [gateway.chat().status for _ in range(3)] == [200, 200, 429]
    reload(gateway, auth={"valid_keys": [KEY, "second-key"]})
    wait_for(lambda: gateway.get("/v1/models", key="second-key").status == 200)
    assert gateway.chat().status == 429


def test_open_requests_survive_a_reload_with_the_rules_they_began_with(start_gateway, fake):
    gateway = start_gateway()
    fake.script(tokens=100, token_ms=10)
    wire = gateway.open_chat(stream=True)
    wire.wait_until_bytes()
    reload(gateway, auth={"valid_keys": ["new-key"]}, response_filter={"strip": ["model"]})
    wait_for(lambda: gateway.chat(key="new-key").status == 200)
    answer = wire.answer()
    assert answer.is_done and all("model" in chunk for chunk in answer.chunks)


def test_a_kept_connection_meets_the_new_rules(start_gateway):
    gateway = start_gateway()
    wire = gateway.wire()
    assert wire.request("POST", "/v1/chat/completions", BEARER, chat_body()).answer().status == 200
    reload(gateway, auth={"valid_keys": ["new-key"]})
    wait_for(lambda: gateway.chat(key="new-key").status == 200)
    assert wire.request("POST", "/v1/chat/completions", BEARER, chat_body()).answer().status == 401


def test_reloads_under_load_lose_nothing(start_gateway):
    gateway = start_gateway()
    statuses, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            statuses.append(gateway.chat("say:x", stream=True).status)
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(20):
        reload(gateway, auth={"valid_keys": [KEY, f"extra-{n}"]})
        wait_for(lambda n=n: gateway.get("/v1/models", key=f"extra-{n}").status == 200)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}


# --- SIGTERM --------------------------------------------------------------------------------------------------

def test_sigterm_finishes_what_runs_and_ends_with_0(start_gateway, fake):
    gateway = start_gateway()
    fake.script(tokens=20, token_ms=20)
    wire = gateway.open_chat(stream=True)
    wire.wait_until_bytes()
    gateway.ends_well = False  # it is gone before the books could be asked for
    gateway.signal(signal.SIGTERM)
    answer = wire.answer()
    assert answer.is_done
    assert gateway.wait_exit() == 0
    assert len([line for line in gateway.requests_logged() if line["method"] == "POST"]) == 1


def test_sigterm_when_idle_ends_at_once(start_gateway):
    gateway = start_gateway(drain_timeout="30s")
    idle = gateway.wire().request("GET", "/healthz")
    assert idle.answer("GET").status == 200
    gateway.ends_well = False
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit(5) == 0
    assert idle.is_closed()


def test_while_draining_readyz_says_so_and_requests_are_served(start_gateway, fake):
    gateway = start_gateway(drain_delay="1500ms")
    kept = gateway.wire()
    assert kept.request("GET", "/healthz").answer("GET").status == 200
    gateway.ends_well = False
    gateway.signal(signal.SIGTERM)
    answer = wait_for(lambda: (got := gateway.get("/readyz", key=None)).status == 503 and got, 1.4)
    assert answer.json["reason"] == "draining"
    assert gateway.operator("/readyz").status == 503
    assert gateway.chat().status == 200
    assert gateway.wait_exit() == 0


def test_after_drain_delay_answers_say_close(start_gateway, fake):
    gateway = start_gateway()
    fake.script(head_delay_ms=800)
    wire = gateway.open_chat()
    fake.wait_chats(1, "running")
    gateway.ends_well = False
    gateway.signal(signal.SIGTERM)
    answer = wire.answer()
    assert answer.status == 200 and answer.header("Connection") == "close"
    assert gateway.wait_exit() == 0


def test_drain_timeout_ends_what_does_not_finish(start_gateway, fake):
    gateway = start_gateway(drain_timeout="700ms")
    fake.script(silent=True)
    wire = gateway.open_chat(stream=True)
    fake.wait_chats(1, "running")
    gateway.ends_well = False
    began = time.monotonic()
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit(5) == 0
    assert time.monotonic() - began >= 0.6
    wire.until_closed()
    fake.wait_chats(1, "aborted")


def test_a_second_sigterm_ends_at_once(start_gateway, fake):
    gateway = start_gateway(drain_timeout="60s", drain_delay="60s")
    fake.script(silent=True)
    gateway.open_chat(stream=True)
    fake.wait_chats(1, "running")
    gateway.ends_well = False
    gateway.signal(signal.SIGTERM)
    wait_for(lambda: gateway.get("/readyz", key=None).status == 503)
    assert gateway.process.poll() is None
    gateway.signal(signal.SIGTERM)
    gateway.wait_exit(5)


def test_no_answer_is_cut_at_the_end(start_gateway):
    """Callers connect all the while; each is answered whole, or not at all once nobody listens."""
    gateway = start_gateway(drain_delay="300ms")
    gateway.ends_well = False
    cut = []

    def ask():
        while gateway.process.poll() is None:
            try:
                gateway.chat("say:x")
            except ConnectionRefusedError:
                return
            except OSError:
                pass
            except Cut as what:
                cut.append(str(what))
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 0
    for thread in threads:
        thread.join()
    assert [what for what in cut if not what.endswith("b''")] == []


# --- SIGUSR1 --------------------------------------------------------------------------------------------------

def test_sigusr1_reopens_the_log(start_gateway):
    gateway = start_gateway()
    first = gateway.chat()
    gateway.line_of(first)
    moved = gateway.log_path.with_suffix(".1")
    gateway.log_path.rename(moved)
    gateway.signal(signal.SIGUSR1)
    wait_for(gateway.log_path.exists)
    second = gateway.chat()
    assert gateway.line_of(second)["status"] == "200"
    assert second.header("X-Request-Id") not in moved.read_text()
    gateway.log_path.write_text(moved.read_text() + gateway.log_path.read_text())  # so that the books balance


# --- systemd --------------------------------------------------------------------------------------------------

class Inherited:
    """A listening socket given as systemd gives it: descriptor 3, LISTEN_FDS=1, LISTEN_PID the child's."""

    def __init__(self):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(512)
        self.port = self.socket.getsockname()[1]

    def options(self):
        own = self.socket.fileno()
        script = f'exec 3<&{own} {own}<&-; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" "$@"'
        return dict(listen=f"127.0.0.1:{self.port}", pass_fds=(own,), shell_wrap=script)


def test_all_workers_accept_from_an_inherited_socket(start_gateway):
    inherited = Inherited()
    gateway = start_gateway(workers=4, **inherited.options())
    try:
        wires = [gateway.wire() for _ in range(80)]
        for wire in wires:
            wire.request("POST", "/v1/chat/completions", BEARER, chat_body("say:in"))
        assert [wire.answer().content for wire in wires] == ["in"] * 80
    finally:
        gateway.close_wires()
    gateway.ends_well = False
    gateway.check_books()
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 0
    late = socket.create_connection(("127.0.0.1", inherited.port))  # the socket outlives its user: nothing is refused
    late.close()
    inherited.socket.close()


def test_an_inherited_socket_hands_over_without_a_refusal(start_gateway):
    inherited = Inherited()
    first = start_gateway(workers=2, **inherited.options())
    failures, stop, served = [], threading.Event(), []

    def ask():
        while not stop.is_set():
            try:
                wire = first.wire()
                served.append(wire.request("GET", "/healthz", {"Connection": "close"}).answer("GET").status)
                wire.close()
            except (Cut, OSError) as what:
                failures.append(what)
    thread = threading.Thread(target=ask)
    thread.start()
    first.ends_well = False
    first.signal(signal.SIGTERM)
    assert first.wait_exit() == 0
    second = start_gateway(workers=2, **inherited.options())
    count = len(served)
    wait_for(lambda: len(served) > count + 20)
    stop.set()
    thread.join()
    assert failures == [] and set(served) == {200}
    assert second.chat().status == 200
    inherited.socket.close()


class NotifySocket:
    def __init__(self, folder):
        self.path = str(pathlib.Path(folder) / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(10)

    def wait(self, word):
        while True:
            said = self.socket.recv(65536).decode()
            if word in said:
                return said


def test_systemd_is_told_of_readiness_reload_and_end(start_gateway, folder):
    notify = NotifySocket(folder)
    gateway = start_gateway(environment_extra={"NOTIFY_SOCKET": notify.path})
    notify.wait("READY=1")
    gateway.signal(signal.SIGHUP)
    notify.wait("RELOADING=1")
    notify.wait("READY=1")
    gateway.ends_well = False
    gateway.signal(signal.SIGTERM)
    notify.wait("STOPPING=1")
    assert gateway.wait_exit() == 0


def test_many_workers_share_the_load_and_the_limits(start_gateway):
    """The window is one for all workers: of forty at once thirty are admitted, whichever worker they meet."""
    gateway = start_gateway(workers=4, rate_limit={"enabled": True, "max_requests": 30, "window_seconds": 60})
    wires = [gateway.wire() for _ in range(40)]
    for wire in wires:
        wire.request("POST", "/v1/chat/completions", BEARER, chat_body())
    statuses = [wire.answer().status for wire in wires]
    assert sorted(statuses) == [200] * 30 + [429] * 10


def test_load_from_many_threads_under_the_thread_sanitizer(start_gateway):
    gateway = start_gateway(workers=4, rate_limit={"enabled": True, "max_requests": 100000, "window_seconds": 60})
    results = []

    def ask(n):
        wire = gateway.wire()
        for m in range(20):
            wire.request("POST", "/v1/chat/completions", BEARER, chat_body(f"say:{n} {m}", stream=m % 2 == 0 or None))
            results.append(wire.answer().content == f"{n} {m}")
    threads = [threading.Thread(target=ask, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 240
