"""
The pair as a whole: what an operator does is so on all gateways, and when a part of it is slow, wrong about the time, or away,
callers do not notice. tests/chaos/run does the same at random.
"""

import contextlib
import http.client
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import threading
import time

import pytest

from conftest import short_folder
from gateway import Gateway
from pair import Pair, Relay, freeze, thaw
from postgres import Cluster
from processes import BIN, ROOT, environment
from wire import wait_for

sys.path.insert(0, str(ROOT / "tests" / "bench" / "pair"))
from simulated import Simulated  # noqa: E402

HOUR = 3600


@pytest.fixture
def start_pair(fake, folder, database):
    """start_pair(gateways=2, …): see Pair."""
    with contextlib.ExitStack() as stack:
        def start(**options):
            return Pair(stack, options.pop("folder", folder), options.pop("database", database), fake, **options)
        yield start


@pytest.fixture
def pair(start_pair):
    return start_pair()


@contextlib.contextmanager
def callers_of(pair, secret):
    """Somebody asks all gateways all the time. Gives what he was told other than 200."""
    over, refusals = threading.Event(), []

    def call():
        while not over.is_set():
            refusals.extend(status for status in pair.statuses(secret) if status != 200)
    caller = threading.Thread(target=call)
    caller.start()
    try:
        yield refusals
    finally:
        over.set()
        caller.join()


def write_until_it_works(pair, name, timeout=20):
    """A key, as soon as one can be made. Until then the API must say 503, or nothing."""
    def made():
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer = pair.admin.ask("POST", "/admin/v1/keys", {"user": "alice", "name": name, "create_user": True})
            assert answer.status in (201, 503), answer
            return answer.json if answer.status == 201 else None
    return wait_for(made, timeout, "a key that can be made")


# --- what an operator does ----------------------------------------------------------------------------------------

def test_a_key_is_good_everywhere_when_it_is_confirmed_and_nowhere_when_its_revocation_is(pair):
    key, version = pair.create_key("laptop")
    said = pair.admin.confirmations(version)
    assert sorted(one["name"] for one in said["confirmed"]) == ["g1", "g2"] and not said["pending"]
    assert pair.statuses(key["secret"]) == [200, 200]
    answer = pair.gateways[0].chat("say:hello", key=key["secret"])
    line = pair.gateways[0].line_of(answer)
    assert (answer.content, line["user"], line["key"]) == ("hello", "alice", key["secret"][3:13])
    _, said = pair.revoke_key(key["id"])
    assert len(said["confirmed"]) == 2 and not said["pending"]
    assert pair.statuses(key["secret"]) == [401, 401]


def test_cut_ends_what_a_revoked_key_has_running_and_without_it_that_may_finish(pair, fake):
    for cut in (False, True):
        key, version = pair.create_key("cut" if cut else "let")
        pair.admin.confirmations(version)
        fake.script(tokens=40, token_ms=50)
        stream = pair.gateways[1].open_chat(key=key["secret"], stream=True).wait_until_bytes()
        pair.revoke_key(key["id"], cut=cut)
        answer = stream.answer(may_be_cut=True)
        assert answer.is_done is not cut, answer
    fake.wait_chats(1, "aborted")


