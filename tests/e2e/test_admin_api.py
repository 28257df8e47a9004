"""The admin API of `qwen-control run`: who may what, what is refused and how, and that it stays up whatever comes."""

import concurrent.futures
import contextlib
import http.client
import random
import re
import signal
import socket
import string
import time

import pytest

from conftest import short_folder
from control import Control, part
from processes import open_descriptors
from wire import wait_for

KEY = {"user": "alice", "name": "laptop", "create_user": True}


@pytest.fixture(scope="module")
def shared(session_cluster):
    """One for all that leave nothing behind."""
    with short_folder() as folder:
        control = Control(session_cluster.database(), folder, admin_wrong_tokens=1000000)
        yield control
        control.stop()


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


def test_an_import_is_all_or_nothing(control):
    keys = [{"user": f"u{number % 50}", "name": f"k{number}", "team": "crew" if number < 50 else None} for number in range(300)]
    control.good("POST", "/teams", {"name": "crew"})
    wrong = [dict(key) for key in keys]
    wrong[17]["rpm"] = 0
    wrong[20]["modles"] = ["x"]
    refused = control.call("POST", "/keys/import", {"keys": wrong, "create_users": True})
    assert refused.status == 400
    assert refused["errors"] == [{"pointer": "/keys/17/rpm", "detail": "must be a whole number from 1 to 1000000"},
                                 {"pointer": "/keys/20/modles", "detail": "is not known here"}]
    wrong = [dict(key) for key in keys]
    wrong[299]["name"] = "k249"  # doubled: only the database sees that
    refused = control.call("POST", "/keys/import", {"keys": wrong, "create_users": True})
    assert refused.status == 409 and refused["errors"][0]["pointer"] == "/keys/299/name"
    assert control.all("/keys") == [] and control.all("/users") == []
    keys[0]["secret"], keys[1]["hash"] = "prod-key-2024-qwen3", "ab" * 32
    done = control.good("POST", "/keys/import", {"keys": keys, "create_users": True}, once="import-1")
    assert done["imported"] == 300 and len(done["keys"]) == 298
    assert done["keys"][0] == {"user": "u2", "name": "k2", "prefix": done["keys"][0]["secret"][3:13], "secret": done["keys"][0]["secret"]}
    assert len(control.all("/keys?limit=77")) == 300 and len(control.all("/users")) == 50
    again = control.good("POST", "/keys/import", {"keys": keys, "create_users": True}, once="import-1")
    assert again.json == {"imported": 300, "keys": []} and again.headers["Idempotency-Replayed"] == "true"
    assert len(control.all("/keys")) == 300


# Who may what ---------------------------------------------------------------------------------------------------


def operations(control):
    """(method, path with a name in it, what the document says), of all."""
    document = control.good("GET", "/admin/openapi.json", token=None)
    return [(method.upper(), path.replace("{id}", "0" if "confirmations" in path else "nobody"), operation)
            for path, methods in document["paths"].items() for method, operation in methods.items()]


def test_every_route_holds_every_role_to_what_it_may(control):
    tokens = {role: control.make_token(f"the-{role}", role, expires_in="1h") for role in ("viewer", "billing", "operator", "owner")}
    tried = 0
    for method, path, operation in operations(control):
        if "x-roles" not in operation:
            assert path == "/admin/openapi.json" and operation["security"] == []
            continue
        for role, token in tokens.items():
            answer = control.call(method, path, token=token)
            assert (answer.status == 403) == (role not in operation["x-roles"]), (method, path, role, answer)
            assert answer.status not in (401, 429, 500), (method, path, role, answer)
            tried += 1
        assert control.call(method, path, token=None).status == 401
    assert tried == 4 * 53
    assert all("GET" == method for method, _, operation in operations(control) if "viewer" in operation.get("x-roles", ()))


