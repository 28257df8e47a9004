"""
A gateway with `control:`: what the control plane says arrives, is confirmed only when it is true and would stay true, and
goes on being true while the control plane is away. Its other end is the stand-in of speaker.py.
"""

import contextlib
import json
import pathlib
import struct
import threading
import time

import pytest

from conftest import short_folder
from gateway import PROGRAM, Gateway
from processes import BIN, environment, run
from speaker import BUSY, DRAIN, RESYNC, SECRET, UNDRAIN, UNKNOWN, Speaker, backend, gone, key, model, no_key, setting
from wire import Cut, wait_for

ALICE, BOB, CAROL = "alice-may-come-in", "bob-may-come-in", "carol-may-come-in"


@pytest.fixture
def control():
    control = Speaker()
    yield control
    control.end()


@pytest.fixture
def pair(control, fake, folder):
    """pair(**settings) starts a gateway that follows `control`; again, it has the same state and another configuration."""
    state = f"{folder}/state"
    secret = pathlib.Path(folder) / "secret"
    secret.write_text(SECRET + "\n")
    with contextlib.ExitStack() as stack:
        def start(is_ready_wanted=True, is_known=True, follows=(), **settings):
            if is_known and not control.version:
                control.publish(backend(fake.url), key(ALICE))
            gateway = Gateway(stack.enter_context(short_folder()), fake.url, is_ready_wanted=is_ready_wanted,
                              **{"ollama_api": None, "auth": {"valid_keys": None}, **settings},
                              control={"url": control.url, "name": control.name, "state": state,
                                       "enroll_secret_file": str(secret), **dict(follows)})
            gateway.state = pathlib.Path(state)
            stack.callback(gateway.stop)
            return gateway
        yield start


def status(gateway, secret):
    return gateway.chat(key=secret).status


def ready(gateway):
    answer = gateway.operator("/readyz")
    return answer.status, json.loads(answer.text)


def wait_ready(gateway, wanted):
    wait_for(lambda: ready(gateway)[0] == 200 if wanted == "ready" else ready(gateway)[1].get("reason") == wanted, 15,
             f"/readyz {wanted}")


def wait_link(gateway, wanted):
    wait_for(lambda: ready(gateway)[1]["control"]["link"] == wanted, 15, f"the link {wanted}")


# Keys ---------------------------------------------------------------------------------------------------------

def test_a_new_key_lets_its_caller_in_and_a_removed_one_none_once_that_is_confirmed(pair, control):
    gateway = pair()
    assert status(gateway, BOB) == 401
    control.publish(key(BOB, "bob"))
    wait_for(lambda: status(gateway, BOB) == 200, 5)
    for _ in range(5):
        control.publish(key(CAROL, "carol"))
        control.wait_applied()
        assert status(gateway, CAROL) == 200
        control.publish(no_key(CAROL))
        control.wait_applied()
        assert status(gateway, CAROL) == 401
    assert status(gateway, ALICE) == 200


def test_a_key_has_the_rules_that_came_with_it(pair, control):
    gateway = pair(rate_limit={"enabled": True})
    control.publish(key(BOB, "bob", models=["llama3.2:1b"]), key(CAROL, "carol", rpm=2),
                    key("from-elsewhere", "dora", allow=["10.9.0.0/16"]), key("too-late", "emil", expires=1_700_000_000),
                    key("front-end", "front", name="front", delegate=True), key("no-more", "team-user", team="red", weight=7))
    control.wait_applied()
    refused = gateway.chat(key=BOB)
    assert (refused.status, refused.code) == (403, "model_not_allowed")
    assert [status(gateway, CAROL) for _ in range(3)] == [200, 200, 429]
    assert status(gateway, "from-elsewhere") == 403
    assert status(gateway, "too-late") == 401
    assert status(gateway, "no-more") == 200
    answer = gateway.chat(key="front-end", headers={"X-User-Id": "zoe"})
    assert gateway.line_of(answer)["user"] == "front/zoe"


