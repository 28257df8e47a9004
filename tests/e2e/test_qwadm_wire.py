"""
qwadm against a server that is not what it should be: away, slow, cut short, hostile; and what it shows on terminals. What it
does with the real one is in test_qwadm.py.
"""

import csv
import hashlib
import io
import json
import os
import re
import signal
import stat
import subprocess
import time
import unicodedata

import pytest

from admin import QWADM, TOKEN, Answer, Server, Terminal, command, problem, screen_of
from processes import environment, free_port
from wire import wait_for

KEY = {"id": "0b3c7f6e-0000-4000-8000-000000000001", "user": "alice", "team": None, "name": "laptop", "prefix": "abcdefghij",
       "state": "active", "expires_at": None, "models": None, "rpm": None, "max_concurrent": None, "allow": None, "delegate": False,
       "replaced_by": None, "note": "", "version": 1, "created_at": "2026-11-23T04:00:00Z", "updated_at": "2026-11-23T04:00:00Z",
       "revoked_at": None}
CREATE = ("key", "create", "--user", "alice", "--name", "laptop")
REVOKE = ("key", "revoke", "alice/laptop", "--yes")
REVOKED = Answer(200, {**KEY, "state": "revoked"}, headers={"Qwen-Config-Version": "8"})
HOSTILE = "x\x1b]0;own\x07\x1b[2J\x9b31m\u202egpj.exe\u200b\r\n" + "\x1b[31m" * 1000


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def said(done, status, *sentences):
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    for sentence in sentences:
        assert sentence in done.stderr
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stderr), repr(done.stderr)


# Reaching it --------------------------------------------------------------------------------------------------

def test_nobody_there_is_one_sentence_and_status_3():
    url = f"http://127.0.0.1:{free_port()}"
    done = command(url, "key", "list")
    said(done, 3, f"qwadm: {url} cannot be reached: ", "Does qwen-control run there? Another server: --server")
    assert done.stderr.count("\n") == 1 and done.stdout == ""


def test_a_name_that_does_not_exist_is_status_3(folder):
    said(command("https://name.invalid", "key", "list", environ={"QWADM_RETRIES": "0"}), 3, "https://name.invalid cannot be reached")
    said(command(f"unix:{folder}/none", "key", "list", environ={"QWADM_RETRIES": "0"}), 3, f"unix:{folder}/none cannot be reached")


def test_a_unix_socket_is_asked_as_a_port_is(folder):
    server = Server(f"{folder}/admin.sock")
    server.on("GET", "/admin/v1/keys", Answer(200, {"data": [KEY], "next_cursor": None}))
    done = server.command("key", "list")
    server.close()
    said(done, 0)
    assert "laptop" in done.stdout and server.asked[0]["headers"]["Authorization"] == f"Bearer {TOKEN}"


def test_silence_ends_after_its_time(server):
    server.on("GET", "/admin/v1/keys", Answer(raw=b"", before=lambda: server.hold.wait(20)))
    begun = time.monotonic()
    done = server.command("key", "list", "--timeout", "300ms", environ={"QWADM_RETRIES": "0"})
    assert time.monotonic() - begun < 10
    said(done, 3, f"{server.url} gave no answer within 300 ms: is qwen-control well? More time: --timeout")


STRANGE = [
    (Answer(raw=b""), "ended the connection within its answer"),
    (Answer(raw=b"SSH-2.0-OpenSSH_9.2\r\n"), "gave no answer that can be understood"),
    (Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{\"data\":["),
     "ended the connection within its answer"),
    (Answer(200, b"{\"data\":["), "answers 200, but not as qwen-control does: is this its address?"),
    (Answer(200, b"[1,2]"), "answers 200, but not as qwen-control does"),
    (Answer(200, b"{\"data\":[],\"data\":[]}"), "answers 200, but not as qwen-control does"),
    (Answer(200, b"{\"data\":\"\xff\"}"), "answers 200, but not as qwen-control does"),
    (Answer(200, b"<html>hello", kind="text/html"), "answers 200, but not as qwen-control does"),
    (Answer(302, b"", headers={"Location": "http://127.0.0.1:1/"}), "answers with a redirect (302), which is not followed"),
    (Answer(502, b"<h1>Bad Gateway</h1>", kind="text/html"),
     "answers 502, but not as qwen-control does: the proxy before it does not reach it"),
    (Answer(404, b"{}"), "answers 404, but not as qwen-control does: is this its address?"),
    (Answer(200, {"hello": "world"}), "the server's list has no data: is it of another version?"),
    (Answer(200, b"{\"data\":[" + b"[" * 100000), "answers 200, but not as qwen-control does"),
]


@pytest.mark.parametrize("answer,why", STRANGE, ids=range(len(STRANGE)))
def test_what_is_no_answer_is_status_3(server, answer, why):
    server.on("GET", "/admin/v1/keys", answer)
    said(server.command("key", "list", environ={"QWADM_RETRIES": "0"}), 3, why)