def test_a_token_ends_and_is_revoked(control, database):
    short, long = control.make_token("short", "viewer", expires_in="60s"), control.make_token("long", "viewer")
    assert control.call("GET", "/whoami", token=long).json.items() >= {"name": "long", "role": "viewer"}.items()
    database.sql("UPDATE qwen.admin_token SET created_at = now() - interval '1 h', expires_at = now() WHERE name = 'short'")
    assert control.call("GET", "/whoami", token=short).status == 401
    assert control.call("DELETE", "/admin-tokens/long").status == 204
    refused = control.call("GET", "/whoami", token=long)
    assert refused.status == 401 and refused.headers["WWW-Authenticate"] == "Bearer" and refused["code"] == "unauthorized"
    assert control.good("GET", "/admin-tokens?name=long")["data"][0]["revoked_at"]


def wrong_token():
    return "qat_" + "".join(random.choices(string.ascii_letters + string.digits, k=43))


def test_a_thousand_wrong_tokens_are_refused_and_right_ones_pass(control):
    answers = [control.call("GET", "/whoami", token=random.choice([wrong_token(), "x", "qat_short", "é" * 20])) for _ in range(1000)]
    assert [answer.status for answer in answers] == [401] * 10 + [429] * 990
    assert all(1 <= int(answer.headers["Retry-After"]) <= 60 for answer in answers[10:])
    assert control.good("GET", "/whoami")["role"] == "owner"
    assert control.call("GET", "/whoami", token=None).status == 401
    assert control.errors.count("with a wrong token") == 1


def logged(control, words, count):
    """The fields of the lines that have these words in them, once there are so many: the log is written a moment later."""
    lines = [line.split() for line in control.errors.splitlines() if words in line]
    return lines if len(lines) >= count else None


def test_behind_a_trusted_proxy_the_caller_is_whom_it_names(start_control):
    control = start_control(admin_trusted_proxies='["127.0.0.1", "10.9.0.0/16"]', admin_wrong_tokens=2)
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.9"):
        control.call("GET", "/whoami", token=wrong_token(), headers={"X-Forwarded-For": f"8.8.8.8, {address}, 10.9.1.1"})
    lines = wait_for(lambda: logged(control, " /admin/v1/whoami ", 7), 30)
    assert [(line[1], line[7]) for line in lines] == [
        ("192.0.2.1", "401"), ("192.0.2.1", "401"), ("192.0.2.1", "429"), ("2001:db8::1", "401"), ("2001:db8::2", "401"),
        ("2001:db8::3", "429"), ("192.0.2.9", "401")]
    control.good("POST", "/teams", {"name": "ops"}, headers={"X-Forwarded-For": "198.51.100.7"})
    assert control.good("GET", "/audit?action=team_create")["data"][0]["address"] == "198.51.100.7"


def test_nobody_else_says_where_a_caller_is(control):
    control.good("POST", "/teams", {"name": "ops"}, headers={"X-Forwarded-For": "198.51.100.7"})
    assert control.good("GET", "/audit?action=team_create")["data"][0]["address"] == "127.0.0.1"


# Two at once ----------------------------------------------------------------------------------------------------


def test_a_lost_update_is_a_conflict(control):
    control.good("POST", "/users", {"name": "alice"})
    one, other = control.good("GET", "/users/alice"), control.good("GET", "/users/alice")
    assert control.good("PATCH", "/users/alice", {"weight": 2}, version=one.version).version == '"2"'
    refused = control.call("PATCH", "/users/alice", {"weight": 3}, version=other.version)
    assert (refused.status, refused["code"]) == (409, "version_conflict")
    assert refused["detail"] == "it was changed by somebody else: it is at version 2, not 1"
    assert control.call("DELETE", "/users/alice", version=other.version).status == 409
    assert control.good("GET", "/users/alice")["weight"] == 2
    for wrong in ("2", '"x"', 'W/"2"', '"0"', '"-1"', '"99999999999"', '""'):
        assert control.call("PATCH", "/users/alice", {"weight": 3}, version=wrong).status == 400, wrong
    assert control.call("PATCH", "/users/alice", {"weight": 3}).status == 428


def at_once(count, act):
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(act, range(count)))


def test_of_many_at_once_one_wins(control):
    control.good("POST", "/users", {"name": "alice"})
    for version in range(1, 6):
        answers = at_once(8, lambda number: control.call("PATCH", "/users/alice", {"note": f"{version} by {number}"},
                                                         version=f'"{version}"'))
        assert sorted(answer.status for answer in answers) == [200] + [409] * 7
    assert control.good("GET", "/users/alice").version == '"6"'