def test_no_more_requests_of_a_key_run_than_it_may_have(pair, control, fake):
    gateway = pair()
    control.publish(key(BOB, "bob", max_concurrent=2))
    control.wait_applied()
    fake.script(times=2, silent=True)
    wires = [gateway.open_chat(key=BOB, stream=True) for _ in range(2)]
    wait_for(lambda: gateway.metric("in_flight") == 2, 5)
    refused = gateway.chat(key=BOB)
    assert (refused.status, refused.code) == (429, "concurrency_limit_exceeded")
    assert refused.header("Retry-After") == "1"
    assert status(gateway, ALICE) == 200
    for wire in wires:
        wire.close()
    wait_for(lambda: gateway.metric("in_flight") == 0, 5)
    assert status(gateway, BOB) == 200


def test_cutting_a_key_ends_its_streams_and_no_others(pair, control, fake):
    gateway = pair()
    control.publish(key(BOB, "bob"))
    control.wait_applied()
    fake.script(times=2, tokens=2000, token_ms=20)
    cut, kept = gateway.open_chat(key=BOB, stream=True), gateway.open_chat(key=ALICE, stream=True)
    for wire in (cut, kept):
        wire.head()
        wire.chunk()
    control.publish(no_key(BOB, cut=True))
    control.wait_applied()
    began = time.monotonic()
    text = cut.until_closed()
    assert time.monotonic() - began < 2
    assert b"invalid_api_key" in text and b"[DONE]" not in text
    line_of_cut = gateway.wait_line(user="bob", status=401)
    assert line_of_cut["why"] == "invalid_api_key"
    kept.chunk()
    kept.close()
    assert status(gateway, BOB) == 401


def test_a_request_that_has_begun_keeps_its_rules(pair, control, fake):
    gateway = pair()
    control.publish(key(BOB, "bob"))
    control.wait_applied()
    fake.script(times=1, tokens=30, token_ms=20)
    wire = gateway.open_chat(key=BOB, stream=True)
    wire.head()
    control.publish(no_key(BOB), setting("max_prompt_chars", 5))
    control.wait_applied()
    assert status(gateway, BOB) == 401
    pieces = iter(wire.chunk, b"")
    assert b"[DONE]" in b"".join(pieces)


# What is no key -----------------------------------------------------------------------------------------------

def test_without_a_backend_it_serves_and_says_so(pair, control, fake):
    control.publish(key(ALICE))
    gateway = pair(is_ready_wanted=False)
    wait_ready(gateway, "no_backend")
    assert status(gateway, ALICE) == 503
    control.publish(backend(fake.url))
    wait_ready(gateway, "ready")
    assert status(gateway, ALICE) == 200
    control.publish(gone("backend", "gpu1"))
    wait_ready(gateway, "no_backend")


def test_models_settings_and_the_whitelist_come_from_there(pair, control):
    gateway = pair()
    control.publish(model("house", backend_model="qwen3:32b", num_ctx=4096, keep_alive='"5m"', think=2))
    control.wait_applied()
    assert [entry["id"] for entry in gateway.get("/v1/models", key=ALICE).json["data"]] == ["house"]
    assert gateway.chat(key=ALICE, model="house").status == 200
    assert gateway.chat(key=ALICE, model="qwen3:32b").status == 404
    control.publish(gone("model", "house"), setting("max_prompt_chars", 4))
    control.wait_applied()
    assert gateway.chat("five!", key=ALICE).code == "context_length_exceeded"
    control.publish({"range": "10.0.0.0/8"})
    control.wait_applied()
    with pytest.raises((OSError, Cut)):
        gateway.chat(key=ALICE)
    control.publish(gone("range", "10.0.0.0/8"), {"range": "127.0.0.1/32"}, gone("setting", "max_prompt_chars"))
    control.wait_applied()
    assert gateway.chat("five!", key=ALICE).status == 200


