"""qwadm and the control plane that it is for: every command, and what it says."""

import contextlib
import csv
import io
import json
import pathlib
import re
import signal
import time

import pytest

from admin import command
from conftest import short_folder
from gateway import Gateway
from wire import wait_for

KEY = re.compile(r"qk_[0-9A-Za-z]{10}_[0-9A-Za-z]{33}\n")


class Operator:
    """Somebody who works with qwadm."""
    def __init__(self, control, folder, token=None):
        self.url = f"unix:{control.socket}" if control.socket else f"http://127.0.0.1:{control.port}"
        self.token, self.folder = token or control.token, folder

    def __call__(self, *arguments, **options):
        """What it ends with, what it says and what it prints."""
        done = command(self.url, *arguments, token=self.token, folder=self.folder, **options)
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", done.stdout + done.stderr)
        return done

    def good(self, *arguments, **options):
        done = self(*arguments, **options)
        assert done.returncode == 0, done.stderr
        return done

    def json(self, *arguments, **options):
        return json.loads(self.good(*arguments, "-o", "json", **options).stdout)

    def table(self, *arguments, **options):
        """Rows of words; a word is what two spaces end."""
        return [re.split(r"  +", line) for line in self.good(*arguments, **options).stdout.splitlines()]

    def refused(self, *arguments, status=1, **options):
        done = self(*arguments, **options)
        assert (done.returncode, done.stdout) == (status, ""), (done.stdout, done.stderr)
        assert done.stderr.startswith("qwadm: ")
        return done.stderr[len("qwadm: "):].rstrip("\n")


@pytest.fixture
def qwadm(control, folder):
    return Operator(control, folder)


# Keys -----------------------------------------------------------------------------------------------------------

def test_a_keys_life(qwadm):
    assert qwadm.refused("key", "create", "--user", "alice", "--name", "laptop") == \
        "user: there is no such user; --create-user makes it"
    made = qwadm.good("key", "create", "--user", "alice", "--name", "laptop", "--create-user", "--expires", "90d", "--models", "Qwen3:32B",
                      "--models", "llama3:8b", "--rpm", "30", "--allow", "10.0.0.0/16,::1", "--note", "left-handed")
    assert KEY.fullmatch(made.stdout)
    assert re.fullmatch(r"key alice/laptop, valid until 2\S+Z; this is its secret, which is not shown again:\n", made.stderr)
    shown = qwadm.json("key", "show", "alice/laptop")
    assert shown == qwadm.json("key", "show", made.stdout.strip()) == qwadm.json("key", "show", shown["id"])
    assert {name: shown[name] for name in ("models", "rpm", "allow", "note", "state", "prefix")} == {
        "models": ["qwen3:32b", "llama3:8b"], "rpm": 30, "allow": ["10.0.0.0/16", "::1/128"], "note": "left-handed", "state": "active",
        "prefix": made.stdout[3:13]}
    assert qwadm.refused("key", "create", "--user", "alice", "--name", "laptop") == "this user has a key laptop already"

    qwadm.good("key", "update", "alice/laptop", "--rpm", "", "--models", "", "--expires", "2030-01-31", "--delegate", "--name", "desk")
    shown = qwadm.json("key", "show", "alice/desk")
    assert (shown["rpm"], shown["models"], shown["expires_at"], shown["delegate"]) == (None, None, "2030-01-31T00:00:00Z", True)
    assert qwadm.refused("key", "update", "alice/desk", "--rpm", "5", "--if-version", "1") == \
        "it was changed by somebody else: it is at version 2, not 1; look at it again, then repeat"
    assert qwadm.refused("key", "update", "alice/desk", status=2) == "what is to change? --help names what can"

    rotated = qwadm.good("key", "rotate", "alice/desk", "--keep", "1h")
    assert KEY.fullmatch(rotated.stdout) and rotated.stdout != made.stdout
    assert rotated.stderr == "key alice/desk; this is its new secret, which is not shown again. The old one lets in for 1h more:\n"
    old = qwadm.json("key", "show", made.stdout.strip())
    assert old["name"] == f"desk.old-{old['prefix'].lower()}" and old["replaced_by"] == qwadm.json("key", "show", "alice/desk")["id"]

    done = qwadm.good("key", "revoke", "alice/desk", "--cut", "--yes")
    assert (done.stdout, done.stderr) == ("", "key alice/desk is revoked; no gateway is live\n")
    assert qwadm.json("key", "list", "--state", "revoked")[0]["prefix"] == rotated.stdout[3:13]
    assert qwadm.refused("key", "update", rotated.stdout[3:13], "--rpm", "5") == "the key desk was revoked for good"
    assert qwadm.refused("key", "show", "nobody/none") == "there is no key nobody/none"


