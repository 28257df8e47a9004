"""
How gateways learn what holds (controlplane/publish, roster, traffic, leader): real PostgreSQL, real link, gateways' ends
that keep what they are told and are held against the database to the last object.
"""

import signal
import time

import pytest

from fleet_link import Site
from postgres import freeze, thaw
from wire import wait_for


@pytest.fixture
def site(database, folder):
    site = Site(database, folder)
    yield site
    site.close()


@pytest.fixture
def control(site):
    return site.start().wait_until_leading()


# What they are told -----------------------------------------------------------------------------------------

def test_a_new_gateway_gets_all_and_then_each_change(site, control):
    site.change("whitelist_create", cidr="10.0.0.0/16")
    site.change("model_create", name="qwen3:32b", num_ctx=32768, keep_alive="5m", think=True, max_prompt_chars=0)
    site.change("model_create", name="small", alias_of="qwen3:32b", max_system_chars=7)
    site.change("backend_create", name="gpu1", url="http://10.0.0.5:11434", slots=4, weight=0, models=["qwen3:32b"])
    site.change("setting_put", "rate_limit.max_requests", value=7)
    site.key(models=["qwen3:32b"], allow=["10.0.0.0/8", "::1"], rpm=3, expires_in="1h")
    _, before = site.key(delegate=True, max_concurrent=2)
    gateway = site.gateway("gw1")
    site.is_true_of(gateway, before)

    key, _ = site.key("bob")
    _, version = site.change("key_update", key["id"], key["version"], rpm=9)
    site.is_true_of(gateway, version)
    _, version = site.change("key_revoke", key["id"], cut=True)
    site.is_true_of(gateway, version)
    _, version = site.change("whitelist_delete", "10.0.0.0/16")
    _, version = site.change("user_update", "alice", disabled=True)
    site.is_true_of(gateway, version)
    assert not [name for name in gateway.held()["state"] if name.startswith(("key/", "range/"))]


def test_a_change_is_confirmed_by_all_who_are_there(site, control):
    gateways = [site.gateway(f"gw{n}") for n in range(3)]
    _, version = site.key()
    began = time.monotonic()
    said = control.confirm(version)
    assert time.monotonic() - began < 3, "it waited for nothing"
    assert said == {"version": version, "confirmed": [{"name": f"gw{n}"} for n in (2, 1, 0)], "pending": []} or \
        sorted(one["name"] for one in said["confirmed"]) == ["gw0", "gw1", "gw2"]
    for gateway in gateways:
        assert gateway.held()["applied"] == version


def test_a_thousand_versions_come_as_a_few_deltas(site, control):
    gateway = site.gateway("gw1")
    gateway.reach(site.version())
    version = site.keys(1000)
    site.is_true_of(gateway, version)
    said = gateway.reach(version)
    assert said["deltas"] < 100, "changes that keep coming are gathered"
    late = site.gateway("late")
    site.is_true_of(late, version)


def test_a_snapshot_of_many_pieces_is_whole_and_changes_meanwhile_follow(site):
    site.keys(20)
    site.heap(400)
    control = site.start().wait_until_leading()
    gateway = site.gateway("gw1")
    version = site.keys(10)
    site.is_true_of(gateway, version)
    assert gateway.reach(version)["pieces"] > 3
    assert control.ask("counts")["spool_bytes"] > 3 * 1024 * 1024


def test_a_gateway_comes_back_after_the_tail_has_gone_on(site):
    control = site.start(tail_versions=50).wait_until_leading()
    gateway = site.gateway("gw1")
    gateway.reach(site.version())
    assert gateway.held()["held"] == site.version()
    gateway.close()
    version = site.keys(200)
    again = site.followers.open("gw1", control.url)
    site.is_true_of(again, version)

    short = site.followers.open("gw1", control.url)  # takes the other's place, and has everything to learn
    site.is_true_of(short, version)


