"""/metrics, /healthz, /readyz, and the operator listener, which only reads."""

import re
import signal

import pytest

from fake import last_line, line
from gateway import KEY, MODEL
from processes import free_port
from wire import wait_for


def test_metrics_are_prometheus_text(gateway):
    gateway.chat()
    answer = gateway.operator("/metrics")
    assert answer.header("Content-Type").startswith("text/plain")
    families = set(re.findall(r"^# TYPE (\S+) (?:counter|gauge|histogram)$", answer.text, re.MULTILINE))
    helped = set(re.findall(r"^# HELP (\S+) \S", answer.text, re.MULTILINE))
    assert families and families == helped
    for name, _, _ in gateway.metrics():
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        assert name in families or base in families, name
        assert name.startswith(("qwen_gateway_", "process_")), name


@pytest.mark.parametrize("name", ["requests_total", "request_seconds", "first_token_seconds", "tokens_total", "in_flight",
                                  "backend_up", "backend_state", "backend_slots", "backend_weight", "backend_resends_total",
                                  "log_dropped_total", "queue_wait_seconds", "queue_waiting", "queue_users_waiting", "queue_running",
                                  "queue_granted_total", "queue_abandoned_total"])
def test_each_named_metric_is_there(gateway, name):
    gateway.stream()
    wait_for(lambda: f"# TYPE qwen_gateway_{name} " in gateway.operator("/metrics").text)


def test_a_backend_is_in_one_state(start_gateway, start_fake):
    fake = start_fake()
    gateway = start_gateway(fake)

    def states():
        return [labels["state"] for name, labels, value in gateway.metrics() if name == "qwen_gateway_backend_state" and value == 1]
    assert states() == ["up"]
    fake.kill()
    wait_for(lambda: states() == ["down"], 10)


def grown(gateway, name, **labels):
    before = gateway.metric(name, **labels)
    return lambda: gateway.metric(name, **labels) - before


def test_requests_and_tokens_are_counted(gateway, fake):
    requests = grown(gateway, "requests_total")
    tokens = grown(gateway, "tokens_total")
    firsts, totals = grown(gateway, "first_token_seconds_count"), grown(gateway, "request_seconds_count")
    fake.script_lines(line("a"), last_line(prompt=100, produced=7))
    gateway.stream()
    gateway.chat(key="wrong")
    wait_for(lambda: requests() == 2)
    assert tokens() == 107
    assert firsts() == 1 and totals() >= 1


def test_labels_never_hold_key_user_or_path(gateway):
    gateway.chat(headers={"X-User-Id": "alice"}, model="some-made-up-model")
    gateway.get("/some/made/up/path")
    gateway.chat(key="SECRET-KEY")
    text = gateway.operator("/metrics").text
    for word in ("alice", "made", "SECRET", KEY, "key1", "/v1", "127.0.0.1"):
        assert word not in text, word


def test_histograms_are_cumulative(gateway):
    gateway.stream()
    for name in ("request_seconds", "first_token_seconds"):
        series = {}
        for found, labels, value in gateway.metrics():
            if found == f"qwen_gateway_{name}_bucket":
                rest = tuple(sorted((k, v) for k, v in labels.items() if k != "le"))
                series.setdefault(rest, []).append((float(labels["le"]), value))
        assert series
        for rest, buckets in series.items():
            assert buckets == sorted(buckets) and buckets[-1][0] == float("inf")
            assert [count for _, count in buckets] == sorted(count for _, count in buckets)
            assert buckets[-1][1] == gateway.metric(f"{name}_count", **dict(rest))


def test_waits_are_told_by_class_and_are_those_of_the_log(start_gateway, start_fake):
    ollama = start_fake()
    entries = [{"key": "day-key-0123456789", "name": "day"}, {"key": "night-key-0123456789", "name": "night", "class": "batch"}]
    gateway = start_gateway(ollama, ollama_api=None, auth={"valid_keys": entries},
                            backends=[{"name": "gpu1", "url": ollama.url, "slots": 1}])
    ollama.script(silent=True)
    holder = gateway.open_chat(key=entries[0]["key"])
    ollama.wait_chats(1, "running")
    assert gateway.metric("queue_wait_seconds_count", model=MODEL) == 1
    wires = [gateway.open_chat(key=entry["key"]) for entry in entries]
    for which in ("interactive", "batch"):
        wait_for(lambda: gateway.metric("queue_waiting", model=MODEL, **{"class": which}) == 1)
    assert gateway.metric("queue_users_waiting") == 2 and gateway.metric("queue_running") == 1
    holder.close()
    lines = [gateway.line_of(wire.answer()) for wire in wires]
    for which, line, count in (("interactive", lines[0], 2), ("batch", lines[1], 1)):
        labels = {"model": MODEL, "class": which}
        assert gateway.metric("queue_wait_seconds_count", **labels) == gateway.metric("queue_granted_total", **labels) == count
        assert gateway.metric("queue_wait_seconds_bucket", le="+Inf", **labels) == count
        told_ms = gateway.metric("queue_wait_seconds_sum", **labels) * 1000
        assert int(line["queue_ms"]) <= told_ms < int(line["queue_ms"]) + 20  # the holder did not wait, or nearly so
    assert gateway.metric("queue_wait_seconds_bucket", le="0.005", **{"class": "interactive"}) >= 1
    assert gateway.metric("queue_waiting") == 0 == gateway.metric("queue_abandoned_total")