def test_a_setting_that_no_gateway_can_apply_holds_no_revocation_back(pair):
    """As an administrator with a door of his own to the database makes it: the API refuses it."""
    keys = [pair.create_key(f"laptop{n}") for n in range(4)]
    pair.wait_applied()
    good = pair.head()
    bad = int(pair.database.sql("SELECT config_version FROM qwen.admin_change(jsonb_build_object('actor', 'somebody'), 'setting_put', "
                                "'max_prompt_char', NULL, jsonb_build_object('value', 7))"))
    wait_for(lambda: all("max_prompt_char" in one["reason"] for one in pair.admin.confirmations(bad, 0)["pending"]), 10, "the reason")
    for key, _ in keys[:3]:
        assert pair.statuses(key["secret"]) == [200, 200]
        began = time.monotonic()
        version, said = pair.revoke_key(key["id"], wait_s=0)
        pair.wait_statuses(key["secret"], 401)
        assert time.monotonic() - began < 4  # 30 s when it waited for a retry
        wait_for(lambda version=version: all("max_prompt_char" in one["reason"]  # out, but not confirmed
                                             for one in pair.admin.confirmations(version, 0)["pending"]), 10, "the reason")
        assert len(pair.admin.confirmations(version, 0)["pending"]) == 2
    for gateway in pair.gateways:
        assert gateway.metric("control_version", state="applied") == good
        assert gateway.metric("control_apply_errors_total") <= 4  # each version once
    mended = pair.admin("DELETE", "/settings/max_prompt_char", If_Match="*").version
    pair.wait_applied(mended)
    assert [pair.statuses(key["secret"]) for key, _ in keys] == [[401, 401]] * 3 + [[200, 200]]


def test_what_else_is_changed_reaches_all_gateways(pair):
    key, _ = pair.create_key("models", models=["qwen3:32b"])
    other, version = pair.create_key("all")
    pair.admin.confirmations(version)
    pair.admin("POST", "/models", {"name": "qwen3:32b"})
    pair.admin("POST", "/models", {"name": "assistant", "alias_of": "qwen3:32b"})
    version = pair.admin("POST", "/whitelist", {"cidr": "127.0.0.1/32"}).version
    pair.wait_applied(version)
    for gateway in pair.gateways:
        assert pair.models_of(gateway, other["secret"]) == ["assistant:latest", "qwen3:32b"]
        assert pair.models_of(gateway, key["secret"]) == ["qwen3:32b"]
        assert pair.status_of(gateway, key["secret"], source="127.0.0.9") == "closed"
    version = pair.admin("PATCH", "/users/alice", {"disabled": True}, If_Match="*").version
    pair.wait_applied(version)
    assert pair.statuses(key["secret"]) == [401, 401]
    pair.wait_applied(pair.admin("PATCH", "/users/alice", {"disabled": False}, If_Match="*").version)
    assert pair.statuses(key["secret"]) == [200, 200]


# --- parts that are away ------------------------------------------------------------------------------------------

def test_a_gateway_that_is_started_while_the_control_plane_is_away_serves_what_it_knew(pair):
    key, version = pair.create_key("laptop")
    gone, _ = pair.create_key("gone")
    pair.wait_applied(pair.revoke_key(gone["id"])[0])
    pair.control.kill()
    with callers_of(pair, key["secret"]) as refusals:
        assert pair.statuses(gone["secret"]) == [401, 401]
    assert not refusals
    pair.gateways[0].kill()
    pair.gateways[0].spawn()
    wait_for(lambda: pair.status_of(pair.gateways[0], key["secret"]) == 200, 20)
    assert pair.statuses(gone["secret"]) == [401, 401]
    pair.control.start()
    new = write_until_it_works(pair, "new")
    pair.wait_statuses(new["secret"], 200)


@pytest.mark.parametrize("keeps", [True, False])
def test_a_link_that_is_cut_and_healed_is_caught_up(start_pair, keeps):
    pair = start_pair(relays=True)
    key, version = pair.create_key("before")
    pair.wait_applied(version)
    for relay in pair.relays:
        relay.cut()
    with callers_of(pair, key["secret"]) as refusals:
        new, version = pair.create_key("after")
        said = pair.admin.confirmations(version, 4)
        assert sorted(one["name"] for one in said["pending"]) == ["g1", "g2"]
        assert pair.statuses(new["secret"]) == [401, 401]
    assert not refusals
    for relay in pair.relays:
        relay.heal(keeps)
    pair.wait_statuses(new["secret"], 200)