@pytest.mark.parametrize("bad, says", [
    (model("house", num_ctx=1), "models.house.num_ctx must be a whole number from 4 to 100000000, not \"1\""),
    (backend("https://10.0.0.1", "gpu2"), "backends[2].url cannot be https: Ollama speaks plain http"),
    (setting("max_prompt_char", 7), "settings.max_prompt_char is not a known setting"),
    (setting("listen", ":80"), "settings.listen is not the control plane's to say: it stays the file's"),
    ({"setting": {"name": "max_prompt_chars", "value": "{{"}}, "the setting \"max_prompt_chars\" has a value that cannot be taken"),
    ({"range": "10.0.0.0/99"}, "whitelist[1] is wrong"),
    (key(CAROL, "carol", models=["not a model"]), "which is not the name of a model"),
])
def test_what_cannot_be_applied_is_told_and_changes_nothing_until_it_heals(pair, control, bad, says):
    gateway = pair()
    good = control.version
    control.wait_applied()
    control.publish(key(BOB, "bob"), bad)
    told = control.wait(event="sync", failed=control.version, applied=good)
    assert says in told["error"], told
    assert status(gateway, BOB) == 401 and status(gateway, ALICE) == 200
    assert gateway.metric("control_apply_errors_total") >= 1
    assert says in ready(gateway)[1]["control"]["trouble"]
    (noun, what), = bad.items()
    control.publish(no_key(CAROL) if noun == "key" else gone(noun, what if noun == "range" else what["name"]))
    control.wait_applied()
    assert status(gateway, BOB) == 200
    assert ready(gateway)[1]["control"]["trouble"] == ""


BAD = setting("max_prompt_char", 7)


def test_what_cannot_be_applied_holds_no_revocation_back(pair, control, fake):
    gateway = pair()
    control.publish(*[key(secret, secret[:3]) for secret in (BOB, CAROL, "dora-may-come-in", "emil-may-come-in")])
    good = control.version
    control.wait_applied()
    fake.script(times=1, tokens=2000, token_ms=20)
    cut = gateway.open_chat(key=BOB, stream=True)
    cut.head()
    cut.chunk()
    control.publish(BAD, no_key(BOB, cut=True), key("new-one", "new"), no_key(CAROL), key(CAROL, "car", rpm=7))
    wait_for(lambda: status(gateway, BOB) == 401, 5)
    assert b"invalid_api_key" in cut.until_closed()
    assert (status(gateway, ALICE), status(gateway, CAROL), status(gateway, "new-one")) == (200, 200, 401)
    told = control.wait(event="sync", failed=control.version)
    assert told["applied"] == good and "max_prompt_char" in told["error"]
    assert gateway.metric("control_version", state="held") == good
    for secret in ("dora-may-come-in", "emil-may-come-in"):  # and the next one is not waited for any longer
        assert status(gateway, secret) == 200
        control.publish(no_key(secret))
        began = time.monotonic()
        wait_for(lambda secret=secret: status(gateway, secret) == 401, 5)
        assert time.monotonic() - began < 2
        assert control.wait(event="sync", failed=control.version)["applied"] == good
    control.publish(gone("setting", "max_prompt_char"), key("emil-may-come-in", "emi"))
    control.wait_applied()
    assert [status(gateway, secret) for secret in (ALICE, BOB, CAROL, "dora-may-come-in", "emil-may-come-in", "new-one")] == \
        [200, 401, 200, 401, 200, 200]


def test_it_is_not_asked_for_again_what_cannot_be_applied_but_after_a_reload(pair, control):
    gateway = pair()
    control.wait_applied()
    control.publish(BAD)
    control.wait(event="sync", failed=control.version)
    refused = gateway.metric("control_apply_errors_total")
    since = control.here()
    gateway.write_config(max_system_chars=3)
    gateway.signal(1)
    gateway.wait_log("configuration reloaded")
    control.wait(event="sync", since=since, failed=0, where=lambda event: event["error"])
    control.wait(event="sync", since=since, failed=control.version)
    assert gateway.metric("control_apply_errors_total") == refused + 1