def test_in_flight_rises_and_falls(gateway, fake):
    fake.script(silent=True)
    wire = gateway.open_chat()
    fake.wait_chats(1, "running")
    assert gateway.metric("in_flight") == 1
    wire.close()
    wait_for(lambda: gateway.metric("in_flight") == 0)


def test_metrics_are_not_on_the_callers_listener(gateway):
    assert gateway.get("/metrics").status == 404


@pytest.mark.parametrize("method,path", [("POST", "/metrics"), ("PUT", "/metrics"), ("DELETE", "/healthz"),
                                         ("POST", "/reload"), ("POST", "/v1/chat/completions")])
def test_the_operator_listener_changes_nothing(gateway, method, path):
    assert gateway.operator(path, method).status in (404, 405, 501)


def test_health_needs_no_key_on_both_listeners(gateway):
    for path, said in (("/healthz", {"status": "ok"}), ("/readyz", {"status": "ready"})):
        for answer in (gateway.get(path, key=None), gateway.get(path, key="wrong"), gateway.operator(path)):
            assert (answer.status, answer.json) == (200, said)


def test_the_whitelist_holds_for_health_too(start_gateway):
    gateway = start_gateway(whitelist={"enabled": True, "ips": ["127.0.0.1"]})
    assert gateway.wire(source="127.0.0.2").is_closed()
    assert gateway.get("/healthz", key=None).status == 200


def test_the_operator_listener_may_be_a_port(start_gateway):
    gateway = start_gateway(operator_listen=f"127.0.0.1:{free_port()}")
    assert gateway.operator("/healthz").status == 200
    assert gateway.operator("/metrics").status == 200


def test_a_broken_request_to_the_operator_listener_does_no_harm(gateway):
    wire = gateway.operator_wire()
    wire.send_as_far_as_possible(b"\x00\xff" * 1000 + b"\r\n\r\n")
    wire.until_closed()
    assert gateway.operator("/healthz").status == 200


# Who may ask the operator's listener --------------------------------------------------------------------------

def status_for(gateway, host, path="/healthz"):
    return gateway.operator(path, host=host).status


def test_a_name_that_nobody_gave_to_the_operator_listener_is_refused(start_gateway):
    """A browser that a foreign page has led here by DNS rebinding says that page's name."""
    port = free_port()
    gateway = start_gateway(operator_listen=f"127.0.0.1:{port}")
    for path in ("/metrics", "/healthz", "/readyz", "/other"):
        answer = gateway.operator(path, host=f"rebound.example:{port}")
        assert answer.status == 403 and "operator_hosts" in answer.json["error"], path
    for host in ("example", "localhost.example", "127.0.0.1.example", "[::1", "[example]", "127.1", "2130706433", "0x7f000001",
                 "localhost\t.example", "exa mple"):
        assert status_for(gateway, host) in (400, 403), host


def test_a_listener_of_every_address_is_not_known_by_what_is_no_name(start_gateway):
    gateway = start_gateway(operator_listen=f":{free_port()}")
    assert status_for(gateway, "localhost") == 200
    for host in ("[::1", "[example]", ".", ".:80", "example"):
        assert status_for(gateway, host) in (400, 403), host


def test_addresses_and_localhost_need_no_name(start_gateway):
    port = free_port()
    gateway = start_gateway(operator_listen=f"127.0.0.1:{port}")
    for host in ("localhost", "LocalHost.", "localhost:80", "127.0.0.1", f"127.0.0.1:{port}", "[::1]", f"[::1]:{port}", "10.1.2.3:9090",
                 "[fd00::1]:9090"):
        assert status_for(gateway, host) == 200, host
    wire = gateway.operator_wire().send("GET /metrics HTTP/1.0\r\n\r\n")  # a probe of the old kind; no browser is one
    assert wire.until_closed().startswith(b"HTTP/1.0 200")


def test_every_host_that_is_given_counts(start_gateway):
    port = free_port()
    gateway = start_gateway(operator_listen=f"127.0.0.1:{port}")
    for head in ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: rebound.example\r\n",
                 "GET /metrics HTTP/1.1\r\nHost: rebound.example\r\nHost: localhost\r\n",
                 "GET http://rebound.example/metrics HTTP/1.1\r\nHost: localhost\r\n",
                 "GET /metrics HTTP/1.1\r\nhOST: rebound.example\r\n"):
        said = gateway.operator_wire().send(f"{head}Connection: close\r\n\r\n").until_closed()
        assert said.startswith(b"HTTP/1.1 403"), head


def test_names_are_given_to_the_operator_listener_and_taken_by_a_reload(start_gateway):
    gateway = start_gateway(operator_listen=f"127.0.0.1:{free_port()}", operator_hosts=["Node7.internal", "metrics"])
    assert [status_for(gateway, host) for host in ("node7.INTERNAL:18790", "metrics", "node8.internal")] == [200, 200, 403]
    gateway.write_config(operator_hosts=["node8.internal"])
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: status_for(gateway, "node8.internal") == 200)
    assert status_for(gateway, "metrics") == 403


def test_the_operator_listeners_own_name_is_known(start_gateway):
    gateway = start_gateway(operator_listen=f"localhost:{free_port()}")
    assert status_for(gateway, "localhost") == 200


def test_a_unix_socket_asks_for_no_name(gateway):
    assert status_for(gateway, "rebound.example") == 200