def test_a_version_that_no_frame_can_hold_comes_as_a_snapshot(site, control):
    site.heap(200)
    gateway = site.gateway("gw1")
    gateway.reach(site.version())
    before = gateway.held()["held"]
    _, version = site.change("user_update", "heap", weight=3)  # two hundred keys with ten kilobytes each
    site.is_true_of(gateway, version)
    assert version == before + 1
    assert gateway.reach(version)["deltas"] == 0
    _, version = site.key()
    site.is_true_of(gateway, version)
    assert gateway.reach(version)["deltas"] == 1


def test_a_gateway_that_is_told_to_take_all_anew_does(site, control):
    gateway = site.gateway("gw1")
    gateway.reach(site.version())
    site.database.sql("UPDATE qwen.gateway SET resync_asked = resync_asked + 1; NOTIFY qwen_change, 'gateway'")
    wait_for(lambda: gateway.load(1)["resync"], 10, "the order")
    _, version = site.key()
    site.is_true_of(gateway, version)
    assert gateway.reach(version)["pieces"] >= 2
    assert gateway.load(2) == {"id": gateway.id, "counted": 2, "resync": False}
    wait_for(lambda: site.database.sql("SELECT resync_done FROM qwen.gateway") == "1", 10, "that it is written down")


def test_a_gateway_that_knows_more_than_a_restored_database_gets_a_snapshot(site, control):
    gateway = site.gateway("gw1")
    version = site.keys(5)
    gateway.reach(version)
    gateway.do("resync", have=version + 1000)  # as if the database had been put back to an older state
    _, newer = site.key()
    gateway.reach(newer)
    wait_for(lambda: gateway.held()["held"] == newer, 20, "the database's version")
    site.is_true_of(gateway, newer)


# What they say ----------------------------------------------------------------------------------------------

def test_what_a_gateway_cannot_apply_is_shown_with_its_reason_and_holds_nobody_up(site, control):
    good, bad, slow = site.gateway("good"), site.gateway("bad"), site.gateway("slow")
    for gateway in (good, bad, slow):
        gateway.reach(site.version())
    bad.do("mode", apply="models[0]: there is no such thing")
    _, version = site.key()
    said = control.confirm(version)
    assert {one["name"] for one in said["confirmed"]} == {"good", "slow"}
    assert [(one["name"], one["reason"]) for one in said["pending"]] == [("bad", "models[0]: there is no such thing")]
    shown = wait_for(lambda: site.shown("bad")["apply_error"] and site.shown("bad"), 10, "the reason in the database")
    assert shown["apply_error"] == "models[0]: there is no such thing" and shown["applied_version"] < version
    assert shown["desired_version"] == version and shown["software"] == "0.2.0" and shown["features"] == ["cut"]
    assert shown["address"] == "10.1.2.3"

    slow.do("mode", apply=False)
    bad.do("mode", apply=True)
    _, version = site.key()
    began = time.monotonic()
    said = control.confirm(version, 700)
    assert time.monotonic() - began >= 0.7, "who is there is waited for"
    assert [(one["name"], one["reason"], one["may_accept_until"]) for one in said["pending"]] == [("slow", "behind", None)]
    wait_for(lambda: site.shown("bad")["apply_error"] is None, 10, "that it applies again")