def test_a_snapshot_that_cannot_be_applied_shuts_out_whom_it_does_not_know(pair, control):
    gateway = pair()
    control.publish(key(BOB, "bob"), key(CAROL, "carol"))
    good = control.version
    control.wait_applied()
    control.be(chunk_bytes=100)
    control.publish(BAD, no_key(BOB), key("new-one", "new"), keeps=False)
    wait_for(lambda: status(gateway, BOB) == 401, 5)
    assert (status(gateway, ALICE), status(gateway, CAROL), status(gateway, "new-one")) == (200, 200, 401)
    assert control.wait(event="sync", failed=control.version)["applied"] == good
    gateway.wait_log("is not applied")
    wait_for(lambda: ready(gateway)[1]["control"]["applied"] == good, 5)
    control.publish(gone("setting", "max_prompt_char"))
    control.wait_applied()
    assert [status(gateway, secret) for secret in (ALICE, BOB, CAROL, "new-one")] == [200, 401, 200, 200]


@pytest.mark.parametrize("is_whole", [False, True])
def test_whom_an_update_that_cannot_be_applied_shut_out_stays_out_over_a_kill(pair, control, is_whole):
    gateway = pair()
    control.publish(key(BOB, "bob"), key(CAROL, "carol"))
    good = control.version
    control.wait_applied()
    archive, journal = (gateway.state / "keys").stat().st_mtime_ns, gateway.metric("control_journal_bytes")
    control.publish(BAD, no_key(BOB), keeps=not is_whole)
    wait_for(lambda: status(gateway, BOB) == 401, 5)
    if is_whole:
        wait_for(lambda: (gateway.state / "keys").stat().st_mtime_ns > archive, 5)
    else:
        wait_for(lambda: gateway.metric("control_journal_bytes") > journal, 5)
    gateway.kill()
    control.order("stop")
    again = pair()
    assert (status(again, ALICE), status(again, BOB), status(again, CAROL)) == (200, 401, 200)
    assert ready(again)[1]["control"]["version"] == good
    since = control.here()
    control.order("start")
    control.wait(event="sync", since=since, failed=control.version)
    assert (status(again, ALICE), status(again, BOB), status(again, CAROL)) == (200, 401, 200)
    control.publish(gone("setting", "max_prompt_char"), no_key(CAROL))
    control.wait_applied(since=since)
    again.kill()
    control.order("stop")
    third = pair()
    assert [status(third, secret) for secret in (ALICE, BOB, CAROL)] == [200, 401, 401]
    assert ready(third)[1]["control"]["version"] == control.version


def test_a_journal_of_removals_alone_becomes_a_file_as_well(pair, control):
    gateway = pair(follows={"max_journal_bytes": "4 KiB"})
    control.publish(*[key(f"secret-of-{n}", f"user{n}") for n in range(120)], keeps=False)
    control.wait_applied()
    archive = (gateway.state / "keys").stat().st_mtime_ns
    for n in range(0, 120, 2):
        control.publish(no_key(f"secret-of-{n}"), *([BAD] if not n else []))
        control.wait(event="sync", failed=control.version)
    wait_for(lambda: (gateway.state / "keys").stat().st_mtime_ns > archive, 5)
    wait_for(lambda: gateway.metric("control_journal_bytes") < 4096, 5)
    assert [status(gateway, f"secret-of-{n}") for n in range(20)] == [401, 200] * 10
    wait_for(lambda: gateway.metric("control_keys") == 61, 5)
    gateway.stop()
    control.order("stop")
    again = pair()
    assert [status(again, f"secret-of-{n}") for n in range(120)] == [401, 200] * 60


def test_a_snapshot_comes_in_pieces(pair, control):
    control.be(chunk_bytes=200)
    control.publish(*[key(f"secret-of-{n}", f"user{n}") for n in range(100)], key(ALICE))
    gateway = pair(is_ready_wanted=False)
    control.wait_applied()
    assert [status(gateway, f"secret-of-{n}") for n in (0, 50, 99)] == [503] * 3  # in, but there is no backend
    assert gateway.metric("control_keys") == 101


# The control plane is away, or says nonsense --------------------------------------------------------------------

