"""
What is wrong with a backend although it answers: each is said in the log once when it begins and once when it has passed, and
shown in /metrics and in the operator's /readyz meanwhile; callers are not told.
"""

import re
import signal

import pytest

from wire import wait_for

GB = 10**9
MODELS = {
    "qwen3:32b": {"num_ctx": 8192},
    "missing": {},
    "kept": {"preload": True, "keep_alive": -1},
}
FINDINGS = {
    ("qwen3:32b", "partly_on_cpu"): r"qwen3:32b is partly on the CPU \(14 of 20 GB in graphics memory\): answers will be slow",
    ("qwen3:32b", "short_context"): r"qwen3:32b is loaded with a shorter context than num_ctx \(4096 of 8192 tokens\): longer",
    ("missing:latest", "model_missing"): r"missing:latest is configured for it, but it does not list it: pull it",
    ("kept:latest", "not_resident"): r"kept:latest is to be kept loaded, but is not: the next request waits",
}
PASSED = ["qwen3:32b is no longer partly on the CPU", "qwen3:32b has the context of num_ctx now",
          "missing:latest is in its list now", "kept:latest is loaded again"]


@pytest.fixture
def ollama(start_fake):
    return start_fake().set(models=[{"name": "qwen3:32b"}, {"name": "kept"}])


@pytest.fixture
def start(start_gateway, ollama):
    def start(**options):
        return start_gateway(ollama, ollama_api=None, backends=[{"name": "gpu1", "url": ollama.url}], **options)
    return start


def found(gateway):
    report = gateway.operator("/readyz").json
    assert report["status"] == "ready"
    assert all(finding["backend"] == "gpu1" for finding in report.get("findings", []))
    return {(finding["model"], finding["finding"]) for finding in report.get("findings", [])}


def measured(gateway):
    return {(labels["model"], labels["finding"]): value for name, labels, value in gateway.metrics()
            if name == "qwen_gateway_backend_finding" and labels["backend"] == "gpu1"}


def look_again(gateway, ollama, times=1):
    """Has the gateway look at the backend's lists at once, and waits until it has both of each look."""
    for _ in range(times):
        before = {path: ollama.stats()["by_path"][path]["answered"] for path in ("/api/ps", "/api/tags")}
        gateway.signal(signal.SIGHUP)
        for path, count in before.items():
            ollama.ask("GET", f"/wait?path={path}&answered={count + 1}")


def said(gateway, pattern):
    return len(re.findall(f"backend gpu1: {pattern}", gateway.log + gateway.errors))


def test_each_finding_is_said_once_shown_while_it_holds_and_passes(start, ollama):
    gateway = start(models=MODELS)
    assert ollama.stats()["by_path"]["load"]["answered"] == 1, "kept is loaded before callers are let in"
    assert found(gateway) <= {("missing:latest", "model_missing")}
    ollama.set(residents=[{"name": "qwen3:32b", "size": 20 * GB, "size_vram": 14 * GB, "context_length": 4096}])
    look_again(gateway, ollama, 3)
    wait_for(lambda: found(gateway) == set(FINDINGS), what="all findings")
    assert measured(gateway) == {finding: 1 for finding in FINDINGS}
    for pattern in FINDINGS.values():
        wait_for(lambda: said(gateway, pattern), 5, pattern)
    answer = gateway.get("/readyz", key=None)
    assert (answer.status, answer.json) == (200, {"status": "ready"}), "callers are told nothing of backends"
    resident = {labels["model"]: value for name, labels, value in gateway.metrics()
                if name == "qwen_gateway_backend_model_resident"}
    assert resident == {"qwen3:32b": 1, "kept:latest": 0}

    ollama.set(models=[{"name": name} for name in MODELS])
    look_again(gateway, ollama, 2)
    wait_for(lambda: gateway.operator("/readyz").json == {"status": "ready"}, what="no finding any more")
    assert measured(gateway) == {}
    for pattern in PASSED:
        wait_for(lambda: said(gateway, pattern), 5, pattern)
    for pattern in [*FINDINGS.values(), *PASSED]:
        assert said(gateway, pattern) == 1, f"once: {pattern}"


def test_a_finding_about_a_model_that_is_taken_out_of_the_configuration_passes(start, ollama):
    gateway = start(models=MODELS)
    wait_for(lambda: found(gateway) == {("missing:latest", "model_missing")})
    gateway.write_config(models={"qwen3:32b": {}, "missing": None, "kept": None})
    look_again(gateway, ollama)
    wait_for(lambda: not found(gateway))
    gateway.wait_log("backend gpu1: missing:latest is not configured for it any more")


def test_what_a_backend_is_to_have_of_its_own_is_looked_for_too(start_gateway, ollama):
    gateway = start_gateway(ollama, ollama_api=None,
                            backends=[{"name": "gpu1", "url": ollama.url, "models": ["qwen3:32b", "Other"]}])
    wait_for(lambda: found(gateway) == {("other:latest", "model_missing")})


@pytest.mark.parametrize("answer", [
    {"status": 404, "body": "404 page not found", "content_type": "text/plain"},
    {"status": 200, "body": "<html>", "content_type": "text/html"},
    {"status": 200, "body": '{"models":null}'},
    {"status": 200, "body": "[" * 10000},
    {"status": 200, "body": '{"models":[{"name":"qwen3:32b","size":20,"size_vram":-1,"context_length":"x"}'},
    {"hangup_after_bytes": 150},
], ids=["old version", "web page", "null", "deep", "cut", "hung up"])
def test_an_odd_list_of_what_is_loaded_says_nothing(start, ollama, answer):
    ollama.set(residents=[{"name": "qwen3:32b", "size": 20 * GB, "size_vram": 14 * GB}])
    ollama.script(times=0, path="/api/ps", **answer)
    gateway = start()
    look_again(gateway, ollama)
    assert gateway.chat("say:fine").content == "fine"
    assert found(gateway) == set()
    assert gateway.metric("backend_up") == 1 and gateway.metric("breaker_opened_total") == 0
    assert not [name for name, *_ in gateway.metrics() if name == "qwen_gateway_backend_model_resident"]
