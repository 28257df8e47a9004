"""Several backends: who gets what, and what happens to whom when one of them fails."""

import time

import pytest

from gateway import MODEL, PROGRAM
from processes import run
from wire import wait_for

OTHER = "other:7b"


@pytest.fixture
def fleet(start_fake, start_gateway):
    """fleet({"gpu1": {...}, "gpu2": {...}}, **settings): a stand-in for each, and a gateway before all of them."""
    def start(sites, **settings):
        fakes = {name: start_fake(*options.pop("arguments", ())) for name, options in sites.items()}
        for name, models in [(name, options.pop("has", None)) for name, options in sites.items()]:
            if models:
                fakes[name].set(models=[{"name": model, "capabilities": ["completion"]} for model in models])
        entries = [{"name": name, "url": fakes[name].url, **options} for name, options in sites.items()]
        gateway = start_gateway(next(iter(fakes.values())), ollama_api=None, backends=entries, **settings)
        wait_for(lambda: {labels["backend"] for name, labels, _ in gateway.metrics()
                          if name == "qwen_gateway_backend_model_resident"} == set(fakes))  # their lists are known
        return gateway, fakes
    return start


def ask(gateway, says="tokens:1", tag="", session=None, **fields):
    messages = [{"role": "system", "content": f"tag {tag}"}, {"role": "user", "content": says}]
    return gateway.open_chat(messages=messages, headers={"X-Session-Id": session} if session else (), **fields)


def tags(fake):
    return [chat["body_json"]["messages"][0]["content"].split()[1] for chat in fake.seen()]


def occupy(gateway, fakes, count):
    wires = [ask(gateway, "tokens:100000@50", f"hold{n}", stream=True) for n in range(count)]
    wait_for(lambda: sum(fake.stats()["running"] for fake in fakes.values()) == count, 10, f"{count} running")
    return wires


def test_a_model_whose_only_backend_is_away_from_the_start_is_not_unknown(start_fake, start_gateway):
    here, away = start_fake(), start_fake()
    away.set(models=[{"name": OTHER, "capabilities": ["completion"]}])
    away.kill()
    gateway = start_gateway(here, ollama_api=None, backends=[{"name": "gpu1", "url": here.url},
                                                             {"name": "gpu2", "url": away.url, "models": [OTHER]}])
    wait_for(lambda: gateway.metric("backend_up", backend="gpu1") == 1 and "gives no sign of life" in gateway.errors)
    for answer in (gateway.chat(model=OTHER), gateway.get(f"/v1/models/{OTHER}")):
        assert (answer.status, answer.code) == (503, "backend_unavailable")
    for answer in (gateway.chat(model="no-such:7b"), gateway.get("/v1/models/no-such:7b")):
        assert (answer.status, answer.code) == (404, "model_not_found")
    assert [chat["body_json"]["model"] for chat in here.seen()] == []
    assert gateway.chat().status == 200
    told = run([PROGRAM, "--explain", OTHER, "--config", gateway.config_path]).stdout
    assert "now: none, no backend can take it" in told and "gpu2 takes none: it does not answer" in told, told
    away.start()
    away.set(models=[{"name": OTHER, "capabilities": ["completion"]}])
    wait_for(lambda: gateway.chat(model=OTHER).status == 200, 15)


def test_free_slots_of_all_backends_are_used(fleet):
    gateway, fakes = fleet({"gpu1": {"slots": 2}, "gpu2": {"slots": 1}, "gpu3": {"slots": 3}})
    wires = occupy(gateway, fakes, 6)
    assert [fake.stats()["running"] for fake in fakes.values()] == [2, 1, 3]
    waiting = ask(gateway)
    wait_for(lambda: gateway.metric("queue_waiting") == 1)
    wires[0].close()
    answer = waiting.answer()
    assert answer.status == 200
    assert [fake.stats()["peak_running"] for fake in fakes.values()] == [2, 1, 3]
    assert gateway.line_of(answer)["backend"] in fakes


def test_the_log_names_the_backend_and_the_caller_never_learns_it(fleet):
    gateway, fakes = fleet({"secret-node-7": {"slots": 1}})
    answer = ask(gateway).answer()
    assert gateway.line_of(answer)["backend"] == "secret-node-7"
    assert "secret-node" not in answer.text and not any("secret-node" in value for _, value in answer.headers)
    fakes["secret-node-7"].kill()
    refused = ask(gateway).answer()
    assert refused.status == 503 and "secret-node" not in refused.text


def test_a_conversation_stays_where_its_prompt_cache_is(fleet):
    gateway, fakes = fleet({f"gpu{n}": {"slots": 4} for n in range(3)})
    for n in range(12):
        for turn in range(4):
            assert ask(gateway, tag=f"{n}", session=f"session-{n}").answer().status == 200
    homes = {tag: {name for name, fake in fakes.items() if tag in tags(fake)} for tag in map(str, range(12))}
    assert all(len(home) == 1 for home in homes.values()), homes
    assert len(set().union(*homes.values())) > 1, "all conversations went to one backend"
    assert gateway.metric("queue_affinity_hits_total") >= 0.9 * gateway.metric("queue_affinity_tries_total") > 0


