"""
Models that are to be preloaded are loaded before callers are let in: at the start, after the backend was away, and after a
restart that nobody noticed. The stand-in's models are cold when it starts and take time to load.
"""

import signal

import pytest

from wire import wait_for

TWO = {"qwen3:32b": {"preload": True, "num_ctx": 8192, "keep_alive": -1}, "slow": {"preload": True, "keep_alive": "24h"}, "loop": {}}
ONE = {"qwen3:32b": {"preload": True, "num_ctx": 8192, "keep_alive": -1}}
LOAD_MS = 400


@pytest.fixture
def ollama(start_fake):
    return start_fake("--cold", "--load-ms", str(LOAD_MS))


@pytest.fixture
def start(start_gateway, ollama):
    def start(**options):
        return start_gateway(ollama, ollama_api=None, backends=[{"name": "gpu1", "url": ollama.url}],
                             **{"is_ready_wanted": False, **options})
    return start


def name_of(request):
    """Without the tag that goes without saying: before the backend's list came, a model is asked for as the file names it."""
    return request["body_json"]["model"].removesuffix(":latest")


def loads(ollama):
    return [name_of(request) for request in ollama.seen() if request.get("is_load")]


def assert_loaded_before_the_first_chat(ollama, *models):
    """By the books: each was loaded, and only then a chat came, which found it as it wanted it."""
    seen = ollama.seen()
    chats = [request for request in seen if not request.get("is_load")]
    assert chats, "no chat came"
    for model in models:
        loaded = [request for request in seen if request.get("is_load") and name_of(request) == model]
        assert loaded and loaded[0]["outcome"] == "answered", f"{model} was not loaded"
        assert loaded[0]["ended_ms"] <= chats[0]["received_ms"], f"{model} was loaded after the first chat"
    by_model = ollama.stats()["by_model"]
    assert all(by_model[name]["loads"] <= 1 for name in by_model), f"a chat had it loaded anew: {by_model}"


def first_chat(gateway):
    return wait_for(lambda: (answer := gateway.chat("say:hello")).status == 200 and answer, 20, "the first answer")


def test_models_are_loaded_one_by_one_before_the_first_caller_is_served(start, ollama):
    gateway = start(models=TWO)
    starting = {"status": "not ready", "reason": "starting"}
    warming = {**starting, "findings": [{"backend": "gpu1", "finding": "warming"}]}
    for answer, told in (gateway.get("/readyz", key=None), [starting]), (gateway.operator("/readyz"), [starting, warming]):
        assert answer.status == 503 and answer.json in told  # not heard of yet, or known to load
    assert first_chat(gateway).content == "hello"
    assert loads(ollama) == ["qwen3:32b", "slow"]
    assert_loaded_before_the_first_chat(ollama, "qwen3:32b", "slow")
    first, second = [request for request in ollama.seen() if request.get("is_load")]
    assert first["ended_ms"] <= second["received_ms"], "one after the other"
    stats = ollama.stats()
    assert (stats["requests"], stats["by_path"]["load"]["aborted"]) == (1, 0)
    assert gateway.operator("/readyz").json == {"status": "ready"}


def test_who_asks_while_models_are_loaded_waits_and_is_served(start, ollama):
    gateway = start(models=TWO)
    wait_for(lambda: loads(ollama))
    assert gateway.operator("/readyz").json["reason"] == "starting"
    answer = gateway.chat("say:hello")
    assert (answer.status, answer.content) == (200, "hello")
    assert_loaded_before_the_first_chat(ollama, "qwen3:32b", "slow")


def test_a_load_asks_for_just_the_runner_that_chats_want_and_for_no_token(start, ollama):
    gateway = start(models=TWO)
    first_chat(gateway)
    gateway.chat("say:x", model="slow")
    for model in ("qwen3:32b", "slow"):
        load, chat = [request["body_json"] for request in ollama.seen() if name_of(request) == model][:2]
        assert load["messages"] == [] and load["stream"] is False and chat["messages"]
        for field in ("keep_alive", "shift", "truncate"):
            assert load[field] == chat[field]
        assert load.get("options", {}).get("num_ctx") == chat["options"].get("num_ctx")
    assert [request["tokens_sent"] for request in ollama.seen() if request.get("is_load")] == [0, 0]


def test_after_a_recovery_they_are_loaded_again_before_the_next_caller_is_served(start, ollama):
    gateway = start(models=ONE)
    first_chat(gateway)
    ollama.kill()
    wait_for(lambda: gateway.metric("backend_up") == 0, 10)
    ollama.start()
    assert first_chat(gateway).content == "hello"
    assert_loaded_before_the_first_chat(ollama, "qwen3:32b")
    assert gateway.operator("/readyz").json == {"status": "ready"}