def test_a_redirect_gets_no_token(server):
    other = Server()
    server.on("GET", "/admin/v1/keys", Answer(307, b"", headers={"Location": f"{other.url}/admin/v1/keys"}))
    said(server.command("key", "list"), 3)
    assert other.asked == []
    other.close()


def test_an_answer_without_end_is_cut_at_its_limit(server):
    server.on("GET", "/admin/v1/keys", Answer(200, b"{\"data\":[\"" + b"x" * 300000 + b"\"]}"))
    done = server.command("key", "list", environ={"QWADM_MAX_ANSWER_BYTES": "100KiB", "QWADM_RETRIES": "0"})
    said(done, 3, "sent an answer of more than 102400 bytes (max_answer_bytes)")


def test_the_token_goes_to_other_machines_by_tls_only(server):
    done = command("http://192.0.2.1:18800", "key", "list")
    said(done, 2, "http to 192.0.2.1 would send the token unencrypted: use https")
    for url in ("ftp://localhost", "localhost:18800", "http://", "unix:relative", "http://user:pw@localhost", "http://localhost/?x=1"):
        said(command(url, "key", "list"), 2, "the server must be ")


def test_no_proxy_sees_what_goes_by_plain_http(server):
    server.on("GET", "/admin/v1/keys", Answer(200, {"data": [], "next_cursor": None}))
    said(server.command("key", "list", environ={"http_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"}), 0)


def test_without_a_token_nothing_is_asked(server, folder):
    said(server.command("key", "list", token=None), 2,
         "no admin token is known: run `qwadm login`, or set QWADM_TOKEN, or give --token-file")
    path = f"{folder}/token"
    with open(path, "w") as file:
        file.write(TOKEN + "\n")
    os.chmod(path, 0o644)
    said(server.command("key", "list", "--token-file", path, token=None), 2,
         f"{path} holds a token and others may read it: chmod 600 {path}")
    assert server.asked == []


# Sending again --------------------------------------------------------------------------------------------------

LOST = Answer(raw=b"")


def test_a_create_is_sent_again_under_its_key(server):
    server.on("POST", "/admin/v1/keys", LOST, problem(503, "database_away", "the database is away"),
              Answer(201, {**KEY, "secret": "qk_once"}))
    done = server.command(*CREATE)
    said(done, 0)
    assert done.stdout == "qk_once\n"
    keys = {asked["headers"]["Idempotency-Key"] for asked in server.asked}
    assert len(server.asked) == 3 and len(keys) == 1 and re.fullmatch(r"[a-z]{32}", keys.pop())
    server.on("POST", "/admin/v1/keys", Answer(201, {**KEY, "secret": "qk_other"}))
    server.command(*CREATE)
    assert server.asked[3]["headers"]["Idempotency-Key"] != server.asked[0]["headers"]["Idempotency-Key"]


def test_a_secret_that_was_lost_on_the_way_is_said_to_be(server):
    server.on("POST", "/admin/v1/keys", LOST, Answer(201, {**KEY, "secret": None}, headers={"Idempotency-Replayed": "true"}))
    done = server.command(*CREATE)
    said(done, 1, "key alice/laptop was made, but the answer with its secret was lost on the way, and it is told only once: "
                  "`qwadm key rotate` gives it a new one")
    assert done.stdout == ""


def test_what_may_have_been_done_is_said(server):
    server.on("POST", "/admin/v1/keys", LOST)
    said(server.command(*CREATE), 3, "Whether it was done is not known: look before you repeat it")
    assert len(server.asked) == 3


def test_a_refusal_is_not_repeated(server):
    server.on("POST", "/admin/v1/keys", problem(409, "already_exists", "alice has a key laptop already"))
    said(server.command(*CREATE), 1, "qwadm: alice has a key laptop already\n")
    assert len(server.asked) == 1


def test_wrong_tokens_are_not_repeated(server):
    server.on("GET", "/admin/v1/keys", problem(401, "unauthorized", "this admin token is not known"))
    said(server.command("key", "list"), 1, "qwadm: this admin token is not known; run `qwadm login` with a token that is valid\n")
    assert len(server.asked) == 1


def test_revoking_again_what_is_revoked_meanwhile_is_done(server):
    """The first answer was lost: that the key is gone now is what was wanted, and is confirmed by the version of now."""
    server.on("POST", "/admin/v1/keys/alice%2Flaptop/revoke", LOST, problem(410, "gone", "the key laptop was revoked for good"))
    server.on("GET", "/admin/v1/status", Answer(200, {"config_version": 12}))
    server.on("GET", "/admin/v1/confirmations/12", Answer(200, {"version": 12, "confirmed": [{"name": "gw1"}], "pending": []}))
    said(server.command(*REVOKE), 0, "key alice/laptop is revoked; confirmed by 1 gateway after ", ": gw1\n")


def test_revoking_what_was_revoked_before_is_refused(server):
    server.on("POST", "/admin/v1/keys/alice%2Flaptop/revoke", problem(410, "gone", "the key laptop was revoked for good"))
    said(server.command(*REVOKE), 1, "qwadm: the key laptop was revoked for good\n")