def test_a_frozen_gateway_is_named_as_not_having_confirmed(pair):
    key, version = pair.create_key("laptop")
    pair.wait_applied(version)
    freeze(pair.gateways[1].process)
    _, said = pair.revoke_key(key["id"], wait_s=5)
    assert [one["name"] for one in said["confirmed"]] == ["g1"]
    assert [(one["name"], one["may_accept_until"] is not None) for one in said["pending"]] == [("g2", True)]
    assert pair.status_of(pair.gateways[0], key["secret"]) == 401
    thaw(pair.gateways[1].process)
    pair.wait_statuses(key["secret"], 401)


def test_two_gateways_with_one_key_confirm_nothing_until_one_of_them_has_another(start_pair):
    """Whose folder was copied takes turns with its copy: what one of them has applied is not so on the other."""
    pair = start_pair(gateways=1)
    gateway = pair.gateways[0]
    key, version = pair.create_key("laptop")
    pair.wait_applied(version)
    gateway.stop()
    folder = pair.folder / "copy"
    shutil.copytree(pair.folder / "g1" / "state", folder / "state")
    gateway.spawn()
    gateway.wait_until_up(True)
    copy = Gateway(folder, pair.fake.url, environment_extra=pair.extra, ollama_api=None, auth={"valid_keys": None},
                   control={"url": f"tcp://127.0.0.1:{pair.control.link_port}", "name": "g1", "state": f"{folder}/state"})
    pair.stack.callback(pair.end_gateway, copy)
    wait_for(lambda: "two gateways are running with the name and the key of g1" in pair.control.errors, 20)
    _, said = pair.revoke_key(key["id"])
    assert not said["confirmed"] and said["pending"][0]["may_accept_until"], said
    assert said["pending"][0]["reason"] in ("two gateways are running with this name and key", "silent")

    copy.stop()
    gateway.stop()
    shutil.rmtree(pair.folder / "g1" / "state")
    (pair.folder / "g1" / "secret").write_text(pair.enroll("g1") + "\n")
    gateway.spawn()
    gateway.wait_until_up(True)
    other, version = pair.create_key("other")
    assert [one["name"] for one in pair.admin.confirmations(version, 15)["confirmed"]] == ["g1"]
    assert [pair.status_of(gateway, one["secret"]) for one in (key, other)] == [401, 200]


def test_a_gateway_that_is_given_to_another_control_plane_forgets_the_one_before(start_pair, cluster):
    """Their versions are numbers alike and mean different things: nothing may be built on those of the other."""
    pair = start_pair(gateways=1)
    gateway = pair.gateways[0]
    key, version = pair.create_key("laptop")
    pair.wait_applied(version)
    with short_folder() as folder:
        other = start_pair(database=cluster.database(), folder=folder, gateways=0)
        for i in range(version + 2):
            theirs, _ = other.create_key(f"key{i}")
        (pair.folder / "g1" / "secret").write_text(other.enroll("g1") + "\n")
        gateway.stop()
        gateway.write_config(control={"url": f"tcp://127.0.0.1:{other.control.link_port}"})
        gateway.spawn()
        gateway.wait_until_up(False)
        wait_for(lambda: other.admin.confirmations(other.head())["confirmed"], 20, "that it goes by the other one")
        assert [pair.status_of(gateway, one["secret"]) for one in (key, theirs)] == [401, 200]
        gateway.stop()
        other.control.stop()


# --- PostgreSQL ---------------------------------------------------------------------------------------------------

def test_postgresql_is_restarted_and_crashes(pair, cluster):
    key, version = pair.create_key("before")
    pair.wait_applied(version)
    with callers_of(pair, key["secret"]) as refusals:
        cluster.restart()
        first = write_until_it_works(pair, "restarted")
        cluster.crash()
        cluster.start()
        second = write_until_it_works(pair, "crashed")
        for made in (first, second):
            pair.wait_statuses(made["secret"], 200)
    assert not refusals