def test_who_is_silent_is_named_with_the_time_until_which_he_may_accept(site, control):
    here, gone = site.gateway("here"), site.gateway("gone", max_staleness_s=60)
    gone.reach(site.version())
    gone.close()
    _, version = site.key()
    began = time.time()
    said = control.confirm(version, 10000)
    assert 1.5 < time.time() - began < 6, "who has just gone is waited for as long as he counts as live, and no longer"
    assert [one["name"] for one in said["confirmed"]] == ["here"]
    pending, = said["pending"]
    assert (pending["name"], pending["reason"]) == ("gone", "silent")
    until = time.mktime(time.strptime(pending["may_accept_until"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    assert began + 55 < until < began + 75
    status = control.ask("status")
    assert status["gateways"] == {"enrolled": 2, "live": 1, "behind": 0}
    here.close()


def test_loads_are_added_up_and_one_that_comes_twice_counts_once(site, control):
    one, other = site.gateway("one"), site.gateway("other")
    load = {"running": 2, "waiting": 1, "users": [{"user": "alice", "requests": 10, "completion_tokens": 100}],
            "models": [{"model": "m", "running": 2, "requests": 10, "completion_tokens": 100, "prompt_tokens": 50,
                        "first_token_us": [100000] * 90 + [1000000] * 10}]}
    assert one.load(1, **load)["counted"] == 1
    assert one.load(1, **load)["counted"] == 1
    assert other.load(1, **load)["counted"] == 1
    said = control.ask("load")
    model, = said["models"]
    assert (model["model"], model["running"], model["requests_per_s"], model["completion_tokens_per_s"]) == ("m", 4, 2.0, 20.0)
    assert 90 < model["first_token_ms"]["p50"] < 115 and 950 < model["first_token_ms"]["p99"] < 1150
    assert said["users"] == [{"user": "alice", "requests": 20, "refused": 0, "prompt_tokens": 0, "completion_tokens": 200}]
    assert {gateway["name"]: gateway["running"] for gateway in said["gateways"]} == {"one": 2, "other": 2}
    other.close()
    wait_for(lambda: control.ask("load")["models"][0]["running"] == 2, 10, "that nothing runs where nobody is")


# Who may come -----------------------------------------------------------------------------------------------

def test_a_secret_enrols_one_gateway_once(site, control):
    secret = site.enrol("gw1")
    first = site.followers.open("gw1", control.url, secret=secret)
    first.up()
    assert site.shown("gw1")["enrolled"] and site.shown("gw1")["enroll_expires_at"] is None
    thief = site.followers.open("gw1", control.url, secret=secret, key="thief")
    assert "the secret is not that of this gateway" in thief.down("secret")["why"]
    assert site.database.sql("SELECT actor, action FROM qwen.audit_log ORDER BY id DESC LIMIT 1") == "gateway gw1|enrolled"

    site.enrol("late")
    site.database.sql("UPDATE qwen.gateway SET enrol_expires = now() - interval '1 s' WHERE name = 'late'; NOTIFY qwen_change, 'gateway'")
    wrong = site.followers.open("late", control.url, secret=secret)
    wrong.down("secret")
    assert not site.shown("late")["enrolled"]


def test_a_gateway_enrols_again_with_another_key(site, control):
    first = site.gateway("gw1")
    again = site.followers.open("gw1", control.url, key="new", secret=site.enrol("gw1"))
    again.up()
    first.down("identity")
    site.is_true_of(again)


def test_a_removed_gateway_is_out_in_the_moment_it_is_removed(site, control):
    gateway, other = site.gateway("gw1"), site.gateway("gw2")
    gateway.reach(site.version())
    began = time.monotonic()
    site.change("gateway_remove", "gw1")
    assert "removed" in gateway.down("removed")["why"]
    assert time.monotonic() - began < 3
    again = site.followers.open("gw1", control.url)
    again.down("removed")
    newcomer = site.followers.open("gw1", control.url, secret=site.enrol("gw1"), key="newcomer")
    newcomer.up()
    old = site.followers.open("gw1", control.url)
    old.down("identity")
    reused = site.followers.open("gw3", control.url, secret=site.enrol("gw3"), key="gw1")
    # at first the roster may not have read yet that there is a gw3
    reused.next(lambda line: line.get("down") == "secret" and "was registered before" in line["why"])
    site.is_true_of(other)


# Faults -----------------------------------------------------------------------------------------------------

def test_a_control_plane_that_is_killed_in_the_middle_comes_back_and_nothing_is_lost(site):
    control = site.start().wait_until_leading()
    port = control.url.rsplit(":", 1)[1]
    gateways = [site.gateway(f"gw{n}", control) for n in range(3)]
    site.keys(100)
    control.kill()
    version = site.keys(100)
    site.start(listen=f"127.0.0.1:{port}", lease_ms=1000)
    for gateway in gateways:
        site.is_true_of(gateway, version)


def test_while_the_database_is_away_gateways_are_told_from_memory_and_no_version_is_lost(site, cluster):
    control = site.start(lease_ms=1000, renew_ms=200).wait_until_leading()
    gateway = site.gateway("gw1")
    version = site.keys(20)
    site.is_true_of(gateway, version)
    late_secret = site.enrol("late")
    cluster.stop()
    wait_for(lambda: control.ask("status")["leader"]["state"] == "holds", 20, "that the lease runs out")
    newcomer = site.followers.open("gw1", control.url)  # the same gateway, with everything to learn
    assert newcomer.reach(version)["pieces"] == 1
    late = site.followers.open("late", control.url, secret=late_secret)
    late.down("unavailable")
    assert not control.leads()
    cluster.start()
    control.wait_until_leading()
    late.up()
    version = site.keys(20)
    site.is_true_of(newcomer, version)
    site.is_true_of(late, version)
    assert newcomer.reach(version)["deltas"] > 0, "the connection stayed"


def test_of_two_control_planes_one_leads_and_the_other_says_who_and_follows_when_it_is_killed(site):
    first = site.start(holder="first", lease_ms=2000, renew_ms=200).wait_until_leading()
    second = site.start(holder="second", lease_ms=2000, renew_ms=200)
    gateway = site.followers.open("gw1", second.url, first.url, secret=site.enrol("gw1"))
    assert "first does" in gateway.down("not_leader")["why"]
    gateway.up()
    assert second.confirm(site.version()) is None and not second.leads()
    first.kill()
    second.wait_until_leading()
    _, version = site.key()
    site.is_true_of(gateway, version)
    assert second.confirm(version)["confirmed"] == [{"name": "gw1"}]
    assert site.database.sql("SELECT epoch, split_part(holder, '#', 1) FROM qwen.leader") == "2|second"


def test_one_that_was_frozen_and_thaws_knows_that_it_leads_no_more(site):
    first = site.start(holder="first", lease_ms=1500, renew_ms=200).wait_until_leading()
    second = site.start(holder="second", lease_ms=1500, renew_ms=200)
    gateway = site.followers.open("gw1", first.url, second.url, secret=site.enrol("gw1"))
    gateway.up()
    freeze(first.process.pid)
    second.wait_until_leading()
    _, version = site.key()
    site.is_true_of(gateway, version)
    since = len(first.errors)
    thaw(first.process.pid)
    assert not first.leads(), "it noticed before it did anything"
    stray = site.followers.open("gw1", first.url, key="gw1")
    stray.down("not_leader")
    _, version = site.key()
    assert second.confirm(version)["confirmed"] == [{"name": "gw1"}]
    assert not any("could not be written down" in line for line in first.errors[since:])
    assert site.database.sql("SELECT epoch FROM qwen.leader") == "2"


def test_one_that_resigns_hands_over_at_once(site):
    first = site.start(holder="first", lease_ms=60000).wait_until_leading()
    second = site.start(holder="second", lease_ms=60000)
    gateway = site.gateway("gw1", first, second)
    first.do("resign")
    first.next(lambda line: line.get("resigned"))
    began = time.monotonic()
    second.wait_until_leading()
    assert time.monotonic() - began < 10
    _, version = site.key()
    site.is_true_of(gateway, version)
    assert site.database.sql("SELECT uncertain_until FROM qwen.leader") == "-infinity", "nothing is uncertain when it was given back"


def test_what_is_written_as_a_leader_whose_time_is_over_is_refused_by_the_database(site, control):
    refused = site.database.refusals(["SELECT gateways_report(99, '[]')", "SELECT gateway_enrolled(0, 'x', sha256('x'), sha256('y'))",
                                      "SELECT leader_must_be((SELECT epoch FROM leader))"], "qwen_control")
    assert refused == ["QW503", "QW503", "ok"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_postgresql_that_restarts_between_two_changes_is_hardly_noticed(site, control, cluster, how):
    gateway = site.gateway("gw1")
    site.is_true_of(gateway, site.keys(10))
    cluster.restart(how)
    site.is_true_of(gateway, site.keys(10))