def test_what_a_script_gets_of_a_new_key(qwadm):
    made = qwadm.json("key", "create", "--user", "alice", "--name", "one", "--create-user", "--wait", "1s")
    assert re.fullmatch(r"qk_\w{44}", made["secret"]) and made["secret"][3:13] == made["prefix"]
    done = qwadm.good("key", "create", "--user", "alice", "--name", "two", "-o", "csv")
    row, = csv.DictReader(io.StringIO(done.stdout, newline=""))
    assert row["secret"][3:13] == row["prefix"] and row["name"] == "two"
    assert qwadm.good("key", "create", "--user", "alice", "--name", "three", "--quiet").stderr == ""


def test_lists_are_filtered_and_paged(qwadm, folder):
    rows = "".join(f"user{i % 7},k{i},{'90d' if i % 2 else ''}\n" for i in range(1000))
    pathlib.Path(folder, "keys.csv").write_text("user,name,expires\n" + rows)
    done = qwadm.good("key", "import", f"{folder}/keys.csv", "--create-users", "--out", f"{folder}/secrets.csv")
    assert done.stderr == f"1000 keys were made; their secrets are in {folder}/secrets.csv\n"
    for i in range(3):
        qwadm.good("key", "create", "--user", "user0", "--name", f"more{i}")
    assert len(qwadm.json("key", "list")) == 1003
    assert len(qwadm.table("key", "list")) == 1001 and len(qwadm.table("key", "list", "--limit", "0")) == 1004
    assert len(qwadm.json("key", "list", "--user", "user3")) == 143
    assert [key["user"] for key in qwadm.json("key", "list", "--name", "k10")] == ["user3"]
    assert len(qwadm.json("key", "list", "--expires-before", "91d")) == 500 and qwadm.json("key", "list", "--expires-before", "89d") == []
    assert qwadm.json("key", "list", "--user", "nobody") == []
    assert qwadm.good("key", "list", "--state", "expired").stderr == "there is none\n"


def test_an_import_is_all_or_nothing(qwadm, folder):
    path = pathlib.Path(folder, "keys.csv")
    path.write_text("user,name,models\nalice,a,\nbob,b,\ncarol,c,a b!c\n")
    said = qwadm.refused("key", "import", path, "--create-users")
    assert said.startswith(f"{path}:4: models/1: must be the name of a model") and said.endswith("\nqwadm: nothing was done")
    assert qwadm.json("user", "list") == []
    path.write_text("user,name,secret\nalice,a,\nbob,b,an-older-key\n")
    assert qwadm.refused("key", "import", path) == f"{path}:2: user: there is no such user\nqwadm: nothing was done"
    done = qwadm.good("key", "import", path, "--create-users")
    assert re.fullmatch(r"user,name,id,secret\nalice,a,\w{10},qk_\w{44}\n", done.stdout)
    assert [(key["user"], key["prefix"] is None) for key in qwadm.json("key", "list")] == [("alice", False), ("bob", True)]
    assert qwadm.refused("key", "import", path).startswith(f"{path}:2: name: this user has a key a already")


# The other nouns ------------------------------------------------------------------------------------------------

