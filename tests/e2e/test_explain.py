"""--explain: what a running gateway says about where a request would go, and what it says when it cannot."""

import re
import signal

import pytest

from fake import Fake
from gateway import KEY, MODEL, PROGRAM, as_yaml
from processes import free_port, run
from wire import wait_for

OTHER = "other:7b"


def explain(gateway, model=MODEL):
    return run([PROGRAM, "--explain", model, "--config", gateway.config_path])


def lines(gateway, model=MODEL):
    done = explain(gateway, model)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.splitlines()


def line_about(gateway, backend, model=MODEL):
    found = [line.strip() for line in lines(gateway, model) if line.strip().startswith(f"{backend}:")]
    assert found, lines(gateway, model)
    return found[0]


@pytest.fixture
def fleet(start_fake, start_gateway):
    """fleet(gpu1={...}, gpu2={...}): a gateway before a stand-in each, all of them up."""
    def start(settings=(), **sites):
        fakes = {name: start_fake() for name in sites}
        entries = [{"name": name, "url": fakes[name].url, **options} for name, options in sites.items()]
        gateway = start_gateway(fakes["gpu1"], ollama_api=None, backends=entries, **dict(settings))
        wait_for(lambda: gateway.metric("backend_up") == len(fakes))
        return gateway, fakes
    return start


def test_candidates_and_scores_are_told_before_anybody_has_asked(fleet):
    gateway, _ = fleet(gpu1={"slots": 4}, gpu2={"slots": 2, "weight": 3})
    told = lines(gateway)
    assert told[0] == MODEL
    assert "0 of 4 slots" in line_about(gateway, "gpu1") and "0 of 2 slots" in line_about(gateway, "gpu2")
    assert "weight 3" in line_about(gateway, "gpu2")
    assert all(re.search(r"score \d+\.\d+", line_about(gateway, name)) for name in ("gpu1", "gpu2"))
    assert re.search(r"now: gpu[12], \w", "\n".join(told))


def test_who_runs_and_who_waits_is_counted_and_not_named(fleet):
    gateway, fakes = fleet(gpu1={"slots": 1})
    fakes["gpu1"].script(silent=True)
    wires = [gateway.open_chat()]
    fakes["gpu1"].wait_chats(1, "running")
    wires += [gateway.open_chat() for _ in range(3)]
    wait_for(lambda: gateway.metric("queue_waiting", model=MODEL) == 3)
    told = "\n".join(lines(gateway))
    assert re.search(r"running 1; waiting: 3 interactive of 1 user", told)
    assert "1 of 1 slots" in line_about(gateway, "gpu1") and "now: none" in told
    assert "key1" not in told and KEY not in told


def test_why_a_backend_takes_none_is_told(fleet):
    gateway, fakes = fleet(gpu1={}, gpu2={"drain": True}, gpu3={"models": [OTHER]}, gpu4={}, gpu5={})
    fakes["gpu5"].set(models=[{"name": OTHER, "capabilities": ["completion"]}])
    wait_for(lambda: "gpu5 takes none: it does not have the model" in "\n".join(lines(gateway)), 15)
    fakes["gpu4"].kill()
    wait_for(lambda: "gpu4 takes none: it does not answer" in "\n".join(lines(gateway)), 15)
    told = "\n".join(lines(gateway))
    assert "gpu2 takes none: it drains" in told
    assert "gpu3 takes none: its `models` has others only" in told
    assert "gpu1 takes none" not in told


def test_a_model_is_asked_for_by_the_name_that_callers_use(fleet):
    gateway, _ = fleet(settings={"models": {"house": {"model": MODEL}}}, gpu1={"slots": 2})
    assert lines(gateway, "House")[0] == MODEL
    refused = explain(gateway, MODEL)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "`models:` has no" in refused.stderr


@pytest.mark.parametrize("model,says", [("nope:7b", "no backend has nope:7b"), ("big:70b-cloud", "cloud"),
                                        ("no name\x1b[2J", "not the name of a model"), ("", "which model?"),
                                        ("x" * 300, "not the name of a model")])
def test_what_nobody_could_ask_for_is_one_sentence(gateway, model, says):
    done = explain(gateway, model)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr and len(done.stderr.splitlines()) == 1 and "\x1b" not in done.stderr


def test_an_answer_comes_over_a_port_as_well(start_gateway):
    gateway = start_gateway(operator_listen=f"127.0.0.1:{free_port()}")
    assert lines(gateway)[0] == MODEL


def test_a_listener_of_every_address_is_asked_on_this_machine(start_gateway):
    gateway = start_gateway(operator_listen=f":{free_port()}")
    assert lines(gateway)[0] == MODEL


def test_where_no_gateway_runs_it_says_where_it_looked(folder):
    for where in (f"unix:{folder}/nobody.sock", f"127.0.0.1:{free_port()}"):
        path = f"{folder}/config.yaml"
        with open(path, "w", encoding="utf-8") as file:
            file.write(as_yaml({"operator_listen": where, "ollama_api": "http://localhost:1", "auth": {"enabled": False}}))
        done = run([PROGRAM, "--explain", MODEL, "--config", path])
        assert (done.returncode, done.stdout) == (1, "")
        assert where in done.stderr and len(done.stderr.splitlines()) == 1


def test_somebody_else_on_that_port_is_not_taken_for_a_gateway(folder):
    """The stand-in Ollama answers HTTP, too, but not this."""
    other = Fake(folder)
    try:
        path = f"{folder}/config.yaml"
        with open(path, "w", encoding="utf-8") as file:
            file.write(as_yaml({"operator_listen": f"127.0.0.1:{other.port}", "ollama_api": "http://localhost:1",
                                "auth": {"enabled": False}}))
        done = run([PROGRAM, "--explain", MODEL, "--config", path])
        assert (done.returncode, done.stdout) == (1, "") and "answered 404" in done.stderr
    finally:
        other.stop()


def test_a_bad_file_is_status_2(folder):
    with open(f"{folder}/config.yaml", "w", encoding="utf-8") as file:
        file.write("no_such_key: 1\n")
    done = run([PROGRAM, "--explain", MODEL, "--config", f"{folder}/config.yaml"])
    assert done.returncode == 2 and "no_such_key" in done.stderr


def test_asking_changes_nothing_and_is_for_the_operator_only(gateway, fake):
    before = gateway.metric("requests_total"), gateway.metric("queue_granted_total")
    for _ in range(3):
        lines(gateway)
    assert (gateway.metric("requests_total"), gateway.metric("queue_granted_total")) == before
    assert fake.seen() == []
    assert gateway.get(f"/explain?model={MODEL}").status == 404  # the callers' listener
    assert gateway.operator(f"/explain?model={MODEL}", "POST").status in (404, 405, 501)
    assert gateway.operator("/explain").status == 400


def test_a_web_page_cannot_read_it_by_rebinding(start_gateway):
    gateway = start_gateway(operator_listen=f"127.0.0.1:{free_port()}")
    assert gateway.operator(f"/explain?model={MODEL}", host="rebound.example").status == 403


def test_a_reload_is_told_at_once(fleet):
    gateway, _ = fleet(gpu1={"slots": 1})
    assert "of 1 slots" in line_about(gateway, "gpu1")
    gateway.write_config(backends=[{**gateway.config["backends"][0], "slots": 7}])
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: "of 7 slots" in line_about(gateway, "gpu1"))
