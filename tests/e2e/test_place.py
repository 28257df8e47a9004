"""A request's way through queue and backends when something turns up on the way: refusals, lists, reloads, leaving."""

import pathlib
import signal

import pytest

from processes import BIN, environment
from wire import wait_for


def backends_of(gateway, metric):
    return {labels["backend"] for name, labels, _ in gateway.metrics() if name == f"qwen_gateway_{metric}"}


@pytest.fixture
def fleet(start_fake, start_gateway):
    """fleet({"gpu1": {...}, "gpu2": {...}}, **settings): a stand-in for each, and a gateway before all of them."""
    def start(sites, **settings):
        fakes = {name: start_fake() for name in sites}
        entries = [{"name": name, "url": fakes[name].url, **options} for name, options in sites.items()]
        gateway = start_gateway(next(iter(fakes.values())), ollama_api=None, backends=entries, **settings)
        wait_for(lambda: backends_of(gateway, "backend_model_resident") == set(fakes))  # their lists are known
        return gateway, fakes
    return start


BUSY = {"status": 503, "body": {"error": "server busy, please try again.  maximum pending requests exceeded"}}


def test_nothing_of_a_503_is_left_when_the_second_backend_answers_in_pieces(fleet):
    gateway, fakes = fleet({"gpu1": {}, "gpu2": {"weight": 0}})
    fakes["gpu1"].script(**BUSY)
    fakes["gpu2"].script(split=100, split_ms=5)
    answer = gateway.chat("say:all of it is here")
    assert (answer.status, answer.content) == (200, "all of it is here"), answer.text
    assert gateway.line_of(answer)["backend"] == "gpu2"