def test_users_and_teams(qwadm):
    assert qwadm.good("team", "create", "research", "--note", "third floor").stderr == "team research was made\n"
    assert qwadm.refused("user", "create", "bob", "--team", "reserch") == "team: there is no such team"
    assert qwadm.good("user", "create", "bob", "--team", "research", "--weight", "2", "--class", "batch").stderr == "user bob was made\n"
    assert qwadm.table("user", "list", "--team", "research")[1][:5] == ["bob", "research", "batch", "2", "0"]
    assert qwadm.refused("user", "create", "Bob") == \
        "name: must be a name of lower-case letters, digits and . _ @ + - (128 at most)"
    qwadm.good("key", "create", "--user", "bob", "--name", "k")
    assert qwadm.good("user", "disable", "bob").stderr == "user bob is disabled; no gateway is live\n"
    assert qwadm.json("user", "list", "--disabled")[0]["name"] == "bob" and qwadm.json("user", "list", "--no-disabled") == []
    assert qwadm.good("user", "enable", "bob").stderr == "user bob is enabled\n"
    assert qwadm.refused("team", "delete", "research", "--yes") == "the team research still has users"
    assert qwadm.good("user", "update", "bob", "--team", "", "--name", "robert").stderr == "user robert was changed\n"
    assert qwadm.good("team", "update", "research", "--name", "science").stderr == "team science was changed\n"
    assert qwadm.json("team", "show", "science")["users"] == 0
    assert qwadm.good("team", "delete", "science", "--yes").stderr == "team science was deleted\n"
    assert qwadm.good("user", "delete", "robert", "--yes").stderr == "user robert was deleted, and its keys revoked; no gateway is live\n"
    assert [key["state"] for key in qwadm.json("key", "list")] == ["revoked"]


def test_the_whitelist(qwadm):
    assert qwadm.good("whitelist", "add", "10.0.0.0/16", "--note", "office").stderr == "range 10.0.0.0/16 was added\n"
    assert qwadm.refused("whitelist", "add", "10.0.0.1/16") == \
        'cidr: is wrong: "10.0.0.1/16" has bits set behind its mask: did you mean 10.0.0.0/16?'
    qwadm.good("whitelist", "add", "::1")
    assert [row[0] for row in qwadm.table("whitelist", "list")] == ["RANGE", "10.0.0.0/16", "::1/128"]
    assert qwadm.good("whitelist", "remove", "10.0.0.0/16", "--yes").stderr == "range 10.0.0.0/16 was removed; no gateway is live\n"
    assert qwadm.refused("whitelist", "remove", "10.0.0.0/16", "--yes") == "there is no range 10.0.0.0/16"


def test_models(qwadm):
    assert qwadm.good("model", "create", "Qwen3:32B", "--num-ctx", "32768", "--keep-alive", "-1", "--think", "on", "--preload").stderr == \
        "model qwen3:32b was made\n"
    assert qwadm.good("model", "create", "assistant", "--alias-of", "qwen3:32b").stderr == "model assistant:latest was made\n"
    shown = qwadm.json("model", "show", "QWEN3:32b")
    assert (shown["num_ctx"], shown["keep_alive"], shown["think"], shown["preload"]) == (32768, "-1", True, True)
    assert qwadm.good("model", "update", "qwen3:32b", "--think", "default", "--no-preload", "--keep-alive", "").stderr == \
        "model qwen3:32b was changed\n"
    shown = qwadm.json("model", "show", "qwen3:32b")
    assert (shown["num_ctx"], shown["keep_alive"], shown["think"], shown["preload"]) == (32768, None, None, False)
    assert qwadm.refused("model", "delete", "qwen3:32b", "--yes") == "the model assistant:latest is an alias of it"
    qwadm.good("model", "delete", "assistant", "--yes")
    assert len(qwadm.json("model", "list")) == 1