def test_a_pasted_secret_does_not_leave_the_machine(server):
    server.on("POST", "/admin/v1/keys/abcdefghij/revoke", REVOKED)
    server.on("GET", "/admin/v1/confirmations/8", Answer(200, {"version": 8, "confirmed": [], "pending": []}))
    said(server.command("key", "revoke", "qk_abcdefghij_" + "S" * 33, "--yes"), 0, "key alice/laptop is revoked; no gateway is live")
    assert "SSS" not in json.dumps(server.asked)


# Confirmation ---------------------------------------------------------------------------------------------------

def confirmations(confirmed=(), pending=()):
    return Answer(200, {"version": 8, "confirmed": [{"name": name} for name in confirmed], "pending": list(pending)})


SILENT = {"name": "gw3", "reason": "silent", "last_seen": "2026-11-23T03:00:00Z", "may_accept_until": "2026-11-24T03:00:05Z"}
BEHIND = {"name": "gw2", "reason": "behind", "last_seen": "2026-11-23T03:00:00Z", "may_accept_until": "2026-11-24T03:00:05Z"}


@pytest.fixture
def revoking(server):
    server.on("POST", "/admin/v1/keys/alice%2Flaptop/revoke", REVOKED)
    return server


def test_revoking_waits_for_those_who_live(revoking):
    revoking.on("GET", "/admin/v1/confirmations/8", confirmations(["gw1"], [BEHIND]), confirmations(["gw1"], [BEHIND]),
                confirmations(["gw1", "gw2"]))
    done = revoking.command(*REVOKE, "--cut")
    said(done, 0)
    assert re.fullmatch(r"key alice/laptop is revoked; confirmed by 2 gateways after \d+ ms: gw1, gw2\n", done.stderr) and done.stdout == ""
    assert revoking.asked[0]["body"] == {"cut": True} and len(revoking.asked) == 4
    assert re.fullmatch(r"/admin/v1/confirmations/8\?wait=\d+ms", revoking.asked[1]["path"])


def test_who_is_silent_is_named_and_it_is_status_4(revoking):
    revoking.on("GET", "/admin/v1/confirmations/8", confirmations(["gw1"], [SILENT]))
    done = revoking.command(*REVOKE)
    said(done, 4, "confirmed by 1 gateway after", "qwadm: gw3 has not confirmed it, last heard 2026-11-23T03:00:00Z: may accept until "
                  "2026-11-24T03:00:05Z\n")
    done = revoking.command(*REVOKE, "-o", "json")
    shown = json.loads(done.stdout)
    assert done.returncode == 4 and shown["state"] == "revoked"
    assert shown["confirmations"]["pending"] == [SILENT] and shown["confirmations"]["took_ms"] >= 0


def test_a_gateway_that_cannot_apply_it_is_named_with_its_reason(revoking):
    stuck = {**BEHIND, "reason": "models: \x1b[31mno", "may_accept_until": None}
    revoking.on("GET", "/admin/v1/confirmations/8", confirmations([], [stuck]))
    said(revoking.command(*REVOKE, "--wait", "1s"), 4,
         "gw2 has not confirmed it (models: \\x1b[31mno): may accept until it is heard of again, as it has no max_staleness")


def test_when_confirmation_cannot_be_asked_it_is_status_4(revoking):
    revoking.on("GET", "/admin/v1/confirmations/8", problem(503, "not_leader", "another control plane leads"))
    said(revoking.command(*REVOKE, environ={"QWADM_RETRIES": "0"}), 4,
         "key alice/laptop is revoked, but whether the gateways know it could not be asked")


def test_nobody_is_waited_for_when_it_is_said_so(revoking):
    said(revoking.command(*REVOKE, "--wait", "0s"), 0, "key alice/laptop is revoked\n")
    assert len(revoking.asked) == 1


# Asking first ---------------------------------------------------------------------------------------------------

DESTROYS = [("key", "revoke", "k"), ("user", "delete", "u"), ("team", "delete", "t"), ("whitelist", "remove", "10.0.0.0/8"),
            ("model", "delete", "m"), ("backend", "delete", "b"), ("gateway", "remove", "g"), ("admin-token", "revoke", "t")]


@pytest.mark.parametrize("words", DESTROYS, ids=" ".join)
def test_what_destroys_wants_yes_where_nobody_can_be_asked(server, words):
    said(server.command(*words), 2, "qwadm: this cannot be undone, and nobody can be asked here: give --yes if it is meant\n")
    assert server.asked == []


@pytest.fixture
def terminal(folder):
    opened = []

    def start(server, *arguments, columns=80, lines=24, environ=None, before=()):
        env = environment({"QWADM_SERVER": server.url, "QWADM_TOKEN": TOKEN, "HOME": folder, "TERM": "xterm", **(environ or {})})
        if "NO_COLOR" not in (environ or {}):
            env.pop("NO_COLOR", None)
        opened.append(Terminal([*before, QWADM, *arguments], env, columns, lines))
        return opened[-1]
    yield start
    for each in opened:
        each.close()