def test_it_serves_while_the_control_plane_is_away_and_catches_up(pair, control):
    gateway = pair()
    control.wait_applied()
    control.order("stop")
    wait_link(gateway, "down")
    assert status(gateway, ALICE) == 200
    control.publish(no_key(ALICE), key(BOB, "bob"))
    since = control.here()
    control.order("start")
    control.wait_applied(since=since)
    assert (status(gateway, ALICE), status(gateway, BOB)) == (401, 200)
    assert len([text for text in gateway.errors.splitlines() if "the control plane is lost" in text]) == 1


def test_started_while_the_control_plane_is_away_it_serves_at_once(pair, control):
    first = pair()
    control.publish(key(BOB, "bob"), model("house", backend_model="qwen3:32b"))
    control.publish(no_key(ALICE))
    control.wait_applied()
    first.stop()
    control.order("stop")
    gateway = pair()
    assert (status(gateway, ALICE), gateway.chat(key=BOB, model="house").status) == (401, 200)
    assert ready(gateway)[1]["control"]["version"] == control.version


@pytest.mark.parametrize("rounds", [3])
def test_a_confirmed_revocation_outlives_a_kill(pair, control, rounds):
    for _ in range(rounds):
        since = control.here()
        gateway = pair()
        control.publish(key(BOB, "bob"))
        control.wait_applied(since=since)
        control.publish(no_key(BOB))
        control.wait_applied(since=since)
        gateway.kill()
        control.order("stop")
        again = pair()
        assert (status(again, BOB), status(again, ALICE)) == (401, 200)
        again.stop()
        control.order("start")


@pytest.mark.parametrize("policy", ["refuse", "serve"])
def test_knowledge_that_is_too_old_is_used_as_the_policy_says(pair, control, policy):
    gateway = pair(follows={"max_staleness": "1s", "when_stale": policy})
    up = control.wait(event="up")
    assert up["max_staleness_s"] == (1 if policy == "refuse" else 0)
    wait_for(lambda: ready(gateway)[1]["control"]["heard_s"] is not None, 5)
    control.order("stop")
    if policy == "refuse":
        wait_ready(gateway, "stale")
        refused = gateway.chat(key=ALICE)
        assert (refused.status, refused.code) == (503, "stale")
        assert refused.header("Retry-After")
        assert gateway.get("/readyz", key=None).json["reason"] == "stale"
        assert gateway.metric("control_stale") == 1
        control.order("start")
        wait_ready(gateway, "ready")
    else:
        wait_for(lambda: ready(gateway)[1]["control"]["heard_s"] > 1.5, 10)
    assert status(gateway, ALICE) == 200


@pytest.mark.parametrize("policy", ["refuse", "serve"])
def test_age_goes_on_over_a_restart(pair, control, policy, folder):
    pair(follows={"when_stale": policy}).stop()
    control.order("stop")
    ahead = pathlib.Path(folder) / "ahead"
    ahead.write_bytes(struct.pack("q", 25 * 3600))
    extra = {"LD_PRELOAD": str(BIN / "libwall-clock.so"), "QG_WALL_CLOCK": str(ahead),
             "ASAN_OPTIONS": environment()["ASAN_OPTIONS"] + ":verify_asan_link_order=0"}
    gateway = pair(is_ready_wanted=policy == "serve", environment_extra=extra, follows={"when_stale": policy})
    assert status(gateway, ALICE) == (503 if policy == "refuse" else 200)
    assert ready(gateway)[1]["control"]["heard_s"] > 24 * 3600


def test_starting_again_and_again_makes_no_knowledge_fresh(pair, control):
    """The time until which a silent gateway may accept is a promise, whatever writes to its files meanwhile."""
    gateway = pair(follows={"max_staleness": "3s"})
    wait_for(lambda: (gateway.state / "heard").exists(), 5)
    control.order("stop")

    def is_refused_after_a_start():
        gateway.kill()
        gateway.spawn()
        gateway.wait_until_up(False)
        return status(gateway, ALICE) == 503
    wait_for(is_refused_after_a_start, 30, "a refusal")