def test_backends(qwadm):
    assert qwadm.good("backend", "create", "gpu1", "--url", "http://10.0.0.5:11434", "--slots", "4").stderr == "backend gpu1 was made\n"
    assert qwadm.refused("backend", "create", "gpu2", "--url", "ftp://x").startswith("url: must be http://HOST:PORT")
    qwadm.good("backend", "update", "gpu1", "--drain", "--models", "qwen3:32b")
    assert qwadm.table("backend", "list")[1] == ["gpu1", "http://10.0.0.5:11434", "4", "1", "yes", "qwen3:32b"]
    qwadm.good("backend", "delete", "gpu1", "--yes")
    assert qwadm.good("backend", "list").stderr == "there is none\n"


def test_gateways(qwadm):
    done = qwadm.good("gateway", "enroll", "gw1", "--note", "rack 3")
    assert re.fullmatch(r"qen_\w{43}\n", done.stdout)
    assert re.fullmatch(r"gateway gw1 may join once with this secret, until 2\S+Z:\n", done.stderr)
    assert qwadm.good("gateway", "enroll", "gw1").stdout != done.stdout
    assert qwadm.json("gateway", "show", "gw1")["enrolled"] is False and len(qwadm.json("gateway", "list")) == 1
    assert qwadm.good("gateway", "resync", "gw1").stderr == "it has not enrolled yet, and holds nothing\n"
    assert qwadm.good("gateway", "resync", "--all").stderr == "no gateway has enrolled yet\n"
    assert qwadm.refused("gateway", "resync", status=2) == "gateway resync needs GATEWAY|--all: its name or id; or all of them"
    assert qwadm.refused("gateway", "resync", "gw1", "--all", status=2) == "\"gw1\" is one word too many beside --all"
    assert qwadm.refused("gateway", "resync", "gw7") == "there is no gateway gw7"
    assert qwadm.good("gateway", "remove", "gw1", "--yes").stderr == "gateway gw1 was removed\n"
    assert qwadm.json("gateway", "list") == []


def test_admin_tokens_and_what_they_may(qwadm, control, folder):
    done = qwadm.good("admin-token", "create", "dash", "--role", "viewer", "--expires", "365d")
    assert re.fullmatch(r"qat_\w{43}\n", done.stdout)
    assert re.fullmatch(r"admin token dash, role viewer, valid until 2\S+Z; it is not shown again:\n", done.stderr)
    viewer = Operator(control, folder, done.stdout.strip())
    assert viewer.good("key", "list").stderr == "there is none\n"
    for words in (("user", "create", "x"), ("admin-token", "list"), ("audit", "list")):
        assert viewer.refused(*words) == "this token's role may not do that"
    assert qwadm.good("admin-token", "revoke", "dash", "--yes").stderr == "admin token dash was revoked\n"
    assert viewer.refused("key", "list").startswith("this admin token is not known, or was revoked, or has expired; run `qwadm login`")
    assert done.stdout.strip() not in control.errors


def test_the_audit_log_names_what_was_done(qwadm):
    qwadm.good("key", "create", "--user", "alice", "--name", "laptop", "--create-user")
    qwadm.good("key", "revoke", "alice/laptop", "--yes")
    rows = qwadm.table("audit", "list", "--limit", "2")
    assert [row[1:] for row in rows[1:]] == [["owner", "127.0.0.1", "key_revoke", "key", "alice/laptop"],
                                             ["owner", "127.0.0.1", "key_create", "key", "alice/laptop"]]
    entry, = qwadm.json("audit", "list", "--action", "key_revoke", "--from", "1h", "--actor", "owner")
    assert (entry["before"]["state"], entry["after"]["state"]) == ("active", "revoked")
    assert qwadm.json("audit", "list", "--to", "1h") == []


def test_status_and_top(qwadm):
    said = qwadm.good("status").stdout
    assert re.search(r"^server +\S+, qwen-control 0\.\d+\.\d+, up \d+ s$", said, re.MULTILINE)
    assert re.search(r"^leader +.*, which is this one$", said, re.MULTILINE)
    assert re.search(r"^gateways +0 enrolled, 0 live, 0 behind$", said, re.MULTILINE)
    assert qwadm.json("status")["database"]["up"] is True
    assert qwadm.good("top", "--once").stdout.splitlines()[1].startswith("gateways 0 live of 0, 0 behind  configuration ")


