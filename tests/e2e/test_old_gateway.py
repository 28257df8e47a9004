"""Gateways of older minor versions with this control plane: what their builds sent and could read was kept (old_gateway.py)."""

import hashlib
import json
import threading

import pytest

from fleet_link import Site
from old_gateway import RECORDED, OldGateway, Unreadable
from wire import wait_for

VERSIONS = sorted(path.stem for path in RECORDED.glob("*.json"))
SECRET = b"qen_recorded-secret-that-was-good-once-only-00000"  # as it stands in the recorded Enrol


@pytest.fixture
def site(database, folder):
    site = Site(database, folder)
    yield site
    site.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_gateway_of_an_older_version_enrols_follows_and_reports(site, folder, version):
    major, minor, _ = version.split(".")
    control = site.start(software=f"{major}.{int(minor) + 1}.0").wait_until_leading()
    port = int(control.url.rsplit(":", 1)[1])
    site.change("gateway_create", name="old", hash=hashlib.sha256(SECRET).hexdigest())
    old = OldGateway(port, version, folder)
    assert old.greet("enrol")["welcome"]["session"]
    assert json.loads(site.database.sql("SELECT qwen.gateway_get('old')"))["enrolled"]

    update = old.send("sync_nothing")["update"]
    assert (update["to"], update["chunk"]["count"], old.changes(update)) == (1, 1, [])

    said = []
    waiting = threading.Thread(target=lambda: said.append(old.send("sync_1")["update"]))  # held until there is something
    waiting.start()
    site.change("key_create", user="alice", name="k", hash="ab" * 32, create_user=True, models=["m"], allow=["10.0.0.0/8"], rpm=3,
                max_concurrent=2, delegate=True, expires_in="1h")
    waiting.join(20)
    change, = old.changes(said[0])
    assert (said[0]["from"], said[0]["to"], change["key"]["user"], change["key"]["rpm"]) == (1, 2, b"alice", 3)
    site.change("model_create", name="m", num_ctx=4096, keep_alive="5m", max_prompt_chars=9, preload=True)
    update = old.send("sync_2")["update"]
    assert (update["to"], old.changes(update)[0]["model"]["name"]) == (3, b"m")

    site.database.sql("UPDATE qwen.gateway SET resync_asked = 1; NOTIFY qwen_change, 'gateway'")
    assert "beat" in old.send("beat")
    wait_for(lambda: "command" in old.send("load")["commands"], 10, "the order")
    assert old.send("ack")["commands"].get("command") is None
    assert control.ask("load")["models"][0]["running"] == 2

    site.change("key_revoke", "alice/k", cut=True)
    again = OldGateway(port, version, folder)  # the same gateway, on a fresh connection
    assert "welcome" in again.greet()
    update = again.send("sync_3")["update"]
    assert (update["to"], again.changes(update)[0]["removed"]["cut"]) == (4, 1)
    wait_for(lambda: site.shown("old")["apply_error"] == "it cannot", 10, "why it does not apply it")
    assert (site.shown("old")["applied_version"], site.shown("old")["software"]) == (2, version)
    old.close()
    again.close()


def test_the_reader_of_an_older_version_refuses_what_it_must_not_overlook(site, folder):
    control = site.start().wait_until_leading()
    old = OldGateway(int(control.url.rsplit(":", 1)[1]), VERSIONS[0], folder)
    with pytest.raises(Unreadable):
        old.read("Key", b"\xf8\x01\x01")  # field 31
    with pytest.raises(Unreadable):
        old.read("Model", b"\x40\x09")  # a value of Think that nobody has heard of
    assert old.read("Update", b"\xf8\x01\x01") == {}
    old.close()