def test_postgresql_is_away_and_gateways_and_even_a_new_start_of_theirs_do_not_mind(pair, cluster):
    key, version = pair.create_key("before")
    pair.wait_applied(version)
    with callers_of(pair, key["secret"]) as refusals:
        cluster.stop()
        answer = pair.admin.ask("POST", "/admin/v1/keys", {"user": "alice", "name": "none"})
        assert answer.status == 503 and answer.json["code"] == "database_away", answer
        said = pair.admin.ask("GET", "/admin/v1/status")  # from memory, if the token is still in it
        assert said.json["code"] == "database_away" if said.status == 503 else said.json["database"]["up"] is False, said
    assert not refusals
    pair.gateways[1].kill()
    pair.gateways[1].spawn()
    wait_for(lambda: pair.status_of(pair.gateways[1], key["secret"]) == 200, 20)
    cluster.start()
    made = write_until_it_works(pair, "after")
    pair.wait_statuses(made["secret"], 200)


def test_postgresql_becomes_read_only(pair, cluster, database):
    key, version = pair.create_key("before")
    pair.wait_applied(version)

    def set_read_only(value):
        cluster.sql(f"ALTER DATABASE {database.name} SET default_transaction_read_only = {value};"
                    f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{database.name}'", "postgres")
    with callers_of(pair, key["secret"]) as refusals:
        set_read_only("on")

        def is_refused():
            answer = pair.admin.ask("POST", "/admin/v1/users", {"name": f"nobody-{time.monotonic_ns()}"})
            assert answer.status in (201, 503), answer
            return answer.status == 503
        wait_for(is_refused, 15)
        wait_for(lambda: pair.admin.ask("GET", "/admin/v1/users").status == 200, 15)
        set_read_only("off")
        made = write_until_it_works(pair, "after")
        pair.wait_statuses(made["secret"], 200)
    assert not refusals


def test_postgresql_takes_two_seconds_for_a_statement(start_pair, database):
    """All that goes to it arrives two seconds late. Gateways hear of changes when they are made, and beats are not kept waiting."""
    with short_folder() as folder:
        os.chmod(folder, 0o755)
        relay = Relay(f"{database.cluster.folder}/.s.PGSQL.5432", path=f"{folder}/.s.PGSQL.5432")
        try:
            pair = start_pair()
            key, version = pair.create_key("before")
            pair.wait_applied(version)
            pair.control.stop()
            pair.control.write_config(database=f'"host={folder} dbname={database.name} user=qwen_control"')
            pair.control.start()
            made, version = pair.create_key("up")
            pair.wait_applied(version)
            with callers_of(pair, key["secret"]) as refusals:
                before, relay.delay_s = pair.control.errors, 2
                began = time.monotonic()
                slow, version = pair.create_key("slow")
                assert time.monotonic() - began > 2
                pair.wait_statuses(slow["secret"], 200, 15)
                live = pair.admin("GET", "/load").json["gateways"]
                assert [one["live"] for one in live] == [True, True] and max(one["heard_ms_ago"] for one in live) < 3000
                version = pair.admin("POST", f"/keys/{slow['id']}/revoke", {}).version
                said = pair.admin("GET", f"/confirmations/{version}?wait=15s").json
                assert not said["pending"], said
                assert pair.statuses(slow["secret"]) == [401, 401]
                relay.delay_s = 0
            assert not refusals
            said = pair.control.errors[len(before):]
            assert "does not prolong the lead" not in said and "control plane follows" not in said, said
            pair.control.stop()
        finally:
            relay.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk that is small")
def test_postgresqls_disk_is_full(start_pair):
    with short_folder() as folder, contextlib.ExitStack() as stack:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m,mode=711", "tmpfs", folder], capture_output=True).returncode:
            pytest.skip("nothing may be mounted here")
        stack.callback(subprocess.run, ["umount", "-l", folder], check=True)
        disk = pathlib.Path(folder)
        (disk / "cluster").mkdir()
        cluster = Cluster(disk / "cluster")
        stack.callback(cluster.stop)
        pair = start_pair(database=cluster.database())
        key, version = pair.create_key("before")
        pair.wait_applied(version)
        with callers_of(pair, key["secret"]) as refusals:
            ballast = disk / "ballast"
            with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(1 << 16)):
                    pass

            def is_refused():
                keys = [{"user": "bulk", "name": f"k-{time.monotonic_ns()}-{i}", "hash": os.urandom(32).hex()} for i in range(1000)]
                with contextlib.suppress(OSError, http.client.HTTPException):
                    answer = pair.admin.ask("POST", "/admin/v1/keys/import", {"keys": keys, "create_users": True})
                    assert answer.status in (200, 201, 503), answer
                    return answer.status == 503
            wait_for(is_refused, 30, "a refusal because the disk is full")
            ballast.unlink()
            if cluster.process.poll() is not None:  # it gives up where it cannot write its log
                cluster.start()
            made = write_until_it_works(pair, "after", 40)
            pair.wait_statuses(made["secret"], 200, 20)
        assert not refusals
        pair.control.stop()