@pytest.mark.parametrize("answer,status", [("y", 0), ("n", 1), ("", 1), ("nonsense", 1)])
def test_a_person_is_asked(revoking, terminal, answer, status):
    revoking.on("GET", "/admin/v1/confirmations/8", confirmations(["gw1"]))
    shown = terminal(revoking, "key", "revoke", "alice/laptop")
    shown.wait_for("Revoke key alice/laptop for good? [y/N] ")
    shown.type(answer + "\n")
    assert shown.end() == status
    assert (len(revoking.asked) > 0) == (status == 0)
    assert (b"nothing was done" in shown.output) == (status == 1)


# Terminals ------------------------------------------------------------------------------------------------------

def evil_list():
    return Answer(200, {"data": [{**KEY, "name": HOSTILE, "note": HOSTILE, "models": [HOSTILE]}, {**KEY, "name": "=cmd|'/c calc'!A0"},
                                 {**KEY, "name": "日本語😀" * 40, "user": "é" * 60}], "next_cursor": None})


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_table_fits_and_nothing_in_it_is_obeyed(server, terminal, columns):
    server.on("GET", "/admin/v1/keys", evil_list())
    shown = terminal(server, "key", "list", columns=columns)
    assert shown.end() == 0
    text = shown.output.decode()
    without = re.sub(r"\x1b\[(0|1|31|32)m", "", text)
    assert not re.search(r"[\x00-\x09\x0b-\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b]", without), repr(without)
    lines = without.split("\r\n")
    assert len(lines) == 5 and lines[-1] == ""
    for line in lines:
        width = sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)
        assert width <= columns, line
    assert lines[0].startswith("USER") and "NAME" in lines[0] and ("MODELS" in lines[0]) == (columns > 40)


@pytest.mark.parametrize("arguments", [("-o", "json"), ("-o", "csv"), ("-o", "table")])
def test_no_format_lets_escapes_through(server, arguments):
    server.on("GET", "/admin/v1/keys", evil_list())
    done = server.command("key", "list", *arguments)
    assert done.returncode == 0 and not re.search(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e\u200b]", done.stdout)
    if arguments[1] == "json":
        assert [key["name"] for key in json.loads(done.stdout)] == [key["name"] for key in evil_list().body["data"]]
    if arguments[1] == "csv":
        rows = list(csv.DictReader(io.StringIO(done.stdout, newline="")))
        assert len(rows) == 3 and rows[1]["name"] == "'=cmd|'/c calc'!A0" and set(rows[0]) == set(KEY)


def test_a_refusal_cannot_write_to_the_terminal(server):
    server.on("GET", "/admin/v1/keys", problem(400, "bad_value", f"/user {HOSTILE}", [{"pointer": HOSTILE, "detail": HOSTILE + "!"}] * 9))
    done = server.command("key", "list")
    said(done, 1, "user: x\\x1b]0;own\\x07")


def test_a_mebibyte_of_a_name_is_no_problem(server):
    server.on("GET", "/admin/v1/keys", Answer(200, {"data": [{**KEY, "name": "\x1b[31m" * 200000}], "next_cursor": None}))
    for form in ("table", "csv", "json"):
        done = server.command("key", "list", "-o", form)
        assert done.returncode == 0 and len(done.stdout) > 1000000 and "\x1b" not in done.stdout


def test_colour_is_for_terminals_that_want_it(server, terminal):
    server.on("GET", "/admin/v1/keys", Answer(200, {"data": [KEY], "next_cursor": None}))
    for arguments, environ, has_colour in [((), {}, True), ((), {"NO_COLOR": "1"}, False), ((), {"NO_COLOR": ""}, True),
                                           (("--color", "never"), {}, False), (("--color", "always"), {"NO_COLOR": "1"}, True),
                                           ((), {"TERM": "dumb"}, False)]:
        shown = terminal(server, "key", "list", *arguments, environ=environ)
        assert shown.end() == 0
        assert (b"\x1b[" in shown.output) == has_colour, (arguments, environ)
    assert "\x1b" not in server.command("key", "list").stdout
    assert "\x1b[32mactive" in server.command("key", "list", "--color", "always").stdout


def test_a_bar_comes_after_a_second_and_goes_again(server, terminal):
    server.on("GET", "/admin/v1/keys", Answer(200, {"data": [KEY], "next_cursor": None}, before=lambda: server.hold.wait(20)))
    shown = terminal(server, "key", "list")
    shown.wait_for("waiting for the server, 1 s")
    server.hold.set()
    assert shown.end() == 0
    assert b"\r\x1b[K" in shown.output.split(b"waiting for the server")[-1] and b"laptop" in shown.output