def test_after_a_restart_that_nobody_noticed_they_are_loaded_again(start, ollama):
    gateway = start(models=ONE)
    first_chat(gateway)
    wait_for(lambda: gateway.metric("backend_model_resident", model="qwen3:32b") == 1)
    ollama.reset()
    ollama.set(residents=[])
    gateway.signal(signal.SIGHUP)  # it looks at once
    answer = wait_for(lambda: (got := gateway.operator("/readyz")).status == 503 and got, 10, "warming")
    assert answer.json["reason"] == "no_backend"
    assert gateway.metric("backend_state", state="warming") == 1
    first_chat(gateway)
    assert_loaded_before_the_first_chat(ollama, "qwen3:32b")
    gateway.wait_log("backend gpu1 has restarted: loading its models")
    assert gateway.metric("breaker_opened_total") == 0


def test_a_backend_that_dies_while_it_loads_is_asked_again_when_it_is_back(start, ollama):
    ollama.set(load_ms=60000)
    gateway = start(models=ONE)
    wait_for(lambda: loads(ollama))
    ollama.kill()
    wait_for(lambda: gateway.metric("backend_up") == 0, 10)
    ollama.start()
    first_chat(gateway)
    assert_loaded_before_the_first_chat(ollama, "qwen3:32b")
    assert "is to be kept loaded, but is not" not in gateway.log + gateway.errors


def test_a_load_that_fails_is_said_once_and_holds_up_nobody(start, ollama):
    ollama.script(status=500, body={"error": "model requires more system memory"})
    gateway = start(models=TWO)
    wait_for(lambda: gateway.operator("/readyz").status == 200)
    finding = {"backend": "gpu1", "model": "qwen3:32b", "finding": "not_resident"}
    wait_for(lambda: gateway.operator("/readyz").json.get("findings") == [finding])
    gateway.wait_log(r"gpu1: qwen3:32b is to be kept loaded, but is not \(asked to load it, it answers 500: model requires more"
                     r" system memory\): the next request waits")
    assert loads(ollama) == ["qwen3:32b", "slow"]
    assert first_chat(gateway).content == "hello"
    gateway.signal(signal.SIGHUP)  # it looks at once
    wait_for(lambda: gateway.operator("/readyz").json == {"status": "ready"}, what="the finding's end")
    assert (gateway.log + gateway.errors).count("is to be kept loaded, but is not") == 1


def test_a_model_that_is_not_there_is_said_once_and_holds_up_nobody(start, ollama):
    gateway = start(models={"nobody": {"preload": True}, "qwen3:32b": {}})
    wait_for(lambda: gateway.operator("/readyz").status == 200)
    wait_for(lambda: [f["finding"] for f in gateway.operator("/readyz").json.get("findings", [])] == ["model_missing"])
    assert gateway.chat("say:x").content == "x"
    gateway.wait_log("gpu1: nobody:latest is configured for it, but it does not list it")
    assert (gateway.log + gateway.errors).count("nobody:latest") == 1


def test_callers_are_let_in_when_the_time_for_loading_is_over(start, ollama):
    ollama.set(load_ms=3000)
    gateway = start(models=ONE, warm_timeout="300ms")
    gateway.wait_log("backend gpu1: warm_timeout is over and not all of its models are loaded")
    assert gateway.operator("/readyz").status == 200
    assert first_chat(gateway).content == "hello"
    load, chat = ollama.seen()
    assert chat["received_ms"] < load["ended_ms"] and load["outcome"] == "answered", "the load goes on all the same"


def test_what_a_new_configuration_adds_is_loaded_while_callers_are_served(start, ollama):
    gateway = start(models=ONE)
    first_chat(gateway)
    ollama.set(load_ms=3000)
    gateway.write_config(models={**ONE, "slow": {"preload": True}})
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: loads(ollama) == ["qwen3:32b", "slow"])
    assert gateway.operator("/readyz").status == 200
    assert gateway.chat("say:meanwhile").content == "meanwhile"
    load = [request for request in ollama.seen() if request.get("is_load")][-1]
    assert load["outcome"] == "running"
    gateway.wait_log("backend gpu1: slow:latest is loaded, after", 10)


def test_callers_go_to_the_backend_that_is_warm_while_another_loads(start_gateway, start_fake):
    warm, cold = start_fake(), start_fake("--cold", "--load-ms", "2500")
    gateway = start_gateway(warm, ollama_api=None, models=ONE,
                            backends=[{"name": "cold", "url": cold.url, "weight": 100}, {"name": "warm", "url": warm.url}])
    for _ in range(20):
        assert gateway.chat("say:x").content == "x"
    assert loads(cold) == ["qwen3:32b"] and cold.stats()["requests"] == 0
    assert gateway.metric("backend_state", backend="cold", state="warming") == 1
    gateway.wait_log("backend cold: qwen3:32b is loaded, after", 10)
    wait_for(lambda: gateway.chat("say:x").status == 200 and cold.stats()["requests"], 10, "a chat at the one that was cold")
    assert_loaded_before_the_first_chat(cold, "qwen3:32b")