def test_a_gateway_that_never_heard_anything_says_so(pair, control):
    control.order("stop")
    gateway = pair(is_ready_wanted=False, is_known=False)
    assert ready(gateway)[1]["reason"] == "stale"
    assert gateway.chat(key=ALICE).code == "stale"


@pytest.mark.parametrize("manner", ["garbage", "corrupt_sum", "wrong_from", "refuse", "silent"])
def test_nonsense_changes_nothing_and_is_got_over(pair, control, manner):
    gateway = pair()
    control.wait_applied()
    since = control.here()
    control.be(**{manner: BUSY if manner == "refuse" else True})
    control.publish(key(BOB, "bob"), keeps=manner == "wrong_from")
    if manner in ("corrupt_sum", "wrong_from"):
        control.wait(event="sync", since=since, failed=control.version)
    elif manner != "silent":
        wait_for(lambda: len([event for event in control.events[since:] if event["event"] == "sync"]) >= 2, 15)
    assert (status(gateway, ALICE), status(gateway, BOB)) == (200, 401)
    control.be(**{manner: 0 if manner == "refuse" else False})
    if manner == "silent":
        control.order("stop")
        control.order("start")
    control.publish(key(CAROL, "carol"))
    control.wait_applied(timeout=20)
    assert (status(gateway, BOB), status(gateway, CAROL)) == (200, 200)


REMOVED = "the control plane has removed this gateway"


@pytest.mark.parametrize("policy", ["refuse", "serve"])
def test_a_removed_gateway_refuses_callers_until_it_is_taken_back(pair, control, policy):
    """It was told, so when_stale does not matter. A restart without a control plane changes nothing."""
    follows = {"when_stale": policy}
    gateway = pair(follows=follows)
    control.wait_applied()
    assert status(gateway, ALICE) == 200
    control.order("know", name=control.name, secret="of somebody else")
    control.order("remove", name=control.name)
    wait_ready(gateway, "stale")
    refused = gateway.chat(key=ALICE)
    assert (refused.status, refused.code) == (503, "stale")
    assert ready(gateway)[1]["control"]["trouble"] == REMOVED and gateway.metric("control_stale") == 1
    wait_for(lambda: (gateway.state / "removed").exists(), 5)
    gateway.wait_log(REMOVED)
    assert gateway.errors.count(REMOVED) == 1 and "serving goes on" not in gateway.errors
    gateway.kill()
    control.order("stop")

    alone = pair(is_ready_wanted=False, follows=follows)
    assert alone.chat(key=ALICE).code == "stale" and ready(alone)[1]["reason"] == "stale"
    alone.wait_log(REMOVED)
    control.order("know", name=control.name, secret=SECRET)
    control.order("start")
    wait_ready(alone, "ready")
    assert status(alone, ALICE) == 200 and ready(alone)[1]["control"]["trouble"] == ""
    wait_for(lambda: not list(alone.state.glob("removed*")), 5)
    alone.wait_log("what is known is fresh")
    assert alone.errors.count(REMOVED) == 1
    alone.kill()
    control.order("stop")
    assert status(pair(follows=follows), ALICE) == 200


# The disk -----------------------------------------------------------------------------------------------------

def cut_in_half(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def flip_a_bit(path):
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)


def of_the_future(path):
    whole = bytearray(path.read_bytes())
    whole[8] = 99
    path.write_bytes(whole)


@pytest.mark.parametrize("damage", [cut_in_half, flip_a_bit, of_the_future])
def test_a_bad_file_makes_way_for_the_one_before_and_is_told_once(pair, control, damage):
    first = pair()
    control.wait_applied()
    since = control.here()
    control.publish(key(BOB, "bob"), keeps=False)  # a whole snapshot, so a second file
    control.wait_applied(since=since)
    control.publish(key(CAROL, "carol"))
    control.wait_applied()
    first.stop()
    control.order("stop")
    damage(first.state / "keys")
    gateway = pair()
    gateway.wait_log("going on from the one before")
    said = [text for text in gateway.errors.splitlines() if "going on from the one before" in text]
    assert len(said) == 1 and str(first.state / "keys") in said[0]
    assert status(gateway, ALICE) == 200