def test_without_a_header_the_first_messages_make_the_conversation(fleet):
    gateway, fakes = fleet({f"gpu{n}": {"slots": 4} for n in range(3)})
    for n in range(8):
        messages = [{"role": "system", "content": f"tag {n}"}, {"role": "user", "content": "tokens:1"}]
        for turn in range(3):
            assert gateway.chat(messages=messages).status == 200
            messages = messages + [{"role": "assistant", "content": "r0"}, {"role": "user", "content": f"tokens:{turn + 1}"}]
    for tag in map(str, range(8)):
        assert sum(tag in tags(fake) for fake in fakes.values()) == 1


def test_a_prompt_cache_key_makes_one_too(fleet):
    gateway, fakes = fleet({f"gpu{n}": {"slots": 4} for n in range(3)})
    for n in range(9):
        assert ask(gateway, tag=f"{n}", prompt_cache_key="one").answer().status == 200
    assert sorted(len(tags(fake)) for fake in fakes.values()) == [0, 0, 9]
    assert ask(gateway, prompt_cache_key=7).answer().status == 200, "only a hint: another type is passed over"


def test_a_model_is_asked_of_a_backend_that_has_it(fleet):
    gateway, fakes = fleet({"gpu1": {"has": [MODEL]}, "gpu2": {"has": [MODEL, OTHER]}, "gpu3": {"has": [MODEL]}})
    wait_for(lambda: len(gateway.get("/v1/models").json["data"]) == 2)
    assert {entry["id"] for entry in gateway.get("/v1/models").json["data"]} == {MODEL, OTHER}
    for _ in range(6):
        assert ask(gateway, model=OTHER).answer().status == 200
    assert [len(fake.seen()) for fake in fakes.values()] == [0, 6, 0]
    unknown = ask(gateway, model="nobody:1b").answer()
    assert (unknown.status, unknown.code) == (404, "model_not_found")


def test_a_backend_is_asked_only_for_the_models_it_is_for(fleet):
    gateway, fakes = fleet({"gpu1": {"has": [MODEL, OTHER], "models": [MODEL]}, "gpu2": {"has": [MODEL, OTHER], "models": [OTHER]}})
    for model in (MODEL, OTHER) * 3:
        assert ask(gateway, model=model).answer().status == 200
    assert {chat["body_json"]["model"] for chat in fakes["gpu1"].seen()} == {MODEL}
    assert {chat["body_json"]["model"] for chat in fakes["gpu2"].seen()} == {OTHER}


def test_a_model_can_do_what_one_of_its_backends_can(fleet):
    gateway, fakes = fleet({"plain": {"has": [MODEL], "weight": 0}, "able": {}})
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    assert gateway.chat(tools=[tool]).status == 200
    assert gateway.chat(reasoning_effort="high").status == 200
    fakes["able"].set(models=[{"name": MODEL, "capabilities": ["completion", "thinking"]}])
    wait_for(lambda: gateway.chat(tools=[tool]).code == "unsupported", 15)
    assert gateway.chat(reasoning_effort="high").status == 200
    assert not fakes["plain"].seen()


@pytest.mark.parametrize("other", [{}, {"has": [MODEL]}], ids=["all can", "one cannot"])
def test_a_default_to_think_is_for_models_that_do_wherever_they_run(fleet, other):
    gateway, fakes = fleet({"able": {}, "other": {"weight": 0, **other}}, models={MODEL: {"think": True}})
    assert gateway.chat().status == 200
    assert fakes["able"].body.get("think") == (None if other else True)


def test_a_standby_backend_serves_only_while_no_other_can(fleet):
    gateway, fakes = fleet({"gpu1": {"slots": 1}, "spare": {"slots": 1, "weight": 0}})
    wires = occupy(gateway, fakes, 1)
    waiting = ask(gateway)
    wait_for(lambda: gateway.metric("queue_waiting") == 1)
    assert not fakes["spare"].seen()
    wires[0].close()
    assert waiting.answer().status == 200
    fakes["gpu1"].kill()
    answer = ask(gateway, tag="spare").answer()
    assert answer.status == 200 and gateway.line_of(answer)["backend"] == "spare"