def test_the_same_request_with_the_same_key_is_done_once(control):
    first = control.good("POST", "/keys", KEY, once="abc")
    again = control.good("POST", "/keys", KEY, once="abc")
    assert "Idempotency-Replayed" not in first.headers and again.headers["Idempotency-Replayed"] == "true"
    assert again.status == 201 and again["secret"] is None and first["secret"]
    assert {**again.json, "secret": first["secret"]} == first.json and again.headers["Location"] == first.headers["Location"]
    other = control.call("POST", "/keys", {**KEY, "name": "phone"}, once="abc")
    assert (other.status, other["code"]) == (422, "idempotency_mismatch")
    assert control.call("POST", "/users", {"name": "zoe"}, once="abc").status == 422
    stranger = control.make_token("bob", "operator")
    assert control.call("POST", "/keys", {**KEY, "name": "phone"}, once="abc", token=stranger).status == 201
    assert control.call("POST", "/keys", KEY, once="x" * 256).status == 400
    assert control.call("POST", "/keys", KEY, headers={"Idempotency-Key": "a b"}).status == 400
    answers = at_once(8, lambda _: control.call("POST", "/keys", {**KEY, "name": "many"}, once="many"))
    assert {answer.status for answer in answers} == {201} and len({answer["id"] for answer in answers}) == 1
    assert len([answer for answer in answers if answer["secret"]]) == 1


def test_what_an_idempotency_key_stood_for_is_removed_after_a_day(start_control, database):
    control = start_control(admin_cleanup_interval="50ms")
    control.good("POST", "/teams", {"name": "ops"}, once="abc")
    database.sql("UPDATE qwen.idempotency SET at = now() - interval '25 h'")
    wait_for(lambda: database.sql("SELECT count(*) FROM qwen.idempotency") == "0", 30)


# Lists ----------------------------------------------------------------------------------------------------------


def test_a_list_is_walked_page_by_page_and_a_cursor_is_its_own(control):
    made = {control.good("POST", "/users", {"name": f"user{number:03}", "disabled": number % 2 == 0})["name"] for number in range(60)}
    found = [user["name"] for user in control.all("/users?limit=7")]
    assert len(found) == 60 and set(found) == made
    assert len(control.all("/users?limit=7&disabled=true")) == 30
    cursor = control.good("GET", "/users?limit=7")["next_cursor"]
    assert control.call("GET", f"/users?limit=9&cursor={cursor}").status == 200
    for wrong in (f"/teams?cursor={cursor}", f"/users?disabled=true&cursor={cursor}", f"/users?cursor={cursor[:-2]}",
                  f"/users?cursor=A{cursor}", "/users?cursor=", f"/users?cursor={'A' * 5000}"):
        answer = control.call("GET", wrong)
        assert answer.status == 400 and answer["errors"][0]["parameter"] == "cursor", answer


@pytest.mark.parametrize("query,parameter,detail", [
    ("limit=0", "limit", "must be a whole number from 1 to 1000"),
    ("limit=1001", "limit", "must be a whole number from 1 to 1000"),
    ("limit=1&limit=2", "limit", "is there twice"),
    ("name=a&name=b", "name", "is there twice"),
    ("disabled=maybe", "disabled", "must be true or false"),
    ("colour=red", "colour", "is not known here"),
    ("name=%zz", "?", "is not well formed: it has a bad escape, a zero byte or no UTF-8"),
    ("name=%ff", "?", "is not well formed: it has a bad escape, a zero byte or no UTF-8"),
    ("name=%00", "?", "is not well formed: it has a bad escape, a zero byte or no UTF-8"),
])
def test_a_wrong_query_is_named(shared, query, parameter, detail):
    answer = shared.call("GET", f"/users?{query}")
    assert answer.status == 400 and answer["errors"] == [{"parameter": parameter, "detail": detail}]


# Bad input ------------------------------------------------------------------------------------------------------


NASTY = ["'; DROP TABLE qwen.app_user; --", "\" OR 1=1", "$1", "%s%n", "\\", "a\u0000b", "\u202egnp.exe", "\u2066x\u2069", "\u2028",
         "\x1b[2J", "é" * 1001, "x" * (1 << 20), "\ud800", "../../etc/passwd", "<script>", "", " "]