def test_when_both_files_are_bad_it_begins_with_nothing_and_hears_all_again(pair, control):
    first = pair()
    control.wait_applied()
    control.publish(key(BOB, "bob"), keeps=False)
    control.wait_applied()
    first.stop()
    for path in first.state.glob("keys*"):
        cut_in_half(path)
    gateway = pair()
    gateway.wait_log("beginning with nothing")
    assert (status(gateway, ALICE), status(gateway, BOB)) == (200, 200)


def test_a_journal_that_has_grown_becomes_a_file(pair, control):
    gateway = pair(follows={"max_journal_bytes": "4 KiB"})
    control.wait_applied()
    for n in range(60):
        control.publish(key(f"secret-of-{n}", f"user{n}"))
        if n % 10 == 9:
            control.wait_applied()
    wait_for(lambda: gateway.metric("control_journal_bytes") < 4096, 10, "a small journal")
    for n in range(0, 60, 2):
        control.publish(no_key(f"secret-of-{n}"))
    control.wait_applied()
    gateway.kill()
    control.order("stop")
    again = pair()
    assert [status(again, f"secret-of-{n}") for n in range(60)] == [401, 200] * 30
    assert len(list(gateway.state.glob("journal.*"))) <= 4


def test_no_two_use_one_folder(pair, folder):
    first = pair()
    path = pathlib.Path(folder) / "config.yaml"
    path.write_text(f"listen: unix:{folder}/l\noperator_listen: unix:{folder}/o\n"
                    f"control: {{url: tcp://127.0.0.1:1, name: gw, state: {first.state}}}\n")
    result = run([PROGRAM, "--config", path])
    assert result.returncode == 1 and f"control.state: the folder {first.state} is in use by another" in result.stderr, result.stderr
    first.kill()
    pair()


def test_the_folder_is_its_owners_alone(pair):
    gateway = pair()
    assert gateway.state.stat().st_mode & 0o777 == 0o700
    for path in gateway.state.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


# Reloads, commands, traffic -------------------------------------------------------------------------------------

def test_a_reload_keeps_what_the_control_plane_said(pair, control):
    gateway = pair()
    control.publish(key(BOB, "bob"), model("house", backend_model="qwen3:32b"), setting("max_prompt_chars", 10))
    control.wait_applied()
    gateway.write_config(max_system_chars=3)
    gateway.signal(1)
    gateway.wait_log("configuration reloaded")
    assert gateway.chat(key=BOB, model="house").status == 200
    assert gateway.chat("much longer than ten", key=BOB, model="house").status == 400
    long_system = [{"role": "system", "content": "four"}, {"role": "user", "content": "hi"}]
    assert gateway.chat(key=BOB, model="house", messages=long_system).status == 400
    control.publish(no_key(BOB))
    control.wait_applied()
    assert gateway.chat(key=BOB, model="house").status == 401
    gateway.write_config(control={"max_staleness": "2h"})
    gateway.signal(1)
    gateway.wait_log("a change of control.max_staleness from 24h to 2h needs a restart; nothing was changed")


def test_commands_are_obeyed_and_acknowledged(pair, control):
    gateway = pair()
    control.wait_applied()
    control.order("command", id=1, order=DRAIN)
    assert control.wait(event="ack", id=1)["error"] == ""
    assert gateway.chat(key=ALICE).code == "draining"
    assert ready(gateway)[1]["reason"] == "draining"
    control.order("command", id=2, order=UNDRAIN)
    assert control.wait(event="ack", id=2)["error"] == ""
    assert status(gateway, ALICE) == 200
    since = control.here()
    control.order("command", id=3, order=RESYNC)
    control.wait(event="sync", since=since, have=0)
    control.wait_applied(since=since)
    assert control.wait(event="ack", id=3)["error"] == ""
    control.order("command", id=4, order=UNKNOWN)
    assert "does not know" in control.wait(event="ack", id=4)["error"]
    assert status(gateway, ALICE) == 200