def test_a_draining_backend_finishes_what_runs_and_takes_nothing_new(fleet):
    gateway, fakes = fleet({"gpu1": {"slots": 4}, "gpu2": {"slots": 4}})
    wires = occupy(gateway, fakes, 8)
    before = len(fakes["gpu1"].seen())
    first, second = gateway.config["backends"]
    gateway.write_config(backends=[{**first, "drain": True}, second])
    gateway.signal(1)
    gateway.wait_log("configuration reloaded")
    for wire in wires:
        assert wire.head().status == 200
    waiting = [ask(gateway) for _ in range(3)]
    wait_for(lambda: gateway.metric("queue_waiting") == 3)
    assert fakes["gpu1"].stats()["running"] == 4, "what ran was cut"
    for wire in wires:
        wire.close()
    assert [wire.answer().status for wire in waiting] == [200] * 3
    assert len(fakes["gpu1"].seen()) == before


def test_a_refused_connection_is_tried_elsewhere(fleet):
    gateway, fakes = fleet({"gpu1": {}, "gpu2": {}})
    fakes["gpu1"].set(mute=True)
    for n in range(8):
        answer = ask(gateway, tag=f"{n}", session=f"s{n}").answer()
        assert answer.status == 200 and gateway.line_of(answer)["backend"] == "gpu2"
    assert sorted(tags(fakes["gpu2"]), key=int) == [str(n) for n in range(8)], "each once"


@pytest.mark.parametrize("failing", [{"close_before_answer": True}, {"status": 503, "body": {"error": "server busy"}}],
                         ids=["hangs up", "503"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_what_has_not_begun_to_answer_is_sent_once_more_elsewhere(fleet, failing, stream):
    gateway, fakes = fleet({"gpu1": {}, "gpu2": {"weight": 0}})
    fakes["gpu1"].script(**failing)
    answer = ask(gateway, stream=stream).answer()
    assert answer.status == 200 and answer.content
    line = gateway.line_of(answer)
    assert (line["backend"], line["resent"]) == ("gpu2", "1")
    assert [len(fake.seen()) for fake in fakes.values()] == [1, 1]
    assert gateway.metric("backend_resends_total") >= 1


def test_it_is_sent_again_once_only(fleet):
    gateway, fakes = fleet({"gpu1": {}, "gpu2": {}, "gpu3": {}})
    for fake in fakes.values():
        fake.script(times=0, close_before_answer=True)
    answer = ask(gateway).answer()
    assert (answer.status, answer.code) == (502, "upstream_error")
    assert sum(len(fake.seen()) for fake in fakes.values()) == 2


def test_what_has_begun_to_answer_is_never_sent_again(fleet):
    gateway, fakes = fleet({"gpu1": {}, "gpu2": {"weight": 0}})
    fakes["gpu1"].script(tokens=9, reset_after_bytes=400)
    answer = ask(gateway, stream=True).answer()
    assert answer.stream_error and not answer.is_done
    assert not fakes["gpu2"].seen()


def test_a_stream_that_has_heard_from_us_is_not_sent_again(fleet):
    gateway, fakes = fleet({"gpu1": {}, "gpu2": {"weight": 0}}, commit_after="100ms")
    fakes["gpu1"].script(silent=True)
    wire = ask(gateway, stream=True)
    answer = wire.head()
    fakes["gpu1"].kill()
    wire.body_of(answer)
    assert answer.stream_error["code"] == "upstream_error" and not fakes["gpu2"].seen()


@pytest.mark.timing
def test_a_backend_that_hangs_loses_its_request_to_another(fleet):
    gateway, fakes = fleet({"gpu1": {}, "gpu2": {"weight": 0}})
    fakes["gpu1"].script(silent=True)
    wire = ask(gateway)
    fakes["gpu1"].wait_chats(1, "running")
    fakes["gpu1"].freeze()
    began = time.monotonic()
    answer = wire.answer()
    took = time.monotonic() - began
    fakes["gpu1"].thaw()
    assert answer.status == 200 and gateway.line_of(answer)["backend"] == "gpu2"
    assert took < 5


def test_with_nobody_left_the_caller_is_told_at_once(fleet):
    gateway, fakes = fleet({"gpu1": {}, "gpu2": {}})
    for fake in fakes.values():
        fake.kill()
    wait_for(lambda: gateway.metric("backend_up") == 0, 15)
    answer = ask(gateway).answer()
    assert (answer.status, answer.code) == (503, "backend_unavailable")
    assert gateway.get("/readyz", key=None).json["reason"] == "no_backend"


def test_the_operator_is_told_which_backend_is_down_while_others_serve(fleet):
    gateway, fakes = fleet({"gpu1": {}, "gpu2": {}})
    assert gateway.operator("/readyz").json == {"status": "ready"}
    fakes["gpu2"].kill()
    wait_for(lambda: gateway.operator("/readyz").json == {"status": "ready", "findings": [{"backend": "gpu2", "finding": "down"}]})
    assert gateway.get("/readyz", key=None).json == {"status": "ready"}
    fakes["gpu2"].start()
    wait_for(lambda: gateway.operator("/readyz").json == {"status": "ready"})