def test_a_bar_says_that_gateways_are_waited_for(revoking, terminal):
    revoking.on("GET", "/admin/v1/confirmations/8", Answer(200, {"version": 8, "confirmed": [], "pending": []},
                                                           before=lambda: revoking.hold.wait(20)))
    shown = terminal(revoking, *REVOKE)
    shown.wait_for("waiting for the gateways, 1 s")
    revoking.hold.set()
    assert shown.end() == 0 and b"is revoked; no gateway is live" in shown.output


def test_a_full_disk_is_said(server):
    server.on("GET", "/admin/v1/keys", Answer(200, {"data": [KEY], "next_cursor": None}))
    done = server.command("-q", "key", "list", stdin="")
    assert done.returncode == 0
    with open("/dev/full", "w") as full:
        done = subprocess.run([QWADM, "key", "list"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=30,
                              env=environment({"QWADM_SERVER": server.url, "QWADM_TOKEN": TOKEN}))
    said(done, 1, "qwadm: standard output cannot be written: No space left on device\n")


# Lists ----------------------------------------------------------------------------------------------------------

def pages(server, count):
    """So many keys, in pages."""
    def page():
        query = dict(part.split("=") for part in server.asked[-1]["path"].partition("?")[2].split("&"))
        start, limit = int(query.get("cursor", "0")), int(query["limit"])
        rows = [{**KEY, "name": f"k{i}"} for i in range(start, min(start + limit, count))]
        return Answer(200, {"data": rows, "next_cursor": str(start + limit) if start + limit < count else None})
    server.on("GET", "/admin/v1/keys", page)


def test_a_table_stops_at_a_thousand_and_says_so(server):
    pages(server, 2500)
    done = server.command("key", "list")
    assert done.stdout.count("\n") == 1001 and done.stderr == "there are more: --limit 0 shows all\n" and done.returncode == 0
    done = server.command("key", "list", "--limit", "0")
    assert done.stdout.count("\n") == 2501 and done.stderr == ""
    done = server.command("key", "list", "--limit", "1200", "-q")
    assert done.stdout.count("\n") == 1201 and done.stderr == ""


def test_scripts_get_everything(server):
    pages(server, 2500)
    assert [key["name"] for key in json.loads(server.command("key", "list", "-o", "json").stdout)] == [f"k{i}" for i in range(2500)]
    assert server.command("key", "list", "-o", "csv").stdout.count("\n") == 2501
    assert json.loads(server.command("key", "list", "-o", "json", "--limit", "3").stdout)[2]["name"] == "k2"


def test_a_list_that_breaks_off_is_not_taken_for_whole(server):
    pages(server, 2500)
    first = server.rules["GET", "/admin/v1/keys"][0]
    server.on("GET", "/admin/v1/keys", first, problem(503, "database_away", "the database is away"))
    done = server.command("key", "list", "-o", "csv", environ={"QWADM_RETRIES": "0"})
    said(done, 1, "the database is away", "what was printed is not all of it")


def test_an_empty_list_is_said_and_is_valid(server):
    pages(server, 0)
    assert server.command("key", "list").stderr == "there is none\n"
    assert json.loads(server.command("key", "list", "-o", "json").stdout) == []
    assert server.command("key", "list", "-o", "csv").stdout.startswith("user,name,prefix,id,")


# Import ---------------------------------------------------------------------------------------------------------

def sheet(folder, text, name="keys.csv"):
    path = f"{folder}/{name}"
    with open(path, "wb") as file:
        file.write(text if isinstance(text, bytes) else text.encode())
    return path


IMPORTED = Answer(200, {"imported": 2}, headers={"Qwen-Config-Version": "9"})
TWO = """user,name,expires,models,rpm,allow,delegate,note
alice,laptop,90d,"qwen3:32b,llama3",30,10.0.0.0/16 ::1,yes,"said ""hi""\"
bob,desk,,,,,,
"""


def test_an_import_makes_secrets_and_sends_hashes(server, folder):
    server.on("POST", "/admin/v1/keys/import", LOST, IMPORTED)
    done = server.command("key", "import", sheet(folder, TWO), "--create-users")
    said(done, 0, "2 keys were made")
    rows = list(csv.DictReader(io.StringIO(done.stdout, newline="")))
    assert [(row["user"], row["name"]) for row in rows] == [("alice", "laptop"), ("bob", "desk")]
    sent = server.asked[-1]["body"]
    assert server.asked[0]["body"] == sent and sent["create_users"] is True
    assert sent["keys"][0] == {"user": "alice", "name": "laptop", "expires_in": "90d", "models": ["qwen3:32b", "llama3"], "rpm": 30,
                               "allow": ["10.0.0.0/16", "::1"], "delegate": True, "note": 'said "hi"', "prefix": rows[0]["id"],
                               "hash": sent["keys"][0]["hash"]}
    for row, key in zip(rows, sent["keys"]):
        assert re.fullmatch(r"qk_[0-9A-Za-z]{10}_[0-9A-Za-z]{33}", row["secret"])
        assert key["hash"] == hashlib.sha256(row["secret"].encode()).hexdigest() and row["secret"] not in json.dumps(sent)


def test_secrets_go_to_a_new_file_of_its_owners(server, folder):
    server.on("POST", "/admin/v1/keys/import", IMPORTED)
    out = f"{folder}/secrets.csv"
    os.umask(os.umask(0))
    done = server.command("key", "import", sheet(folder, TWO), "--out", out)
    said(done, 0, f"2 keys were made; their secrets are in {out}")
    assert done.stdout == "" and stat.S_IMODE(os.stat(out).st_mode) == 0o600 and open(out).read().count("qk_") == 2
    said(server.command("key", "import", sheet(folder, TWO), "--out", out), 2, f"{out} is there already: --out makes a new file")
    assert len(server.asked) == 1


def test_a_refused_import_names_its_lines_and_leaves_no_file(server, folder):
    server.on("POST", "/admin/v1/keys/import", problem(400, "bad_value", "/keys/1/user there is no such user",
                                                       [{"pointer": "/keys/1/user", "detail": "there is no such user"}]))
    path, out = sheet(folder, TWO), f"{folder}/secrets.csv"
    done = server.command("key", "import", path, "--out", out)
    assert (done.returncode, done.stderr) == (1, f"qwadm: {path}:3: user: there is no such user\nqwadm: nothing was done\n")
    assert not os.path.exists(out)


def test_an_import_of_unknown_outcome_keeps_its_secrets(server, folder):
    server.on("POST", "/admin/v1/keys/import", LOST)
    out = f"{folder}/secrets.csv"
    said(server.command("key", "import", sheet(folder, TWO), "--out", out), 3, f"{out} stays: should the keys have been made all the same, "
                                                                               "their secrets are in it")
    assert open(out).read().count("qk_") == 2


def test_keys_that_are_in_use_keep_their_secret(server, folder):
    server.on("POST", "/admin/v1/keys/import", IMPORTED)
    done = server.command("key", "import", sheet(folder, "user,name,secret,sha256\na,x,prod-key-2024,\nb,y,," + "A1" * 32 + "\n"))
    said(done, 0)
    assert done.stdout == "user,name,id,secret\n"
    assert server.asked[0]["body"]["keys"] == [
        {"user": "a", "name": "x", "hash": hashlib.sha256(b"prod-key-2024").hexdigest()}, {"user": "b", "name": "y", "hash": "a1" * 32}]
    assert "prod-key" not in json.dumps(server.asked)


BAD = """user,name,rpm,expires,models,allow,delegate,sha256,prefix
alice,laptop,0,,,,,,
alice,laptop2,x,,,,,,
alice,,30,,,,,,
,desk,30,,,,,,
a"b,c,,,,,,,
alice,three,30
alice,four,,soon,,,,,
alice,five,,,,10.0.0.1/8,,,
alice,six,,,,,maybe,,
alice,seven,,,,,,abc,
alice,eight,,,,,,,abcd
ok,fine,,,,,,,
ok,fine,,,,,,,
"""
WHY = ["2: rpm must be a whole number from 1 to 1000000, not \"0\"", "3: rpm must be", "4: name is missing", "5: user is missing",
       "6: a quote stands within a cell that does not begin with one", "7: it has 3 cells, but there are 9 titles",
       "8: expires must be a time from now", "9: allow: ", "10: delegate must be yes or no, not \"maybe\"",
       "11: sha256 must be 64 hexadecimal digits", "12: prefix goes with sha256: a new key gets its own",
       "14: key ok/fine stands in line 13 already"]


def test_every_bad_line_is_named_and_nothing_is_sent(server, folder):
    path = sheet(folder, BAD)
    done = server.command("key", "import", path)
    said(done, 2, *(f"qwadm: {path}:{why}" for why in WHY), f"nothing was done: {len(WHY)} lines of {path} must be mended first")
    assert server.asked == [] and done.stdout == "" and done.stderr.count("\n") == len(WHY) + 1


@pytest.mark.parametrize("text,why", [
    ("", "1: the file is empty"), ("user,name\n", "2: no key stands behind the titles"),
    ("user,nam\n", '1: there is no title "nam": did you mean name?'),
    ("user\na\n", "1: the first line must name the columns, user and name among them"),
    ("user,name,user\n", "1: the title user stands there twice"),
    (b"user,name\n\xff,x\n", "2: user must be one line of UTF-8"), (b"user,name\na,x\x00y\n", "2: name must be one line of UTF-8"),
    ("user,name\n" + "".join(f"a,k{i}\n" for i in range(1001)), "1002: there are more than 1000 keys: divide the file"),
    ("user,name,secret\na,b,same\nc,d,same\n", "3: its secret stands in line 2 already"),
])
def test_a_file_that_is_no_such_table_is_refused(server, folder, text, why):
    path = sheet(folder, text)
    said(server.command("key", "import", path), 2, f"qwadm: {path}:{why}")
    assert server.asked == []


def test_a_dry_run_sends_nothing(server, folder):
    done = server.command("key", "import", "-", "--dry-run", stdin=TWO)
    said(done, 0, "2 keys; nothing was done")
    assert server.asked == [] and done.stdout == ""
    said(server.command("key", "import", f"{folder}/none"), 2, f"{folder}/none cannot be read: No such file or directory")


# Login ----------------------------------------------------------------------------------------------------------

WHOAMI = Answer(200, {"id": KEY["id"], "name": "root@desk", "role": "owner"})


def test_login_keeps_a_token_that_is_good(server, folder):
    server.on("GET", "/admin/v1/whoami", WHOAMI)
    server.on("GET", "/admin/v1/keys", Answer(200, {"data": [KEY], "next_cursor": None}))
    done = server.command("login", token=None, folder=folder, stdin=TOKEN + "\n")
    path = f"{folder}/.config/qwadm.yaml"
    said(done, 0, f"{server.url} knows the token as root@desk, role owner; it is kept in {path}")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600 and TOKEN in open(path).read() and TOKEN not in done.stdout + done.stderr
    done = command("", "key", "list", token=None, folder=folder)
    assert done.returncode == 0 and "laptop" in done.stdout
    assert server.asked[-1]["headers"]["Authorization"] == f"Bearer {TOKEN}"
    os.chmod(path, 0o644)
    said(command("", "key", "list", token=None, folder=folder), 2, f"{path} holds a token and others may read it: chmod 600 {path}")


def test_login_with_a_token_that_is_no_good_keeps_nothing(server, folder):
    server.on("GET", "/admin/v1/whoami", problem(401, "unauthorized", "this admin token is not known"))
    said(server.command("login", token=None, folder=folder, stdin=TOKEN), 1, "this admin token is not known")
    said(server.command("login", token=None, folder=folder, stdin=""), 2, "no token was given")
    server.on("GET", "/admin/v1/whoami", Answer(200, {"hello": "world"}))
    said(server.command("login", token=None, folder=folder, stdin=TOKEN), 3, "does not say whose token it is: is it qwen-control?")
    assert not os.path.exists(f"{folder}/.config/qwadm.yaml")


def test_a_token_that_is_typed_is_not_shown(server, terminal, folder):
    server.on("GET", "/admin/v1/whoami", WHOAMI)
    shown = terminal(server, "login", environ={"QWADM_TOKEN": ""})
    shown.wait_for("admin token: ")
    shown.type(TOKEN + "\n")
    assert shown.end() == 0
    assert b"root@desk" in shown.output and TOKEN.encode() not in shown.output
    assert shown.settings() == shown.before


# top ------------------------------------------------------------------------------------------------------------

LOAD = {"window_s": 10, "gateways": [{"name": "gw1", "live": True, "running": 2, "waiting": 1, "applied_version": 42, "apply_error": None,
                                      "heard_ms_ago": 200, "backends": [{"name": "gpu1", "up": True, "running": 2, "waiting": 1}]}],
        "models": [{"model": "qwen3:32b", "running": 2, "waiting": 1, "requests_per_s": 1.5, "prompt_tokens_per_s": 900,
                    "completion_tokens_per_s": 85.1, "first_token_ms": {"p50": 210, "p95": 800, "p99": 1500},
                    "duration_ms": {"p50": 4000, "p95": 9000, "p99": 12000}}],
        "users": [{"user": "alice", "requests": 15, "refused": 0, "prompt_tokens": 9000, "completion_tokens": 851}]}
STATUS = {"version": "0.1.0", "leader": {}, "database": {"up": True, "reason": ""}, "config_version": 42,
          "gateways": {"enrolled": 1, "live": 1, "behind": 0}, "uptime_s": 5}


@pytest.fixture
def busy(server):
    server.on("GET", "/admin/v1/load", Answer(200, LOAD))
    server.on("GET", "/admin/v1/status", Answer(200, STATUS))
    return server


def last_screen(shown, columns=80, lines=24):
    return screen_of(shown.output.rpartition(b"\x1b[2J")[2].partition(b"\x1b[?25h")[0], columns, lines)


@pytest.mark.parametrize("columns,lines", [(80, 24), (40, 10), (200, 50)])
def test_top_is_a_screen_that_fits(busy, terminal, columns, lines):
    shown = terminal(busy, "top", columns=columns, lines=lines)
    shown.wait_for("qwen3:32b")
    shown.wait_for("\x1b[J")
    screen = last_screen(shown, columns, lines)
    assert screen[0].startswith("qwadm top  2") and screen[1].startswith("gateways 1 live of 1, 0 behind")
    assert any(line.startswith("GATEWAY") for line in screen) and any(line.startswith("gw1 ") for line in screen)
    shown.type("q")
    assert shown.end() == 0
    assert shown.output.startswith(b"\x1b[?1049h\x1b[?25l") and shown.output.endswith(b"\x1b[?25h\x1b[?1049l")
    assert shown.settings() == shown.before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGSEGV])