def sums(loads, group, name):
    """{name: (requests, refused, prompt tokens, completion tokens)} over all loads, each sequence once."""
    found = {}
    for load in {load["sequence"]: load for load in loads}.values():
        for row in load[group]:
            counts = [row[field] for field in ("requests", "refused", "prompt_tokens", "completion_tokens")]
            if any(counts):
                found[row[name]] = [a + b for a, b in zip(found.get(row[name], [0] * 4), counts)]
    return found


def test_what_it_tells_of_its_traffic_is_what_it_logs(pair, control):
    gateway = pair()
    control.publish(key(BOB, "bob"), key(CAROL, "carol", models=["llama3.2:1b"]))
    control.wait_applied()
    control.be(forget_loads=True)  # the first ones are sent again until they are counted
    asks = [(ALICE, 200)] * 5 + [(BOB, 200)] * 3 + [(CAROL, 403)] * 2 + [("nobody-has-this", 401)] * 4
    threads = [threading.Thread(target=lambda ask=ask: status(gateway, ask[0]) == ask[1] or pytest.fail(str(ask))) for ask in asks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    control.wait(event="load", where=lambda load: load["users"])
    control.be(forget_loads=False)
    gateway.chat(key=ALICE)

    def log_sums(field, unknown):
        found = {}
        for row in gateway.requests_logged():
            if not row.get(field) and not unknown:
                continue
            name = unknown if row["user"].startswith("!") and field == "user" else row[field]
            counts = [1, int(row["status"]) >= 400, int(row.get("prompt_tokens", 0)), int(row.get("completion_tokens", 0))]
            found[name] = [a + b for a, b in zip(found.get(name, [0] * 4), counts)]
        return found

    def agree():
        users = sums(control.loads(), "users", "user")
        logged = {**log_sums("user", "!nobody")}
        return users.get("alice", [0])[0] == 6 and users == logged and \
            sums(control.loads(), "models", "model") == log_sums("model", None)
    gateway.operator("/readyz")
    wait_for(agree, 10, "the sums of the loads to be those of the log")
    counted = [load for load in control.loads() if any(row["requests"] for row in load["models"])]
    durations = {load["sequence"]: sum(row["duration"]["count"] for row in load["models"]) for load in counted}
    assert sum(durations.values()) == len([row for row in gateway.requests_logged() if row.get("model")])
    assert gateway.metric("requests_total", dialect="chat") == len(asks) + 1
    assert control.loads()[-1]["backends"][0]["name"] == "gpu1" and control.loads()[-1]["backends"][0]["up"]


# The file -----------------------------------------------------------------------------------------------------

BESIDE = [("auth:\n  valid_keys: [x]", "auth.valid_keys", 3), ("whitelist:\n  ips: [127.0.0.1]", "whitelist.ips", 3),
          ("ollama_api: http://localhost:1", "ollama_api", 2), ("backends: [{name: a, url: http://h}]", "backends", 2),
          ("models: {a: {}}", "models", 2)]


@pytest.mark.parametrize("beside, name, where", BESIDE, ids=[name for _, name, _ in BESIDE])
def test_what_would_say_the_same_twice_stops_the_start(folder, beside, name, where):
    path = pathlib.Path(folder) / "config.yaml"
    path.write_text(f"control: {{url: tcp://127.0.0.1:1, name: gw, state: {folder}}}\n{beside}\n")
    result = run([PROGRAM, "--config", path, "--check"])
    assert result.returncode == 2
    assert result.stderr.startswith(f"qwen-gateway: {path}:{where}: {name} excludes control, which stands in line 1"), result.stderr


def test_the_state_must_be_a_place(folder):
    path = pathlib.Path(folder) / "config.yaml"
    path.write_text(f"listen: unix:{folder}/l\noperator_listen: unix:{folder}/o\n"
                    f"control: {{url: tcp://127.0.0.1:1, name: gw, state: {folder}/not/there}}\n")
    result = run([PROGRAM, "--config", path])
    assert result.returncode == 1 and "control.state" in result.stderr, result.stderr