# --- the clock ----------------------------------------------------------------------------------------------------

def test_the_clock_goes_an_hour_ahead_and_back_on_both_sides(start_pair, folder):
    """Nobody is given up, nothing gets lost; and a key that ends in half an hour goes by the gateway's clock."""
    path = f"{folder}/ahead"
    with open(path, "wb") as file:
        file.write(bytes(8))
    library = BIN / "libwall-clock.so"
    pair = start_pair(extra={"LD_PRELOAD": str(library), "QG_WALL_CLOCK": path,
                             "ASAN_OPTIONS": environment()["ASAN_OPTIONS"] + ":verify_asan_link_order=0"}, workers=1)

    def set_clock(ahead_s):
        with open(path, "r+b", 0) as file:
            file.write(struct.pack("q", ahead_s))
    ending, _ = pair.create_key("ending", expires_in="30m")
    steady, version = pair.create_key("steady")
    pair.wait_applied(version)
    with callers_of(pair, steady["secret"]) as refusals:
        for turn, ahead_s in enumerate((HOUR, -HOUR, 0)):
            set_clock(ahead_s)
            pair.wait_statuses(ending["secret"], 401 if ahead_s > 0 else 200)
            key, version = pair.create_key(f"turn-{turn}")
            assert not pair.admin.confirmations(version)["pending"]
            assert pair.statuses(key["secret"]) == [200, 200]
            _, said = pair.revoke_key(key["id"])
            assert len(said["confirmed"]) == 2 and pair.statuses(key["secret"]) == [401, 401]
    assert not refusals


# --- the judge's gateways -----------------------------------------------------------------------------------------

def test_simulated_gateways_hold_what_the_database_holds(start_pair, folder):
    """What tests/bench/pair/run measures with, it may go by."""
    pair = start_pair(gateways=0)
    with open(f"{folder}/simulated.err", "w") as errors:
        simulated = Simulated(BIN / "bench_gateways", pair.control.link_port, 30, errors)
    try:
        simulated.register(pair.database)
        keys = [pair.create_key(f"before-{number}")[0] for number in range(3)]
        pair.control.stop()
        pair.control.start()
        simulated.open()
        key, version = pair.create_key("laptop")
        when = simulated.when(version)
        assert when["first"] <= when["half"] <= when["most"] <= when["all"] <= time.monotonic()
        assert simulated.differences(pair.database) is None
        version, said = pair.revoke_key(keys[0]["id"], wait_s=10)
        assert len(said["confirmed"]) == 30 and simulated.when(version)["all"]
        assert simulated.differences(pair.database) is None
        simulated.ask("mute 5")
        _, said = pair.revoke_key(key["id"], wait_s=6)
        assert len(said["confirmed"]) == 25 and len(said["pending"]) == 5
        assert simulated.state()["faults"] == 0
    finally:
        simulated.close()
    assert simulated.process.returncode == 0, pathlib.Path(f"{folder}/simulated.err").read_text()