def texts(schema, schemas, path=()):
    """Where in a body text may stand."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rsplit("/", 1)[1]]
    kinds = schema.get("type", ())
    if "string" in kinds and "enum" not in schema:
        yield path
    if "array" in kinds and "items" in schema:
        yield from texts(schema["items"], schemas, (*path, 0))
    for name, one in schema.get("properties", {}).items():
        yield from texts(one, schemas, (*path, name))
    for one in [*schema.get("anyOf", ()), *schema.get("oneOf", ())]:
        yield from texts(one, schemas, path)


def body_with(path, value):
    for step in reversed(path):
        value = [value] if step == 0 else {step: value}
    return value


def test_nothing_that_can_be_written_disturbs_any_text(control, database):
    """Every text of every body, every name in a path and every filter."""
    document = control.good("GET", "/admin/openapi.json", token=None)
    schemas, tried = document["components"]["schemas"], 0
    with contextlib.closing(control.connect()) as wire:
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                content = operation.get("requestBody", {}).get("content", {}).get("application/json")
                named = path.replace("{id}", "slow_start" if "settings" in path else "nobody")
                for place in set(texts(content["schema"], schemas)) if content else ():
                    for nasty in NASTY:
                        answer = control.call(method.upper(), named, body_with(place, nasty), version="*", connection=wire)
                        assert answer.status in (400, 404), (path, place, nasty[:40], answer)
                        tried += 1
                for nasty in NASTY if "{id}" in path and method == "get" and "confirmations" not in path else ():
                    if nasty and "\ud800" not in nasty and len(nasty) < 5000:
                        answer = control.call("GET", path.replace("{id}", part(nasty)), connection=wire)
                        assert answer.status in (400, 404), (path, nasty, answer)
                for parameter in operation["parameters"]:
                    for nasty in NASTY if parameter["in"] == "query" else ():
                        if "\ud800" not in nasty and len(nasty) < 5000:
                            answer = control.call("GET", f"{path.replace('{id}', '0')}?{parameter['name']}={part(nasty)}", connection=wire)
                            assert answer.status in (200, 400), (path, parameter, nasty, answer)
    assert tried > 1000
    assert database.sql("SELECT count(*) FROM qwen.app_user") == "0"
    for number, nasty in enumerate(NASTY[:5] + NASTY[-4:-2]):
        assert control.good("POST", "/teams", {"name": f"t{number}", "note": nasty})["note"] == nasty
        assert control.good("GET", f"/teams/t{number}")["note"] == nasty


@pytest.mark.parametrize("body,status,why", [
    (b"", 400, "a JSON object is needed as the body"),
    (b"{", 400, "the body is not JSON: line 1, column 1: string or '}' expected near end of file"),
    (b"[]", 400, " must be an object, not a list"),
    (b'{"name": "a", "name": "b"}', 400, "the body is not JSON: line 1, column 20: duplicate object key near '\"name\"'"),
    (b'{"name": "\xff"}', 400, "the body is not JSON: line 1, column 10: unable to decode byte 0xff near '\"'"),
    (b"[" * 1000 + b"]" * 1000, 400, "the body is nested deeper than 32 levels"),
    (b'{"name": 1e999}', 400, "the body is not JSON: line 1, column 14: real number overflow near '1e999'"),
    (b'{"name": "a"} x', 400, "the body is not JSON: line 1, column 15: end of file expected near 'x'"),
    (b"{" + b" " * (4 << 20) + b"}", 413, "a body has at most 4194304 bytes"),
])
def test_a_body_that_is_no_json_is_named(shared, body, status, why):
    answer = shared.call("POST", "/users", body)
    assert (answer.status, answer["detail"]) == (status, why)


def test_a_body_has_a_type(shared):
    for kind, status in (("application/json; charset=utf-8", 400), ("text/plain", 415), ("", 415), ("application/merge-patch+json", 415)):
        assert shared.call("POST", "/users", {}, headers={"Content-Type": kind}).status == status, kind
    patch = shared.call("PATCH", "/users/nobody", {"weight": 2}, version="*", headers={"Content-Type": "application/merge-patch+json"})
    assert patch.status == 404


def test_answers_have_what_they_are_known_by(shared):
    answer = shared.call("GET", "/whoami", headers={"X-Request-Id": "mine-1.2"})
    assert answer.headers["X-Request-Id"] == "mine-1.2" and answer.headers["Cache-Control"] == "no-store"
    for sent in ("a b", "x" * 65, "é", ""):
        made = shared.call("GET", "/nothing", headers={"X-Request-Id": sent.encode()})
        assert re.fullmatch("[a-z]{24}", made.headers["X-Request-Id"]) and made["request_id"] == made.headers["X-Request-Id"]
        assert made.headers["Content-Type"] == "application/problem+json"
    wait_for(lambda: logged(shared, made.headers["X-Request-Id"], 1), 30)
    assert re.search(r"^owner 127\.0\.0\.1 \S+Z req=mine-1\.2 key=owner GET /admin/v1/whoami 200 response_time=\d\.\d{3}$",
                     shared.errors, re.M)
    assert re.search(r"^!127\.0\.0\.1 127\.0\.0\.1 \S+Z req=[a-z]{24} key=- GET /admin/v1/nothing 404 response_time=\S+ "
                     r"why=not_found$", shared.errors, re.M)


# Bad HTTP -------------------------------------------------------------------------------------------------------


def raw(control, *pieces, timeout=30):
    """All that comes back until the other side closes."""
    with control.dial(timeout) as wire:
        for piece in pieces:
            wire.sendall(piece)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while more := wire.recv(65536):
                got += more
    return got


POST = b"POST /admin/v1/users HTTP/1.1\r\n"
GARBAGE = [
    b"\r\n\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
    b"GET  /  HTTP/1.1\r\n\r\n", b"GET /admin/v1/whoami HTTP/1.1\r\nNo colon\r\n\r\n", b"GET / HTTP/1.1\r\n folded: first\r\n\r\n",
    b"\x00" * 4096, POST + b"Content-Length: -1\r\n\r\n", POST + b"Content-Length: 99999999999999999999\r\n\r\n",
    POST + b"Content-Length: 5x\r\n\r\nhello", POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", b"A" * 20000 + b"\r\n\r\n",
    b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5000 + b"\r\n",
    POST + b"Expect: a miracle\r\nContent-Length: 2\r\n\r\n{}",
]


@pytest.mark.parametrize("sent", GARBAGE, ids=lambda sent: repr(sent[:24]))
def test_garbage_is_refused_and_harms_nobody(shared, sent):
    with shared.dial() as wire:
        wire.sendall(sent)
        wire.shutdown(socket.SHUT_WR)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while more := wire.recv(65536):
                got += more
    assert got == b"" or (re.match(rb"HTTP/1\.[01] (400|401|404|405|413|431) ", got) and b"application/problem+json" in got), got[:500]
    assert shared.good("GET", "/whoami").status == 200


HEAD = b"POST /admin/v1/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize("fields", [
    b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    b"Host: y\r\nContent-Length: 2\r\n\r\n{}", b"Transfer-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\nContent-Length: 2\r\n\r\n{}",
])
def test_what_could_be_read_in_two_ways_is_refused_and_closed(shared, fields):
    got = raw(shared, HEAD + fields + b"GET /admin/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 400 ") and b"Connection: close" in got and got.count(b"HTTP/1.1") == 1, got


@pytest.mark.parametrize("method", [b"HEAD", b"TRACE", b"QUERY", b"BREW"])
def test_a_body_that_nobody_reads_is_no_request(shared, method):
    """evhttp reads none for these: what follows must not be taken for the next request."""
    inside = b"GET /admin/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    got = raw(shared, method + b" /admin/v1/users HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(inside) + inside)
    assert got.startswith(b"HTTP/1.1 405 ") and got.count(b"HTTP/1.1") == 1, got[:300]


def test_who_sends_too_much_reads_why(shared):
    """Announced or in pieces; and the answer is not lost in a reset, although most of it was never read."""
    block = b"x" * 65536
    for fields, pieces in (
            (b"Content-Length: 50000000\r\n\r\n", [block] * 160),
            (b"Transfer-Encoding: chunked\r\n\r\n", [b"10000\r\n" + block + b"\r\n"] * 160)):
        got = raw(shared, HEAD + fields, *pieces)
        assert got.startswith(b"HTTP/1.1 413 ") and got.endswith(b'"errors":[]}') and b'"code":"payload_too_large"' in got, got[:300]


def test_requests_follow_each_other_on_one_connection(shared):
    one = b"GET /admin/v1/whoami HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % shared.token.encode()
    got = raw(shared, (one + b"\r\n") * 20 + one + b"Connection: close\r\n\r\n")
    assert got.count(b"HTTP/1.1 200 OK") == 21
    with shared.dial() as wire:
        wire.sendall(HEAD + b"Authorization: Bearer %s\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n" % shared.token.encode())
        assert wire.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.sendall(b"{}")
        assert wire.recv(65536).startswith(b"HTTP/1.1 400 ")
    whole = (one + b"Connection: close\r\n\r\n")
    got = raw(shared, *[whole[i:i + 1] for i in range(len(whole))])
    assert got.startswith(b"HTTP/1.1 200 ")


# Slow and many --------------------------------------------------------------------------------------------------


def test_who_is_slow_is_cut(start_control):
    control = start_control(admin_request_timeout="400ms", admin_linger_timeout="200ms", admin_write_timeout="400ms")
    assert raw(control) == b""  # silent
    with control.dial() as wire:
        began = time.monotonic()
        got = b""
        wire.settimeout(0.05)
        while not got and time.monotonic() - began < 20:
            with contextlib.suppress(OSError):
                wire.sendall(b"G")
                got = wire.recv(65536)
        assert got.startswith(b"HTTP/1.1 408 ") and b'"code":"request_timeout"' in got
    got = raw(control, HEAD + b"Content-Length: 100\r\n\r\n{")
    assert got.startswith(b"HTTP/1.1 408 ")
    with contextlib.closing(control.connect()) as wire:  # between two requests it is closed without a word
        assert control.call("GET", "/whoami", connection=wire).status == 200
        assert wire.sock.recv(1) == b""


def test_who_does_not_read_is_cut(start_control):
    control = start_control(with_unix=True, admin_write_timeout="300ms")
    keys = [{"user": "alice", "name": f"k{number}", "note": "x" * 1000} for number in range(1000)]
    with contextlib.closing(control.connect()) as kept, control.dial() as wire:
        control.good("POST", "/keys/import", {"keys": keys, "create_users": True}, connection=kept)
        wire.sendall(b"GET /admin/v1/keys?limit=1000 HTTP/1.1\r\nAuthorization: Bearer %s\r\n\r\n" % control.token.encode())
        assert wire.recv(1) == b"H"
        connected = open_descriptors(control.process.pid)
        wait_for(lambda: open_descriptors(control.process.pid) < connected, 30)
        with contextlib.suppress(ConnectionResetError):
            got = len(b"".join(iter(lambda: wire.recv(1 << 20), b"")))
        whole = control.good("GET", "/keys?limit=1000", connection=kept)
    assert len(whole["data"]) == 1000 and got < len(whole.text)


def test_many_silent_connections_leave_room_for_others(start_control):
    control = start_control(admin_max_connections=8)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(control.dial()) for _ in range(8)]
        for _ in range(3):
            wait_for(lambda: is_answered(control), 30)
        assert sum(is_closed(wire) for wire in silent) >= 1
        many = [stack.enter_context(control.dial()) for _ in range(200)]
        wait_for(lambda: is_answered(control), 30)
        assert sum(is_closed(wire) for wire in many) >= 190
    assert is_answered(control)


WAIT = "GET /admin/v1/confirmations/1000000000?wait=60s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n"


def waiting(stack, control, count, token=None):
    """Connections that ask to wait for what does not come."""
    wires = [stack.enter_context(control.dial()) for _ in range(count)]
    for wire in wires:
        with contextlib.suppress(OSError):
            wire.sendall((WAIT % (token or control.token)).encode())
    return wires


def test_those_who_wait_for_gateways_leave_room_for_others(start_control):
    control = start_control(admin_max_connections=16)
    viewer = control.make_token("watcher", "viewer")
    with contextlib.ExitStack() as stack:
        wires = [wire for _ in range(8) for wire in waiting(stack, control, 2, viewer)]
        wait_for(lambda: sum(not is_waiting(wire) for wire in wires) == 12, 30, "four places for a token")
        told = next(wire for wire in wires if not is_waiting(wire)).recv(65536)
        assert b" 503 " in told and b'"code":"overloaded"' in told and b"Retry-After: " in told and b"Connection: close" in told
        for _ in range(20):
            assert control.call("GET", "/status").status == 200
        assert control.good("GET", "/confirmations/0?wait=60s", timeout=10)["pending"] == []


def test_one_that_waits_gives_way_where_all_connections_are_taken(start_control):
    control = start_control(admin_max_connections=4)
    viewer = control.make_token("watcher", "viewer")
    with contextlib.ExitStack() as stack:
        first = waiting(stack, control, 1) + waiting(stack, control, 1, viewer)
        kept = [stack.enter_context(contextlib.closing(control.connect())) for _ in range(2)]
        for wire in kept:
            assert control.call("GET", "/status", connection=wire).status == 200
        assert all(map(is_waiting, first))
        assert control.call("GET", "/status").status == 200
        told = wait_for(lambda: [wire for wire in first if not is_waiting(wire)], 10, "that one gives way")
        assert b'"code":"overloaded"' in told[0].recv(65536)


@pytest.mark.parametrize("ahead", [b"", b"GET /admin/openapi.json HTTP/1.1\r\n\r\n"], ids=["", "with a request sent ahead"])
def test_who_leaves_while_waiting_gives_the_place_back(start_control, ahead):
    control = start_control(with_unix=True, admin_max_waits=2)  # one for a token
    for how in (socket.SHUT_WR, socket.SHUT_RDWR) * 4:
        with contextlib.ExitStack() as stack:
            before = control.errors.count(" 499 ")
            wire, = waiting(stack, control, 1)
            wire.sendall(ahead)
            wire.shutdown(how)
            wait_for(lambda: control.errors.count(" 499 ") == before + 1, 10, "that it left is seen")
        assert control.call("GET", "/confirmations/1000000000?wait=1ms").status == 200


def is_answered(control):
    try:
        return control.call("GET", "/whoami").status == 200
    except (OSError, http.client.HTTPException):
        return False


def is_closed(wire):
    wire.settimeout(0)
    try:
        return wire.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_bodies_that_are_being_received_have_a_limit_together(start_control):
    control = start_control(admin_max_body_memory_bytes="1MiB")
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(control.dial()) for _ in range(4)]
        for wire in wires:
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                wire.sendall(HEAD + b"Content-Length: 600000\r\n\r\n" + b"x" * 500000)
        assert control.good("GET", "/whoami").status == 200
        answered = wait_for(lambda: [wire for wire in wires if not is_waiting(wire)], 30)
        assert answered and b'"code":"overloaded"' in answered[0].recv(65536)


def is_waiting(wire):
    wire.settimeout(0)
    try:
        return not wire.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True


# The database ---------------------------------------------------------------------------------------------------


def test_the_database_goes_away_and_comes_back(start_control, cluster):
    control = start_control(database_wait_timeout="300ms")
    control.good("POST", "/users", {"name": "alice"})
    stranger = control.make_token("late", "viewer")
    cluster.stop(signal.SIGQUIT)
    try:
        for method, path, body in (("GET", "/users/alice", None), ("GET", "/users", None), ("POST", "/users", {"name": "bob"})):
            answer = control.call(method, path, body)
            assert (answer.status, answer["code"], answer.headers["Retry-After"]) == (503, "database_away", "1"), answer
        status = wait_for(lambda: control.call("GET", "/status"), 30)
        assert status.status == 200 and status["database"]["up"] is False and "connection" in status["database"]["reason"]
        assert control.call("GET", "/load").status == 200 and control.call("GET", "/whoami")["name"] == "owner"
        assert control.call("GET", "/status", token=stranger).status == 503  # it was never seen to be good
        assert control.call("GET", "/status", token=wrong_token()).status == 503
    finally:
        cluster.start()
    wait_for(lambda: control.call("POST", "/users", {"name": "bob"}).status in (201, 409), 30)
    assert control.good("GET", "/status")["database"] == {"up": True, "reason": ""}
    assert {user["name"] for user in control.all("/users")} == {"alice", "bob"}


def test_what_was_asked_before_the_stop_is_answered(control, database):
    lock = database.session()
    lock.do("BEGIN; SELECT version FROM qwen.config_head FOR UPDATE")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(control.call, "POST", "/keys", KEY)
        wait_for(lambda: database.waiting() == 1, 30)
        control.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "stopping; what was asked is still answered" in control.errors, 30)
        lock.do("COMMIT")
        assert asked.result(30).status == 201
    assert control.process.wait(30) == 0
    lock.close()


def test_what_takes_too_long_at_the_stop_is_cut(start_control, database):
    control = start_control(admin_drain_timeout="200ms")
    lock = database.session()
    lock.do("BEGIN; SELECT version FROM qwen.config_head FOR UPDATE")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(control.call, "POST", "/keys", KEY)
        wait_for(lambda: database.waiting() == 1, 30)
        control.process.send_signal(signal.SIGTERM)
        with pytest.raises((http.client.HTTPException, OSError)):
            asked.result(30)
    control.stop()
    assert "1 requests are cut" in control.errors
    lock.close()


def test_of_two_control_planes_one_leads_and_the_other_says_so(control, database):
    with short_folder() as folder:
        second = Control(database, folder, ready=False)
        second.token = control.token
        second.start(leads=False)
        try:
            status = wait_for(lambda: second.good("GET", "/status")["leader"], 30)
            wait_for(lambda: second.good("GET", "/status")["leader"]["holder"], 30)
            status = second.good("GET", "/status")["leader"]
            assert status["state"] == "follows" and str(control.port) in status["holder"]
            control.good("POST", "/users", {"name": "alice"})
            assert second.good("GET", "/users/alice")["name"] == "alice"
            for method, path, body in (("POST", "/users", {"name": "bob"}), ("PATCH", "/users/alice", {"weight": 2}),
                                       ("DELETE", "/users/alice", None)):
                refused = second.call(method, path, body, version="*")
                assert (refused.status, refused["code"]) == (503, "not_leader") and str(control.port) in refused["detail"]
            control.stop()
            wait_for(lambda: second.call("POST", "/users", {"name": "bob"}).status in (201, 409), 30)
        finally:
            second.stop()


# Gateways -------------------------------------------------------------------------------------------------------


def test_status_load_and_confirmations_without_a_gateway(control):
    made = control.good("POST", "/users", {"name": "alice"})
    made = control.good("POST", "/keys", KEY)
    status = control.good("GET", "/status")
    assert status["gateways"] == {"enrolled": 0, "live": 0, "behind": 0} and status["leader"]["state"] == "leads"
    wait_for(lambda: control.good("GET", "/status")["config_version"] == made.config_version, 30)
    load = control.good("GET", "/load")
    assert (load["gateways"], load["models"], load["users"]) == ([], [], [])
    confirmed = control.good("GET", f"/confirmations/{made.config_version}?wait=2s")
    assert confirmed.json == {"version": made.config_version, "confirmed": [], "pending": []}
    for wrong in ("x", "-1", "1.5", "9" * 19, "1?wait=x", "1?wait=61s", "1?wait=1s&wait=1s", "1?limit=3"):
        assert control.call("GET", f"/confirmations/{wrong}").status == 400, wrong


def test_a_gateway_is_enrolled_noted_and_removed(control):
    made = control.good("POST", "/gateways", {"name": "gw1"})
    assert made["secret"].startswith("qen_") and made["enrolled"] is False
    again = control.good("POST", "/gateways", {"name": "gw1", "expires_in": "1h"})
    assert again["id"] == made["id"] and again["secret"] != made["secret"]
    noted = control.good("PATCH", "/gateways/gw1", {"note": "rack 3"}, version=again.version)
    assert noted["note"] == "rack 3"
    assert control.call("DELETE", "/gateways/gw1", version=noted.version).status == 204
    assert control.call("GET", "/gateways/gw1").status == 404 and control.good("GET", f"/gateways/{made['id']}")["removed_at"]
    assert made["secret"] not in control.errors and again["secret"] not in control.errors