# Gateways that follow -----------------------------------------------------------------------------------------------


@pytest.fixture
def follower(qwadm, control, fake, folder):
    """follower(name) enrolls and starts a gateway."""
    with contextlib.ExitStack() as stack:
        def start(name):
            place = pathlib.Path(stack.enter_context(short_folder()))
            (place / "secret").write_text(qwadm.good("gateway", "enroll", name).stdout)
            (place / "secret").chmod(0o600)
            gateway = Gateway(str(place), fake.url, is_ready_wanted=False, ollama_api=None, auth={"valid_keys": None},
                              control={"url": f"tcp://127.0.0.1:{control.link_port}", "name": name, "state": str(place / "state"),
                                       "enroll_secret_file": str(place / "secret"), "max_staleness": "1h"})
            stack.callback(lambda: gateway.process.poll() is None and gateway.stop())
            return gateway
        yield start


def test_keys_let_in_and_are_shut_out_on_every_gateway(qwadm, follower, fake):
    gateways = {name: follower(name) for name in ("gw1", "gw2")}
    wait_for(lambda: qwadm.json("status")["gateways"]["live"] == 2, 20)
    done = qwadm.good("backend", "create", "gpu1", "--url", fake.url, "--slots", "4", "--wait", "10s")
    assert re.fullmatch(r"backend gpu1 was made; confirmed by 2 gateways after \d+ ms: gw1, gw2\n", done.stderr)
    made = qwadm.good("key", "create", "--user", "alice", "--name", "laptop", "--create-user", "--wait", "10s")
    assert re.search(r"\nkey alice/laptop was made; confirmed by 2 gateways after \d+ ms: gw1, gw2\n$", made.stderr)
    secret = made.stdout.strip()
    for gateway in gateways.values():
        wait_for(lambda: gateway.chat(key=secret).status == 200, 10)

    qwadm.good("user", "disable", "alice")
    assert [gateway.chat(key=secret).status for gateway in gateways.values()] == [401, 401]
    qwadm.good("user", "enable", "alice", "--wait", "10s")
    assert [gateway.chat(key=secret).status for gateway in gateways.values()] == [200, 200]

    rotated = qwadm.good("key", "rotate", "alice/laptop", "--keep", "1h", "--wait", "10s").stdout.strip()
    assert [gateway.chat(key=each).status for gateway in gateways.values() for each in (secret, rotated)] == [200] * 4

    done = qwadm.good("key", "revoke", secret, "--yes")
    took = re.fullmatch(r"key alice/laptop\.old-\w+ is revoked; confirmed by 2 gateways after (\d+) ms: gw1, gw2\n", done.stderr)
    assert took and int(took[1]) < 3000
    assert [gateway.chat(key=secret).status for gateway in gateways.values()] == [401, 401]

    lines = qwadm.good("top", "--once").stdout.splitlines()
    assert lines[1].startswith("gateways 2 live of 2, 0 behind") and any(re.match(r"gw2 +live +0 +0 +\d+ +\d", line) for line in lines)
    wait_for(lambda: re.search(r"^alice +\d+ ", qwadm.good("top", "--once").stdout, re.MULTILINE), 15)

    gateways["gw2"].process.send_signal(signal.SIGKILL)
    gateways["gw2"].process.wait(10)
    begun = time.monotonic()
    done = qwadm("key", "revoke", "alice/laptop", "--cut", "--yes")
    assert done.returncode == 4 and time.monotonic() - begun < 9
    assert re.fullmatch(r"key alice/laptop is revoked; confirmed by 1 gateway after \d+ ms: gw1\n"
                        r"qwadm: gw2 has not confirmed it, last heard 2\S+Z: may accept until 2\S+Z\n", done.stderr)
    assert gateways["gw1"].chat(key=rotated).status == 401
    assert qwadm.table("gateway", "list")[2][0] == "gw2"
    done = qwadm("gateway", "remove", "gw2", "--yes")
    assert done.returncode == 4
    said = re.fullmatch(r"gateway gw2 was removed\n"
                        r"qwadm: gw2 is not connected, last heard (2\S+)Z: may accept until (2\S+)Z\n", done.stderr)
    assert said, done.stderr
    seen, until = (time.mktime(time.strptime(each, "%Y-%m-%dT%H:%M:%S")) for each in said.groups())
    assert until - seen == 3600 + 5
    assert qwadm.good("user", "delete", "alice", "--yes").stderr.startswith("user alice was deleted, and its keys revoked; confirmed by 1 ")

    done = qwadm.good("gateway", "remove", "gw1", "--yes")
    assert re.fullmatch(r"gateway gw1 was removed\n"
                        r"gw1 is connected, and is told to refuse callers; if that does not reach it, it may accept until 2\S+Z\n",
                        done.stderr)
    wait_for(lambda: gateways["gw1"].chat(key=rotated).code == "stale", 5)
    gateways["gw2"].spawn()  # which hears of it when it comes
    for name in ("gw2", "gw1"):
        gateways[name].wait_log("has removed this gateway")
        wait_for(lambda: gateways[name].chat(key=rotated).code == "stale", 5)
        assert gateways[name].errors.count("has removed this gateway") == 1
    gateways["gw2"].kill()  # its log has what it did before as well


