"""The admin API of `qwen-control run`: who may what, what is refused and how, and that it stays up whatever comes."""

import re

import pytest

from control import part

KEY = {"user": "alice", "name": "laptop", "create_user": True}


# The first token, the program ----------------------------------------------------------------------------------


def test_the_first_token_is_made_once(database, start_control):
    control = start_control(ready=False)
    done = control.command("init")
    assert done.returncode == 1 and "is missing; run qwen-control migrate" in done.stderr and done.stdout == ""
    assert control.command("migrate").returncode == 0
    done = control.command("init", "--name", "root@desk", "--expires", "1h")
    assert done.returncode == 0 and re.fullmatch(r"qat_[0-9A-Za-z]{43}\n", done.stdout)
    assert "it is shown once" in done.stderr
    again = control.command("init")
    assert (again.returncode, again.stdout) == (1, "")
    assert re.fullmatch(r"qwen-control: an owner's token is there already: root@desk, good until 2[-0-9: ]+ UTC; whoever has it makes "
                        r"others with `qwadm admin-token create`\n", again.stderr)
    control.token = done.stdout.strip()
    control.start()
    assert control.good("GET", "/whoami")["name"] == "root@desk"
    assert control.good("GET", "/audit")["data"][0]["actor"] == "qwen-control init"
    assert control.token not in control.errors


@pytest.mark.parametrize("arguments,why", [
    (["--name", "Root"], "--name must be a name of lower-case letters, digits and . _ @ + - (128 at most)"),
    (["--expires", "soon"], "--expires must be a duration, such as 90d or 24h"),
])
def test_init_refuses_what_is_no_name_and_no_duration(start_control, arguments, why):
    done = start_control(ready=False).command("init", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"qwen-control: {why}\n")


def test_it_starts_and_ends_as_a_service_does(control):
    assert control.good("GET", "/whoami")["role"] == "owner"
    control.stop()
    assert "serves the admin API on 127.0.0.1:" in control.errors and "the database is at 0" in control.errors
    assert control.errors.rstrip().endswith("qwen-control - ended")


def test_it_listens_on_a_unix_socket(start_control):
    control = start_control(with_unix=True)
    assert control.good("GET", "/whoami")["name"] == "owner"
    assert control.socket.stat().st_mode & 0o777 == 0o660
    control.stop()
    assert not control.socket.exists()


def test_it_does_not_start_before_tables_that_are_not_its_own(start_control):
    control = start_control(ready=False)
    done = control.command("run")
    assert done.returncode == 1
    assert "ERROR qwen-control - the database is older than this program: 0001_ground is missing; run qwen-control migrate" in done.stderr


# A key's life ---------------------------------------------------------------------------------------------------


def test_a_key_is_made_shown_changed_rotated_and_revoked(control):
    made = control.good("POST", "/keys", {**KEY, "expires_in": "90d", "models": ["Qwen3:32B"], "rpm": 30, "allow": ["10.0.0.0/16"]})
    assert made.status == 201 and made.headers["Location"] == f"/admin/v1/keys/{made['id']}" and made.version == '"1"'
    assert re.fullmatch(r"qk_[0-9A-Za-z]{10}_[0-9A-Za-z]{33}", made["secret"]) and made["prefix"] == made["secret"][3:13]
    assert (made["models"], made["rpm"], made["allow"], made["state"]) == (["qwen3:32b"], 30, ["10.0.0.0/16"], "active")
    for name in (made["id"], made["prefix"], part("alice/laptop")):
        shown = control.good("GET", f"/keys/{name}")
        assert shown["id"] == made["id"] and "secret" not in shown.json and shown.version == '"1"'
    changed = control.good("PATCH", f"/keys/{made['id']}", {"rpm": None, "note": "left-handed"}, version=made.version)
    assert (changed["rpm"], changed["note"], changed["models"], changed.version) == (None, "left-handed", ["qwen3:32b"], '"2"')
    assert changed.config_version > made.config_version
    rotated = control.good("POST", f"/keys/{made['id']}/rotate", {"keep_for": "1h"})
    assert rotated.status == 201 and rotated["name"] == "laptop" and rotated["secret"] != made["secret"]
    assert rotated["replaces"]["id"] == made["id"]
    assert control.good("GET", f"/keys/{made['id']}")["replaced_by"] == rotated["id"]
    revoked = control.good("POST", f"/keys/{rotated['id']}/revoke", {"cut": True})
    assert revoked["state"] == "revoked" and revoked.config_version > rotated.config_version
    assert control.call("PATCH", f"/keys/{rotated['id']}", {"rpm": 1}, version="*").status == 410
    assert made["secret"] not in control.errors and rotated["secret"] not in control.errors