def test_the_terminal_is_as_it_was_whatever_ends_top(busy, terminal, number):
    shown = terminal(busy, "top", environ={"ASAN_OPTIONS": "handle_segv=0:allow_user_segv_handler=1:detect_leaks=0"})
    shown.wait_for("851")
    assert shown.settings() != shown.before
    shown.process.send_signal(number)
    assert shown.end() == -number
    assert shown.output.endswith(b"\x1b[?25h\x1b[?1049l") and shown.settings() == shown.before


def test_top_stops_and_goes_on_as_a_shell_expects(busy, terminal):
    """Ctrl-Z, and `fg` as soon as the shell has the terminal again."""
    shown = terminal(busy, "top", before=["bash", "-c", 'set -m; "$@"; echo stopped=$?; fg; echo ended=$?', "bash"])
    shown.wait_for("851")
    shown.type("\x1a")
    shown.wait_for("stopped=148")
    assert b"Stopped" in shown.output.partition(b"\x1b[?1049l")[2]  # what the shell says is on its own screen
    assert shown.output.partition(b"stopped=")[0].count(b"\x1b[?25h\x1b[?1049l") == 1
    shown.output = shown.output.partition(b"stopped=")[2]
    shown.wait_for("851")
    assert shown.output.count(b"\x1b[?1049h") == 1
    shown.type("q")
    shown.wait_for("ended=0")
    shown.end()
    assert shown.settings() == shown.before