def test_a_503_whose_connection_ends_before_its_body_is_a_503_all_the_same(fleet):
    gateway, fakes = fleet({"gpu1": {}, "gpu2": {"weight": 0}})
    fakes["gpu1"].script_raw(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 40\r\n\r\n{\"error\":")
    answer = gateway.chat("say:here")
    assert (answer.status, answer.content) == (200, "here"), answer.text


def queues(gateway):
    return {labels["model"] for name, labels, _ in gateway.metrics() if name == "qwen_gateway_queue_running"}


def test_names_that_no_backend_lists_make_no_queues(start_fake, start_gateway):
    fake = start_fake()
    fake.set(tags_silent=True)  # it lives, but never tells what it has
    gateway = start_gateway(fake)
    for n in range(3):
        assert gateway.chat("say:here", model=f"made-up-{n}").status == 404
    assert gateway.chat("say:here").status == 200, "it has the model, though it does not list it"
    assert queues(gateway) == {"other"}


def test_the_time_at_a_backend_that_failed_it_is_no_waiting(fleet):
    gateway, fakes = fleet({"gpu1": {"slots": 1}, "gpu2": {"slots": 1}}, queue_timeout="1500ms")
    for fake in fakes.values():
        fake.script(silent=True)
    wires = {says: gateway.open_chat(says) for says in ("say:one", "say:two")}
    at = {fake.wait_chats(1, "running")[0]["body_json"]["messages"][0]["content"]: fake for fake in fakes.values()}
    assert gateway.chat().code == "queue_timeout", "it waited as long as is allowed: the two have been there for longer"
    at["say:one"].set(drop=True)
    wait_for(lambda: gateway.metric("queue_waiting") == 1)
    wires["say:two"].close()
    answer = wires["say:one"].answer()
    assert (answer.status, answer.content) == (200, "one"), answer.text


def test_who_waited_in_vain_has_it_in_the_log(fleet):
    gateway, fakes = fleet({"gpu1": {"slots": 1}})
    fakes["gpu1"].script(silent=True)
    holder = gateway.open_chat("hi", {"X-Request-Id": "holder"})
    fakes["gpu1"].wait_chats(1, "running")
    wires = {name: gateway.open_chat("hi", {"X-Request-Id": name}) for name in ("leaves", "loses")}
    wait_for(lambda: gateway.metric("queue_waiting") == 2)
    assert gateway.get("/v1/models").status == 200
    wires["leaves"].close()
    assert int(gateway.wait_line(req="leaves")["queue_ms"]) > 0
    gateway.write_config(backends=[{**gateway.config["backends"][0], "drain": True}])
    gateway.signal(signal.SIGHUP)
    assert wires["loses"].answer().status == 503
    assert int(gateway.wait_line(req="loses")["queue_ms"]) > 0
    holder.close()


def test_a_resolver_that_hangs_at_a_reload_keeps_nobody_waiting(start_fake, start_gateway, folder):
    fake, there = start_fake(), pathlib.Path(folder, "there")
    gateway = start_gateway(fake, ollama_api=None, backends=[{"name": "gpu1", "url": fake.url}],
                            environment_extra={"LD_PRELOAD": f"{BIN}/libresolver.so", "QG_RESOLVER": str(there),
                                               "ASAN_OPTIONS": environment()["ASAN_OPTIONS"] + ":verify_asan_link_order=0"})
    gateway.write_config(backends=[{"name": name, "url": f"http://{name}.test:{fake.port}"} for name in ("gpu2", "gpu3")])
    gateway.signal(signal.SIGHUP)
    gateway.signal(signal.SIGHUP)
    asked = len(fake.seen("/api/version"))
    wait_for(lambda: len(fake.seen("/api/version")) >= asked + 2, 10, "probes that go on")
    assert gateway.chat("say:here").status == 200 and gateway.metric("backend_up", backend="gpu1") == 1
    there.touch()
    gateway.wait_log("configuration reloaded")
    wait_for(lambda: gateway.metric("backend_up", backend="gpu2") == 1)
    answer = gateway.chat("say:there")
    assert answer.content == "there" and gateway.line_of(answer)["backend"] in ("gpu2", "gpu3")
    assert gateway.metric("backend_up") == 2 and not gateway.metric("reloads_total", result="refused")


def times_woken(gateway):
    """The workers, so far. The log's thread has a rhythm of its own."""
    tasks = pathlib.Path(f"/proc/{gateway.process.pid}/task")
    return sum(int(line.split()[1]) for task in tasks.iterdir()
               if task.name != str(gateway.process.pid) and (task / "comm").read_text().strip() != "log"
               for line in (task / "status").read_text().splitlines() if line.startswith("voluntary_ctxt_switches"))


def connections_to(port):
    """Established, as the side that connected has them."""
    rows = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def test_backends_that_answer_in_the_same_moment_wake_the_workers_once(start_fake, start_gateway):
    fake, count = start_fake("--listen", "0.0.0.0:0"), 64
    gateway = start_gateway(fake, ollama_api=None, backends=[
        {"name": f"gpu{n}", "url": f"http://127.0.1.{n + 1}:{fake.port}"} for n in range(count)])
    wait_for(lambda: len(backends_of(gateway, "backend_model_resident")) == count)
    fake.freeze()
    wait_for(lambda: connections_to(fake.port) >= count, 10, "a probe of each")
    woken = times_woken(gateway)
    fake.thaw()
    wait_for(lambda: connections_to(fake.port) == 0, 10, "all answers")
    # By each answer each of the two would be twice as many; on a busy machine the answers do not come quite at once.
    assert times_woken(gateway) - woken < 1.5 * count, "each answer wakes each of two workers"


def test_the_first_line_names_all_backends(fleet):
    gateway, fakes = fleet({"gpu1": {}, "gpu2": {}})
    gateway.wait_log(", ".join(f"127.0.0.1:{fake.port}" for fake in fakes.values()))


def test_a_gateway_whose_backends_all_drain_is_not_ready(fleet):
    gateway, _ = fleet({"gpu1": {}})
    gateway.write_config(backends=[{**gateway.config["backends"][0], "drain": True}])
    gateway.signal(signal.SIGHUP)
    assert wait_for(lambda: (answer := gateway.get("/readyz", key=None)).status == 503 and answer).json["reason"] == "no_backend"
    assert gateway.chat().code == "backend_unavailable"