# The server -----------------------------------------------------------------------------------------------------

def test_login_then_everything_without_words(control, folder):
    url = f"http://127.0.0.1:{control.port}"
    done = command(url, "login", token=None, folder=folder, stdin=control.token + "\n")
    assert (done.returncode, done.stderr) == (0, f"{url} knows the token as owner, role owner; it is kept in {folder}/.config/qwadm.yaml\n")
    assert command("", "status", token=None, folder=folder).returncode == 0
    done = command(url, "login", token=None, folder=folder, stdin="qat_" + "x" * 43)
    assert done.returncode == 1 and command("", "status", token=None, folder=folder).returncode == 0


def test_it_is_reached_by_its_socket(start_control, folder):
    qwadm = Operator(start_control(with_unix=True), folder)
    assert re.search(r"^server +unix:/", qwadm.good("status").stdout, re.MULTILINE)


def test_a_server_that_starts_again_meanwhile_is_waited_for(qwadm, control):
    """Within the second that retries take: what was not sent is sent then."""
    control.stop()
    assert qwadm.refused("user", "create", "early", status=3).startswith(f"{qwadm.url} cannot be reached: ")
    control.start()
    assert qwadm.good("user", "create", "late").stderr == "user late was made\n"


def test_without_its_database_it_says_so(start_control, cluster, folder):
    qwadm = Operator(start_control(database_wait_timeout="100ms"), folder)
    cluster.stop()
    assert "try again when its database is back" in qwadm.refused("user", "create", "x", environ={"QWADM_RETRIES": "0"})


# Whatever people type -------------------------------------------------------------------------------------------

ODD = ["'; DROP TABLE api_key; --", "../../admin-tokens", "a?b=c&d#e", "%00", "%2e%2e", "\u202egpj", "x" * 5000, "a/b/c/d", "*", "日本"]


@pytest.mark.parametrize("name", ODD, ids=range(len(ODD)))
def test_odd_names_are_refused_in_a_sentence(qwadm, name):
    for words in (("key", "show", name), ("user", "show", name), ("user", "create", name), ("key", "list", "--user", name),
                  ("whitelist", "remove", name, "--yes"), ("model", "delete", name, "--yes")):
        done = qwadm(*words)
        assert done.returncode in (0, 1) and done.stderr.count("\n") == 1, (words, done.stderr)
        assert done.returncode == 1 or done.stderr == "there is none\n", (words, done.stderr)
    assert qwadm.json("user", "list") == []