def test_top_follows_the_size_of_its_terminal(busy, terminal):
    shown = terminal(busy, "top", columns=80)
    shown.wait_for("851")
    shown.output = b"\x1b[2J"
    shown.resize(120, 30)
    shown.wait_for("95%")  # there is room for it only now
    shown.wait_for("\x1b[J")
    assert max(map(len, last_screen(shown, 120, 30))) > 80
    shown.type("q")
    assert shown.end() == 0


def test_top_ends_at_once_while_the_server_says_nothing(server, terminal):
    server.on("GET", "/admin/v1/load", Answer(raw=b"", before=lambda: server.hold.wait(20)))
    shown = terminal(server, "top")
    shown.wait_for("asking the server")
    wait_for(lambda: server.asked)
    begun = time.monotonic()
    shown.type("q")
    assert shown.end() == 0 and time.monotonic() - begun < 5


def test_top_says_that_news_stay_away_and_goes_on_when_they_come(busy, terminal):
    busy.on("GET", "/admin/v1/load", Answer(200, LOAD), problem(503, "database_away", "the database is away"),
            problem(503, "database_away", "the database is away"), Answer(200, {**LOAD, "users": []}))
    shown = terminal(busy, "top", environ={"QWADM_RETRIES": "0"})
    shown.wait_for("no news for ")
    shown.output = b"\x1b[2J"
    shown.wait_for("none")
    assert not any("no news" in line for line in last_screen(shown))
    shown.type("q")
    assert shown.end() == 0


def test_top_once_prints_one_picture(busy):
    done = busy.command("top", "--once")
    assert done.returncode == 0 and done.stderr == "" and "\x1b" not in done.stdout
    assert re.match(r"qwadm top  \S+Z  http://127\.0\.0\.1:\d+\ngateways 1 live of 1, 0 behind  configuration 42\n", done.stdout)
    assert re.search(r"^qwen3:32b +2 +1 +1\.5 +900 +85 +210ms +800ms +1\.5s +4\.0s +12\.0s$", done.stdout, re.MULTILINE)
    assert json.loads(busy.command("top", "--once", "-o", "json").stdout) == LOAD
    said(busy.command("top"), 2, "top needs a terminal; --once prints one picture anywhere")
    said(busy.command("top", "--once", "--interval", "0s"), 2, "--interval must be 1s to 1h")


# Settings -------------------------------------------------------------------------------------------------------

def test_settings_come_in_their_order(server, folder):
    server.on("GET", "/admin/v1/keys", Answer(200, {"data": [KEY], "next_cursor": None}))
    path = f"{folder}/qwadm.yaml"
    with open(path, "w") as file:
        file.write(f"server: {server.url}\noutput: csv\ntoken: {TOKEN}\n")
    os.chmod(path, 0o600)
    xdg = {"XDG_CONFIG_HOME": folder}
    assert command("", "key", "list", token=None, environ=xdg).stdout.startswith("user,name")
    assert command("", "key", "list", token=None, environ={**xdg, "QWADM_OUTPUT": "json"}).stdout.startswith("[\n")
    assert command("", "key", "list", "-o", "table", token=None, environ={**xdg, "QWADM_OUTPUT": "json"}).stdout.startswith("USER")
    said(command("", "key", "list", token=None, environ={**xdg, "QWADM_TIMEOUT": "soon"}), 2, "qwadm: QWADM_TIMEOUT must be ")
    said(command("", "key", "list", "--timeout", "1", token=None, environ=xdg), 2, "qwadm: --timeout must be ")
    said(command("", "key", "list", "--config", f"{folder}/none", token=None), 2,
         f"{folder}/none: cannot be read: No such file or directory")
