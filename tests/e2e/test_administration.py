"""
What the control plane owns and who may change it how: the functions of migrations/0004 through the ledger, as the role
that the running control plane has.
"""

import json
import random
import re
import time
import uuid

import pytest

from administration import Ledger, Refused, followed, hash_of, published
from wire import wait_for

USER = ["id", "name", "team", "weight", "class", "disabled", "note", "keys", "version", "created_at", "updated_at"]
TEAM = ["id", "name", "note", "users", "version", "created_at", "updated_at"]
KEY = ["id", "user", "team", "name", "prefix", "state", "expires_at", "models", "rpm", "max_concurrent", "allow", "delegate",
       "replaced_by", "note", "version", "created_at", "updated_at", "revoked_at"]
MODEL = ["name", "alias_of", "backend_model", "num_ctx", "keep_alive", "max_prompt_chars", "max_system_chars", "think", "preload",
         "note", "version", "created_at", "updated_at"]
BACKEND = ["name", "url", "kind", "slots", "models", "weight", "drain", "note", "version", "created_at", "updated_at"]
GATEWAY = ["id", "name", "enrolled", "enroll_expires_at", "last_seen", "desired_version", "applied_version", "apply_error", "software",
           "features", "address", "resyncing", "note", "version", "created_at", "removed_at"]
TOKEN = ["id", "name", "role", "created_at", "expires_at", "revoked_at", "last_used_at"]
AUDIT = ["id", "at", "actor", "token_id", "address", "request_id", "action", "noun", "object_id", "before", "after"]
TIME = re.compile(r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$")


@pytest.fixture
def database(database):
    done = database.control("migrate")
    assert done.returncode == 0, done.stderr
    return database


@pytest.fixture
def ledger(database):
    ledger = Ledger(database)
    yield ledger
    ledger.close()


@pytest.fixture
def alice(ledger):
    ledger.change("team_create", body={"name": "red"})
    return ledger.change("user_create", body={"name": "alice", "team": "red", "weight": 3})


FIRST = 1  # the version of a database in which nothing was said yet


def head(database):
    """How many versions were made since."""
    return int(database.sql("SELECT version FROM qwen.config_head")) - FIRST


def refused(ledger, *asked, **more):
    answer = ledger.tried(*asked, **more)
    assert answer["err"] == "refused", answer
    assert answer["detail"] and "\n" not in answer["detail"] and len(answer["detail"]) < 300
    return answer["status"], answer["code"], answer["pointer"]


# What is shown ------------------------------------------------------------------------------------------------

def test_each_noun_is_made_shown_changed_listed_and_gone(ledger, database):
    team = ledger.change("team_create", body={"name": "red", "note": "für alle"})
    assert list(team) == TEAM and team == ledger.get("team", "red") == ledger.get("team", team["id"]) and team["users"] == 0
    user = ledger.change("user_create", body={"name": "alice", "team": "red", "class": "batch"})
    assert list(user) == USER and (user["team"], user["weight"], user["class"], user["disabled"], user["keys"], user["version"]) == (
        "red", 1, "batch", False, 0, 1)
    assert TIME.match(user["created_at"])
    key = ledger.key("alice", "laptop", expires_in="90d", models=["Qwen3:32B", "library/llama3"], rpm=30, allow=["10.0.0.0/16", "::1"])
    assert list(key) == KEY and (key["user"], key["team"], key["state"], key["rpm"]) == ("alice", "red", "active", 30)
    assert key["models"] == ["qwen3:32b", "llama3:latest"] and key["allow"] == ["10.0.0.0/16", "::1/128"]
    assert TIME.match(key["expires_at"])
    assert ledger.get("user", "alice")["keys"] == 1 and ledger.get("team", "red")["users"] == 1
    for name in (key["id"], key["prefix"], "alice/laptop", user["id"] + "/laptop"):
        assert ledger.get("key", name) == key
    model = ledger.change("model_create", body={"name": "Qwen3:32B", "num_ctx": 4096, "keep_alive": -1, "think": False})
    assert list(model) == MODEL and (model["name"], model["keep_alive"], model["think"]) == ("qwen3:32b", "-1", False)
    assert ledger.get("model", "QWEN3:32b") == model
    backend = ledger.change("backend_create", body={"name": "gpu1", "url": "http://10.0.0.5:11434", "slots": 4})
    assert list(backend) == BACKEND and backend["kind"] == "ollama" and backend["weight"] == 1
    range = ledger.change("whitelist_create", body={"cidr": "192.0.2.7", "note": "office"})
    assert list(range) == ["cidr", "note", "version", "created_at", "updated_at"] and range["cidr"] == "192.0.2.7/32"
    assert ledger.get("whitelist", "192.0.2.7") == ledger.get("whitelist", "192.0.2.7/32") == range
    setting = ledger.change("setting_put", "rate_limit.max_requests", {"value": 60})
    assert list(setting) == ["name", "value", "version", "created_at", "updated_at"] and setting["value"] == 60
    gateway = ledger.change("gateway_create", body={"name": "edge1", "hash": hash_of("e")})
    assert list(gateway) == GATEWAY and not gateway["enrolled"] and gateway["enroll_expires_at"]
    token = ledger.change("admin_token_create", body={"name": "root", "role": "owner", "hash": hash_of("t"), "expires_in": "24h"})
    assert list(token) == TOKEN and token["role"] == "owner"

    changes = [("team", "red", {"note": "x"}), ("user", "alice", {"weight": 7}), ("key", "alice/laptop", {"rpm": None}),
               ("model", "qwen3:32b", {"num_ctx": 8192}), ("backend", "gpu1", {"drain": True}), ("whitelist", "192.0.2.7/32", {"note": ""}),
               ("gateway", "edge1", {"note": "rack 4"})]
    for noun, object, patch in changes:
        before = ledger.get(noun, object)
        after = ledger.change(f"{noun}_update", object, patch, before["version"])
        assert after == {**before, **patch, "version": before["version"] + 1, "updated_at": after.get("updated_at"),
                         } if "updated_at" in after else {**before, **patch, "version": before["version"] + 1}
        assert ledger.get(noun, object) == after and after in ledger.all(noun)
        assert ledger.change(f"{noun}_update", object, patch, after["version"]) == after, "nothing new is no new version"
    assert ledger.change("setting_put", "rate_limit.max_requests", {"value": [1]}, 1)["version"] == 2

    for action, object in [("key_revoke", "alice/laptop"), ("user_delete", "alice"), ("team_delete", "red"), ("model_delete", "qwen3:32b"),
                           ("backend_delete", "gpu1"), ("whitelist_delete", "192.0.2.7"), ("setting_delete", "rate_limit.max_requests"),
                           ("gateway_remove", "edge1"), ("admin_token_revoke", "root")]:
        noun = action.rsplit("_", 1)[0]
        ledger.change(action, object)
        if noun in ("key", "admin_token"):
            assert ledger.get(noun, key["id"] if noun == "key" else object)["revoked_at"]
        else:
            assert ledger.get(noun, object) is None and ledger.all(noun) == []
    assert ledger.get("gateway", gateway["id"])["removed_at"]
    assert published(database) == followed(database) == {}


def test_what_is_not_there_is_told_by_name_where_that_hurts_nobody(ledger):
    for noun, words in (("user", "user"), ("key", "key"), ("whitelist", "range"), ("audit", "entry"), ("admin_token", "token")):
        answer = ledger.answer(ledger.begin("get", noun=noun, object="nobody"))
        assert (answer["status"], answer["code"], answer["detail"]) == (404, "not_found", f"there is no {words} nobody")
        answer = ledger.answer(ledger.begin("get", noun=noun, object="\u202enobody\x1b[31m"))
        assert (answer["status"], answer["detail"]) == (404, f"there is no such {words}")
    for action in ("user_update", "team_delete", "key_revoke", "key_rotate", "whitelist_update", "model_delete", "backend_update",
                   "setting_delete", "gateway_remove", "gateway_resync", "admin_token_revoke"):
        assert refused(ledger, action, str(uuid.uuid4()), {})[:2] == (404, "not_found")
        assert refused(ledger, action, "x" * (1 << 20), {})[:2] == (404, "not_found")


# What is refused ----------------------------------------------------------------------------------------------

K = {"user": "alice", "name": "k", "hash": "a" * 64}
T = {"name": "x", "hash": "b" * 64, "role": "owner", "expires_in": "1d"}
ODD_TEXTS = ["Robert'); DROP TABLE team;--", "a\u0000b", "\u202eevil", "x" * (1 << 20), "a\nb", "", "a b", "Ä", " a", "*"]
ODD_NOTES = ["a\u0000b", "\u202eevil", "x" * (1 << 20), "a\nb", 7]
NOTED = [("team", "red"), ("user", "alice"), ("key", "alice/laptop"), ("model", "qwen3"), ("backend", "gpu1"), ("whitelist", "10.0.0.0/8"),
         ("gateway", "edge1")]


def bad(action, pointer, *bodies, object="", code="bad_value", status=400):
    return [(action, object, body, status, code, pointer) for body in bodies]


def there(action, pointer, *bodies):
    return bad(action, pointer, *bodies, code="already_exists", status=409)


def odd(action, pointer, body):
    """Each odd text in the place of None."""
    def put(value, text):
        if isinstance(value, dict):
            return {name: put(below, text) for name, below in value.items()}
        if isinstance(value, list):
            return [put(below, text) for below in value]
        return text if value is None else value
    return bad(action, pointer, *(put(body, text) for text in ODD_TEXTS))


WRONG = [
    *odd("team_create", "/name", {"name": None}),
    *odd("user_create", "/name", {"name": None}),
    *odd("key_create", "/name", {**K, "name": None}),
    *odd("key_create", "/user", {**K, "user": None}),
    *odd("key_create", "/user", {**K, "user": None, "create_user": True}),
    *odd("key_create", "/models/1", {**K, "models": ["m", None]}),
    *odd("key_create", "/allow/1", {**K, "allow": ["::/0", None]}),
    *odd("key_create", "/expires_at", {**K, "expires_at": None}),
    *odd("key_create", "/expires_in", {**K, "expires_in": None}),
    *odd("key_create", "/prefix", {**K, "prefix": None}),
    *odd("key_create", "/hash", {**K, "hash": None}),
    *odd("whitelist_create", "/cidr", {"cidr": None}),
    *odd("model_create", "/name", {"name": None}),
    *odd("model_create", "/backend_model", {"name": "m", "backend_model": None}),
    *odd("model_create", "/keep_alive", {"name": "m", "keep_alive": None}),
    *odd("backend_create", "/name", {"name": None, "url": "http://x"}),
    *odd("backend_create", "/url", {"name": "x", "url": None}),
    *odd("gateway_create", "/name", {"name": None, "hash": "b" * 64}),
    *odd("admin_token_create", "/name", {**T, "name": None}),
    *odd("admin_token_create", "/role", {**T, "role": None}),
    *(case for noun, object in NOTED for case in bad(f"{noun}_update", "/note", *({"note": note} for note in ODD_NOTES), object=object)),

    *bad("setting_put", "", {"value": 1}, object="Bad Name"),
    *bad("setting_put", "", {"value": 1}, object="x" * (1 << 20)),
    *bad("setting_put", "/value", {"value": "x" * (1 << 20)}, {}, {"value": None}, {"value": {"a\u0000b": 1}}, object="a"),
    *bad("setting_put", "/value/b/0", {"value": {"b": ["a\u0000b"]}}, object="a"),

    *bad("team_create", "/name", {"name": str(uuid.uuid4())}, {}, {"name": None}, {"name": ["x"]}),
    *bad("team_create", "", [], '{"name": "a"', '{"name": "a", "name": "b"}', "[" * 200, {"name": "x", "a b": 1}),
    *bad("team_create", "/colour", {"name": "x", "colour": "red"}),
    *bad("team_update", "/version", {"version": 1}, object="red"),
    *bad("team_update", "/name", {"name": None}, object="red"),
    *bad("team_delete", "", None, object="red", code="in_use", status=409),
    *there("team_create", "/name", {"name": "red"}),

    *bad("user_create", "/team", {"name": "bob", "team": "green"}),
    *bad("user_create", "", '{"name": "bob", "weight": 1e400000}'),
    *bad("user_create", "/weight", *({"name": "bob", "weight": weight} for weight in (0, 1.5, "1", 1e300, 1001))),
    *bad("user_create", "/class", {"name": "bob", "class": "vip"}),
    *bad("user_create", "/disabled", {"name": "bob", "disabled": "no"}),
    *there("user_create", "/name", {"name": "alice"}),

    *bad("key_create", "/user", {**K, "user": "nobody"}),
    *bad("key_create", "/rpm", {**K, "rpm": 0}),
    *bad("key_create", "/hash", {**K, "hash": None}),
    *bad("key_create", "/max_concurrent", {**K, "max_concurrent": 1000001}),
    *bad("key_create", "/delegate", {**K, "delegate": 1}),
    *bad("key_create", "/models", *({**K, "models": models} for models in ([], "m", [None], ["m"] * 1001))),
    *bad("key_create", "/models/0", {**K, "models": ["qwen3:cloud"]}, {**K, "models": [7]}),
    *bad("key_create", "/allow/0", *({**K, "allow": [range]} for range in ("10.0.0.1/8", "10", "10.0.0.256", 1, "10.0.0.0/33", "::1/129"))),
    *bad("key_create", "/expires_at", *({**K, "expires_at": time} for time in
                                        ("2020-01-01T00:00:00Z", "2030-02-30T00:00:00Z", "9999-12-31T00:00:00Z", "2030-01-01",
                                         "2030-01-01T25:00:00Z", "infinity"))),
    *bad("key_create", "/expires_in", *({**K, "expires_in": time} for time in ("0s", "999999999d", "-1d", "1w")),
         {**K, "expires_at": "2030-01-01T00:00:00Z", "expires_in": "1d"}),
    *bad("key_create", "/secret", {**K, "secret": "qk_x"}),
    *there("key_create", "/name", {**K, "name": "laptop"}),
    *there("key_create", "/hash", {**K, "hash": hash_of("one")}, {**K, "hash": hash_of("two")}),
    *there("key_create", "/prefix", {**K, "prefix": "0neKeyId00"}),
    *bad("key_update", "/user", {"user": "bob"}, object="alice/laptop"),
    *bad("key_update", "/hash", {"hash": "a" * 64}, object="alice/laptop"),
    *bad("key_update", "", {"rpm": 1}, object="alice/gone", code="gone", status=410),
    *bad("key_rotate", "", {"hash": "c" * 64}, object="alice/gone", code="gone", status=410),
    *bad("key_rotate", "/hash", {}, object="alice/laptop"),
    *bad("key_rotate", "/keep_for", {"hash": "c" * 64, "keep_for": "400d"}, object="alice/laptop"),
    *bad("key_revoke", "/cut", {"cut": 1}, object="alice/laptop"),
    *bad("key_import", "/keys", {}, {"keys": []}, {"keys": [{}] * 1001}),

    *there("whitelist_create", "/cidr", {"cidr": "10.0.0.0/8"}),
    *bad("whitelist_create", "/cidr", {}, {"cidr": "10"}),
    *bad("whitelist_update", "/cidr", {"cidr": "::/0"}, object="10.0.0.0/8"),

    *there("model_create", "/name", {"name": "Qwen3:Latest"}),
    *bad("model_delete", "", None, object="qwen3", code="in_use", status=409),
    *bad("model_create", "/alias_of", *({"name": "m", "alias_of": model} for model in ("nothing", "fast", "m"))),
    *bad("model_update", "/alias_of", {"alias_of": "other"}, object="qwen3"),
    *bad("model_create", "/num_ctx", {"name": "m", "num_ctx": 3}, {"name": "m", "alias_of": "qwen3", "num_ctx": 5}),
    *bad("model_create", "/backend_model", {"name": "m", "backend_model": "x:cloud"}),

    *there("backend_create", "/name", {"name": "gpu1", "url": "http://x"}),
    *there("backend_create", "/url", {"name": "g", "url": "http://gpu1"}),
    *bad("backend_create", "/url", {"name": "g", "url": "http://me:x@h"}, {"name": "g"}),
    *bad("backend_update", "/slots", {"slots": 1001}, object="gpu1"),
    *bad("backend_update", "/kind", {"kind": "openai"}, object="gpu1"),

    *bad("gateway_create", "/expires_s", {"name": "e", "hash": "b" * 64, "expires_s": 5}),
    *bad("gateway_update", "/name", {"name": "e"}, object="edge1"),
    *bad("admin_token_create", "/expires_in", {"name": "x", "hash": "b" * 64, "role": "owner"}),
    *bad("admin_token_create", "/hash", {**T, "hash": "b" * 63}),
]


@pytest.fixture
def furnished(ledger, alice):
    ledger.change("key_create", body={"user": "alice", "name": "laptop", "hash": hash_of("one"), "prefix": "0neKeyId00"})
    ledger.change("key_create", body={"user": "alice", "name": "gone", "hash": hash_of("two")})
    ledger.change("key_revoke", "alice/gone")
    ledger.change("model_create", body={"name": "qwen3", "num_ctx": 4096})
    ledger.change("model_create", body={"name": "other"})
    ledger.change("model_create", body={"name": "fast", "alias_of": "qwen3"})
    ledger.change("backend_create", body={"name": "gpu1", "url": "http://gpu1"})
    ledger.change("whitelist_create", body={"cidr": "10.0.0.0/8"})
    ledger.change("gateway_create", body={"name": "edge1", "hash": hash_of("e")})
    return ledger


def test_what_cannot_be_is_refused_with_a_sentence_that_points_at_it(furnished, database):
    before = database.sql("SELECT (SELECT version FROM qwen.config_head), (SELECT count(*) FROM qwen.audit_log)")
    asked = [(case, furnished.begin_change(*case[:3])) for case in WRONG]
    wrong = []
    for (action, object, body, *wanted), id in asked:
        answer = furnished.answer(id)
        if [answer["status"], answer["code"], answer["pointer"]] != wanted:
            wrong.append((action, object[:50], str(body)[:200], wanted, answer))
        assert answer["detail"] and len(answer["detail"]) < 300 and re.fullmatch("[ -~ü]*", answer["detail"]), answer
    assert wrong == []
    assert database.sql("SELECT (SELECT version FROM qwen.config_head), (SELECT count(*) FROM qwen.audit_log)") == before
    assert published(database) == followed(database)


def test_what_people_write_for_people_stays_as_it_is(ledger, database):
    for note in ("Robert'); DROP TABLE team;--", "$1 %s \\x00 {\"a\": 1} \u05e9\u05dc\u05d5\u05dd \U0001f600", "x" * 1000):
        made = ledger.change("team_create", body={"name": f"t{len(note)}", "note": note})
        assert made["note"] == note == ledger.get("team", made["id"])["note"]
    entry = ledger.all("audit", noun="team")[0]
    assert entry["after"]["note"] == "x" * 1000


# Two at once --------------------------------------------------------------------------------------------------

def test_of_two_operators_the_second_learns_that_the_first_was_there(ledger, alice):
    for _ in range(5):
        version = ledger.get("user", "alice")["version"]
        ids = [ledger.begin_change("user_update", "alice", {"weight": 100 + version * 20 + i}, version) for i in range(8)]
        answers = [ledger.answer(id) for id in ids]
        assert sorted(answer["status"] for answer in answers) == [0] + [409] * 7
        for answer in answers:
            if answer["status"]:
                assert (answer["code"], answer["detail"]) == (
                    "version_conflict", f"it was changed by somebody else: it is at version {version + 1}, not {version}")
        won = json.loads(next(answer["body"] for answer in answers if not answer["status"]))
        assert ledger.get("user", "alice") == won


def test_many_at_once_make_one_of_a_name_and_every_version_in_its_order(ledger, alice, database):
    ids = [ledger.begin_change("key_create", body={"user": "alice", "name": f"k{i % 10}", "hash": hash_of(str(i))}) for i in range(100)]
    ids += [ledger.begin_change("gateway_create", body={"name": f"g{i % 3}", "hash": hash_of(f"g{i}")}) for i in range(30)]
    ids += [ledger.begin_change("admin_token_create", body={"name": "t", "role": "viewer", "hash": hash_of(f"t{i}"), "expires_in": "1d"})
            for i in range(20)]
    answers = [ledger.answer(id) for id in ids]
    assert [answer["status"] for answer in answers[:100]].count(0) == 10
    assert {answer["code"] for answer in answers if answer["status"]} == {"already_exists"}
    assert len(ledger.all("gateway")) == 3 and len(ledger.all("admin_token")) == 1
    versions = sorted(answer["version"] for answer in answers[:100] if not answer["status"])
    assert versions == list(range(FIRST + 1, FIRST + 11)) and head(database) == 10
    assert published(database) == followed(database)


def test_the_same_request_again_does_nothing_new(ledger, alice, database):
    tokens = [ledger.change("admin_token_create", body={"name": f"t{i}", "role": "operator", "hash": hash_of(f"t{i}"), "expires_in": "1d"})
              for i in range(2)]
    who = {"token_id": tokens[0]["id"], "idempotency_key": "once", "request_hash": hash_of("body")}
    ids = [ledger.begin_change("key_create", body={"user": "alice", "name": "laptop", "hash": hash_of(f"s{i}")},
                               who=who) for i in range(10)]
    answers = [ledger.answer(id) for id in ids]
    assert [answer["status"] for answer in answers] == [0] * 10, answers[0]["sentence"]
    assert sum(not answer["is_replay"] for answer in answers) == 1
    assert len({answer["body"] for answer in answers}) == 1 and len(ledger.all("key")) == 1

    assert refused(ledger, "key_create", body={**K}, who={**who, "request_hash": hash_of("another")}) == (422, "idempotency_mismatch", "")
    assert refused(ledger, "key_create", body={**K}, who={"idempotency_key": "x", "request_hash": hash_of("b")})[:2] == (400, "bad_value")
    assert refused(ledger, "key_create", body={**K, "rpm": 0}, who={**who, "idempotency_key": "bad"})[0] == 400
    assert ledger.tried("key_create", body={**K, "rpm": 1}, who={**who, "idempotency_key": "bad"})["status"] == 0, "a refusal is not kept"
    other = ledger.tried("team_create", body={"name": "blue"}, who={**who, "token_id": tokens[1]["id"]})
    assert other["status"] == 0 and not other["is_replay"], "another token's keys are its own"

    database.sql("UPDATE qwen.idempotency SET at = at - interval '25 hours'")
    answer = ledger.tried("team_create", body={"name": "green"}, who=who)
    assert answer["status"] == 0 and not answer["is_replay"], "after a day it is new"
    assert database.sql("SELECT count(*) FROM qwen.idempotency") == "1", "and what is old goes"


def test_who_does_not_lead_changes_nothing(ledger, database):
    database.sql("UPDATE qwen.leader SET holder = 'one', epoch = 5, expires_at = now() + interval '1 hour'")
    assert ledger.tried("team_create", body={"name": "a"}, who={"epoch": 5})["status"] == 0
    for epoch in (4, 6):
        answer = ledger.tried("team_create", body={"name": "b"}, who={"epoch": epoch})
        assert (answer["status"], answer["code"]) == (503, "not_leader")
    database.sql("UPDATE qwen.leader SET expires_at = now() - interval '1 s'")
    assert ledger.tried("team_create", body={"name": "b"}, who={"epoch": 5})["code"] == "not_leader"
    assert [team["name"] for team in ledger.all("team")] == ["a"]


def test_a_new_leader_waits_for_what_the_old_one_is_writing(ledger, database):
    database.sql("UPDATE qwen.leader SET holder = 'one', epoch = 5, expires_at = now() + interval '1 hour'")
    slow, next_one = database.session(), database.session()
    slow.do("BEGIN; SET search_path = qwen, pg_temp")
    slow.do("SELECT count(*) FROM admin_change('{\"actor\": \"one\", \"epoch\": 5}', 'team_create', NULL, NULL, '{\"name\": \"late\"}')")
    next_one.process.stdin.write("UPDATE qwen.leader SET holder = 'two', epoch = 6;\n\\echo done\n")
    next_one.process.stdin.flush()
    wait_for(lambda: database.waiting() == 1)
    slow.do("COMMIT")
    assert next_one.process.stdout.readline() == "done\n"
    assert database.sql("SELECT epoch FROM qwen.leader") == "6"
    slow.close()
    next_one.close()


# Keys ---------------------------------------------------------------------------------------------------------

def test_what_gateways_get_of_a_key(ledger, alice, database):
    key = ledger.key("alice", "laptop", models=["m"], rpm=3, max_concurrent=2, allow=["10.0.0.0/8"], delegate=True,
                     expires_at="2099-01-01T00:00:00.5Z")
    hashed = database.sql("SELECT encode(hash, 'hex') FROM qwen.api_key")
    body = {"hash": hashed, "user": "alice", "team": "red", "name": key["prefix"], "delegate": True, "class": "interactive",
            "expires": 4070908800, "weight": 3, "rpm": 3, "max_concurrent": 2, "models": ["m:latest"], "allow": ["10.0.0.0/8"]}
    assert followed(database) == published(database) == {("key", key["id"]): body}
    assert ledger.version == FIRST + 1
    ledger.change("key_update", key["id"], {"note": "mine"})
    assert head(database) == 1, "what gateways do not see is no change for them"
    ledger.change("key_revoke", key["prefix"], {"cut": True})
    assert database.sql(f"SELECT body FROM qwen.change_log WHERE version = {FIRST + 2}") == json.dumps(
        {"cut": True, "gone": True, "hash": hashed})
    assert ledger.change("key_revoke", key["id"])["state"] == "revoked" and head(database) == 2, "once more changes nothing"
    ledger.change("key_revoke", key["id"], {"cut": True})
    assert head(database) == 3, "but its streams can still be cut"
    unnamed = ledger.change("key_create", body={"user": "alice", "name": "plain", "hash": hash_of("x")})
    assert followed(database)["key", unnamed["id"]]["name"] == "plain"


def test_a_key_can_bring_its_user(ledger, database):
    assert ledger.key("bob", "k", create_user=True)["user"] == "bob"
    assert [(entry["action"], entry["noun"]) for entry in ledger.all("audit")] == [("key_create", "key"), ("key_create", "user")]
    ledger.change("team_create", body={"name": "red"})
    assert ledger.key("carol", "k", create_user=True, team="red")["team"] == "red"
    assert refused(ledger, "key_create", body={"user": "bob", "name": "k2", "hash": "a" * 64, "team": "red"})[2] == "/team"


def test_a_rotated_key_lives_on_for_a_while_under_another_name(ledger, alice, database):
    old = ledger.key("alice", "laptop", models=["m"], rpm=9, expires_in="90d", note="n")
    made = ledger.make("key")
    fresh = ledger.change("key_rotate", "alice/laptop", {"hash": made["hash"], "prefix": made["prefix"], "keep_for": "2h"}, old["version"])
    assert (fresh["name"], fresh["models"], fresh["rpm"], fresh["note"], fresh["state"]) == ("laptop", ["m:latest"], 9, "n", "active")
    assert fresh["replaces"]["id"] == old["id"] and fresh["replaces"]["name"] == f"laptop.old-{old['prefix'].lower()}"
    was = ledger.get("key", old["id"])
    assert was["replaced_by"] == fresh["id"] and was["state"] == "active"
    left = database.sql(f"SELECT extract(epoch FROM expires_at - now()) BETWEEN 7000 AND 7200 FROM qwen.api_key WHERE id = '{old['id']}'")
    assert left == "t" and ledger.get("key", "alice/laptop")["id"] == fresh["id"]
    assert database.sql("SELECT version, count(*) FROM qwen.change_log GROUP BY version ORDER BY version") == (
        f"{FIRST + 1}|1\n{FIRST + 2}|2")
    assert published(database) == followed(database)

    second = ledger.change("key_rotate", fresh["id"], {"hash": hash_of("2"), "keep_for_s": 0, "name": "tablet"})
    assert second["name"] == "tablet" and second["replaces"]["state"] == "revoked" and second["replaces"]["name"] == "laptop"
    assert published(database) == followed(database) and ("key", fresh["id"]) not in published(database)
    long = ledger.key("alice", "n" * 128)
    assert len(ledger.change("key_rotate", long["id"], {"hash": hash_of("3")})["replaces"]["name"]) == 128


def test_an_import_is_all_or_nothing_and_names_what_is_wrong(ledger, alice, database):
    made = ledger.make("key")
    keys = [{"user": f"u{i % 50}", "name": f"k{i}", "secret": f"word-{i}", "models": ["M1"]} for i in range(997)]
    keys += [{"user": "alice", "name": "old", "secret": made["secret"]},
             {"user": "alice", "name": "older", "secret": f"sha256:{hash_of('w')}"},
             {"user": "alice", "name": "oldest", "hash": hash_of("h"), "team": "red"}]
    before = database.sql("SELECT count(*) FROM qwen.audit_log")
    wrong = [(17, {"rpm": 0}, "/keys/17/rpm"), (3, {"secret": " a"}, "/keys/3/secret"), (7, {"colour": 1}, "/keys/7/colour"),
             (9, {"models": ["m", "a b"]}, "/keys/9/models/1"), (11, {"team": "none"}, "/keys/11/team"),
             (13, {"secret": made["secret"][:-1]}, "/keys/13/secret"), (15, {"hash": "a" * 64}, "/keys/15/hash"),
             (997, {"secret": "word-4"}, "/keys/997/hash"), (998, {"secret": 7}, "/keys/998/secret"), (55, {"name": "k5"}, "/keys/55/name")]
    for place, change, pointer in wrong:
        bad = [{**key, **change} if i == place else key for i, key in enumerate(keys)]
        assert refused(ledger, "key_import", body={"keys": bad, "create_users": True})[2] == pointer, change
    assert refused(ledger, "key_import", body={"keys": keys}) == (400, "bad_value", "/keys/0/user")
    assert database.sql("SELECT count(*) FROM qwen.audit_log") == before and ledger.all("key") == [] and head(database) == 0

    assert ledger.change("key_import", body={"keys": keys, "create_users": True}) == {"imported": 1000}
    assert head(database) == 1 and len(followed(database)) == 1000 and published(database) == followed(database)
    assert ledger.get("key", made["prefix"])["name"] == "old"
    assert database.sql(f"SELECT name FROM qwen.api_key WHERE hash = decode('{hash_of('word-4')}', 'hex')") == "k4"
    assert ledger.get("key", "u4/k4")["models"] == ["m1:latest"]
    assert [key["name"] for key in ledger.all("key")][:3] == ["k0", "k1", "k2"], "in their order"
    assert refused(ledger, "key_import", body={"keys": keys[:1]}) == (409, "already_exists", "/keys/0/name")


# What follows from what ---------------------------------------------------------------------------------------

def test_keys_follow_their_user_and_team(ledger, alice, database):
    keys = [ledger.key("alice", f"k{i}") for i in range(3)]
    ledger.change("key_revoke", "alice/k2")
    steps = [("user_update", "alice", {"weight": 9}, 2), ("user_update", "alice", {"class": "batch"}, 2),
             ("user_update", "alice", {"note": "x"}, 0),
             ("team_update", "red", {"name": "crimson"}, 2), ("team_update", "crimson", {"note": "x"}, 0),
                 ("user_update", "alice", {"disabled": True}, 2),
             ("user_update", "alice", {"weight": 10}, 0), ("team_update", "crimson", {"name": "red"}, 0),
                 ("key_update", "alice/k0", {"rpm": 5}, 0),
             ("user_update", "alice", {"name": "alison", "disabled": False}, 2), ("user_update", "alison", {"team": None}, 2)]
    for action, object, patch, count in steps:
        before = head(database)
        ledger.change(action, object, patch)
        assert head(database) == before + (count > 0), (action, patch)
        assert int(database.sql(f"SELECT count(*) FROM qwen.change_log WHERE version > {before + FIRST}")) == count, (action, patch)
        assert published(database) == followed(database), (action, patch)
        assert len(followed(database)) == (0 if ledger.get("user", alice["id"])["disabled"] else 2)
    assert followed(database)["key", keys[0]["id"]].items() >= {"user": "alison", "team": None, "weight": 10, "class": "batch",
                                                                "rpm": 5}.items()
    ledger.change("user_delete", "alison")
    assert followed(database) == {} and ledger.get("user", "alison") is None and ledger.get("user", alice["id"]) is None
    assert [key["state"] for key in ledger.all("key")] == ["revoked"] * 3
    gone = database.sql("SELECT body ->> 'hash' FROM qwen.change_log WHERE version = (SELECT version FROM qwen.config_head) ORDER BY 1")
    assert gone == database.sql("SELECT encode(hash, 'hex') FROM qwen.api_key WHERE name <> 'k2' ORDER BY 1")
    assert refused(ledger, "key_update", keys[0]["id"], {"rpm": 1})[:2] == (410, "gone")
    ledger.change("user_create", body={"name": "alison"})
    assert ledger.get("user", "alison")["keys"] == 0, "somebody else of that name"


def test_aliases_follow_their_model(ledger, database):
    ledger.change("model_create", body={"name": "qwen3:32b", "num_ctx": 4096, "backend_model": "Registry/Qwen3:32B", "preload": True})
    ledger.change("model_create", body={"name": "plain"})
    ledger.change("model_create", body={"name": "fast", "alias_of": "Qwen3:32B", "max_prompt_chars": 0, "think": False})
    ledger.change("model_create", body={"name": "quick", "alias_of": "plain"})
    assert followed(database)["model", "fast:latest"] == {
        "backend_model": "Registry/Qwen3:32B", "num_ctx": 4096, "keep_alive": None, "max_prompt_chars": 0, "max_system_chars": None,
        "think": False, "preload": False}
    assert followed(database)["model", "quick:latest"]["backend_model"] == "plain:latest"
    before = head(database)
    ledger.change("model_update", "qwen3:32b", {"num_ctx": 8192, "max_prompt_chars": 5, "note": "x"})
    assert head(database) == before + 1
    known = followed(database)
    assert known == published(database)
    assert [known["model", name]["num_ctx"] for name in ("qwen3:32b", "fast:latest", "quick:latest")] == [8192, 8192, None]
    assert [known["model", name]["max_prompt_chars"] for name in ("qwen3:32b", "fast:latest")] == [5, 0]
    ledger.change("model_update", "fast", {"alias_of": "plain"})
    assert followed(database)["model", "fast:latest"]["backend_model"] == "plain:latest"
    ledger.change("model_update", "fast", {"alias_of": None, "num_ctx": 100})
    ledger.change("model_delete", "qwen3:32b")
    assert published(database) == followed(database) and ("model", "qwen3:32b") not in followed(database)


def test_a_gateway_is_enrolled_again_until_it_is_removed_for_good(ledger, database):
    made = ledger.change("gateway_enroll", body={"name": "edge1", "hash": hash_of("one"), "note": "rack"})
    again = ledger.change("gateway_create", body={"name": "edge1", "hash": hash_of("two"), "expires_s": 60})
    assert (again["id"], again["note"], again["version"]) == (made["id"], "rack", made["version"] + 1)
    assert database.sql("SELECT enrol_hash = sha256('two') FROM qwen.gateway") == "t"
    ledger.change("gateway_remove", "edge1")
    assert database.sql("SELECT enrol_hash IS NULL FROM qwen.gateway") == "t" and head(database) == 0
    assert refused(ledger, "gateway_update", made["id"], {"note": "x"})[:2] == (410, "gone")
    assert refused(ledger, "gateway_remove", made["id"])[:2] == (410, "gone")
    assert ledger.change("gateway_create", body={"name": "edge1", "hash": hash_of("three")})["id"] != made["id"]


def test_gateways_are_told_to_take_everything_anew(ledger, database):
    """Orders go up even where a restored database has forgotten the last ones; and who has not enrolled holds nothing."""
    ids = {name: ledger.change("gateway_create", body={"name": name, "hash": hash_of(name)})["id"] for name in ("a", "b", "new")}
    database.sql("UPDATE qwen.gateway SET public_key = sha256(name::bytea) WHERE name <> 'new'")
    before = ledger.get("gateway", "a")
    assert before["resyncing"] is False
    assert ledger.change("gateway_resync", "a") == {**before, "resyncing": True} == ledger.get("gateway", ids["a"])
    assert [one["resyncing"] for one in ledger.all("gateway") if one["name"] == "b"] == [False]
    first = int(database.sql("SELECT resync_asked FROM qwen.gateway WHERE name = 'a'"))
    database.sql("UPDATE qwen.gateway SET resync_done = resync_asked WHERE name = 'a'")
    assert ledger.get("gateway", "a")["resyncing"] is False
    database.sql("UPDATE qwen.gateway SET resync_done = 0, resync_asked = 0")  # as it is in a backup
    assert ledger.change("gateway_resync") == {"gateways": ["a", "b"]}
    assert int(database.sql("SELECT min(resync_asked) FROM qwen.gateway WHERE name <> 'new'")) > first
    assert ledger.change("gateway_resync", "new")["resyncing"] is False
    lines = ledger.all("audit", action="gateway_resync")
    assert sorted(line["object_id"] for line in lines) == sorted([ids["a"], ids["a"], ids["b"]])
    assert all((line["before"]["resyncing"], line["after"]["resyncing"]) == (False, True) for line in lines)
    assert refused(ledger, "gateway_resync", "a", {"x": 1}) == (400, "bad_value", "/x")
    ledger.change("gateway_remove", "a")
    assert refused(ledger, "gateway_resync", ids["a"])[:2] == (410, "gone")
    assert ledger.change("gateway_resync") == {"gateways": ["b"]} and head(database) == 0


def test_whoever_listens_hears_what_kind_of_thing_changed(ledger, database):
    session = database.session()
    session.do("LISTEN qwen_change")

    def heard():
        return re.findall(r'payload "(\w+)"', session.do("SELECT 1"))
    ledger.change("team_create", body={"name": "red"})
    assert heard() == [], "no gateway goes by a team without users"
    ledger.key("alice", "k", create_user=True)
    assert heard() == ["config"]
    ledger.change("gateway_create", body={"name": "e", "hash": "a" * 64})
    ledger.change("admin_token_create", body={"name": "t", "role": "viewer", "hash": "a" * 64, "expires_in": "1d"})
    assert heard() == ["gateway", "token"]
    ledger.change("gateway_resync", "e")
    assert heard() == ["gateway"]
    session.close()


# Who did what -------------------------------------------------------------------------------------------------

def test_the_log_says_who_did_what_from_where_and_holds_no_secret(furnished, database):
    token = furnished.change("admin_token_create", body={"name": "root", "role": "owner", "hash": hash_of("t"), "expires_in": "24h"})
    who = {"token_id": token["id"], "actor": "root", "address": "2001:db8::7", "request_id": "req-1", "idempotency_key": "k",
           "request_hash": hash_of("b")}
    key = json.loads(furnished.tried("key_create", body={"user": "alice", "name": "audited", "hash": hash_of("s3"), "rpm": 5},
                                     who=who)["body"])
    furnished.change("key_rotate", key["id"], {"hash": hash_of("s4")}, who={**who, "idempotency_key": "k2"})
    furnished.change("key_import", body={"keys": [{"user": "alice", "name": "i", "secret": "s5"}]}, who={**who, "idempotency_key": "k3"})
    furnished.change("key_update", key["id"], {"rpm": 6}, who=who | {"idempotency_key": None})
    furnished.change("user_delete", "alice")

    entries = furnished.all("audit", max=3, object_id=key["id"])
    assert [entry["action"] for entry in entries] == ["user_delete", "key_update", "key_rotate", "key_create"], "the newest first"
    assert all(list(entry) == AUDIT for entry in entries)
    made, changed = entries[-1], entries[1]
    assert (made["token_id"], made["actor"], made["address"], made["request_id"], made["noun"]) == (
        token["id"], "root", "2001:db8::7", "req-1", "key")
    assert made["before"] is None and made["after"] == key
    assert (changed["before"]["rpm"], changed["after"]["rpm"]) == (5, 6)
    assert [(entry["before"]["state"], entry["after"]["state"]) for entry in entries[:1]] == [("active", "revoked")]
    assert furnished.get("audit", str(made["id"])) == made
    assert [entry["noun"] for entry in furnished.all("audit", actor="root", action="key_import")] == ["key"]
    assert len(furnished.all("audit", object_id=key["id"], **{"from": made["at"]})) == 4 and not furnished.all("audit",
        **{"from": "2090-01-01T00:00:00Z"})
    assert len(furnished.all("audit", noun="gateway")) == 1

    told = json.dumps(furnished.answers)
    kept = database.sql("SELECT string_agg(a::text, '') FROM qwen.audit_log AS a") + database.sql(
        "SELECT string_agg(i.body, '') FROM qwen.idempotency AS i")
    hashes = database.sql("SELECT encode(hash, 'hex') FROM qwen.api_key UNION SELECT encode(hash, 'hex') FROM qwen.admin_token UNION"
                          " SELECT encode(enrol_hash, 'hex') FROM qwen.gateway").split()
    assert len(hashes) == 7
    for hashed in hashes:
        assert hashed not in kept and hashed not in told
    assert '"s5"' not in kept and '"s5"' not in told
    assert "hash" not in kept and '"hash"' not in told
    states = database.refusals(["UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log", "INSERT INTO audit_log (id, actor, action,"
                                " noun, object_id) OVERRIDING SYSTEM VALUE VALUES (1, 'x', 'x', 'x', 'x')"], user="qwen_control")
    assert states == ["42501"] * 3


def test_a_token_is_good_until_it_is_revoked_or_expires(ledger, database):
    made = ledger.make("token")
    assert re.fullmatch(r"qat_[0-9A-Za-z]{43}", made["secret"]) and made["hash"] == hash_of(made["secret"]) and made["prefix"] == ""
    token = ledger.change("admin_token_create", body={"name": "root", "role": "owner", "hash": made["hash"], "expires_in": "24h"})
    asked = ledger.answer(ledger.begin("token", hash=made["hash"]))
    assert (asked["err"], asked["token"], asked["name"], asked["role"]) == ("no error", token["id"], "root", "owner")
    wait_for(lambda: ledger.get("admin_token", "root")["last_used_at"])
    touched = database.sql("SELECT xmin FROM qwen.admin_token")
    for _ in range(3):
        assert ledger.answer(ledger.begin("token", hash=made["hash"]))["err"] == "no error"
    assert database.sql("SELECT xmin FROM qwen.admin_token") == touched, "noted once a minute"
    assert ledger.answer(ledger.begin("token", hash="a" * 64))["err"] == "not found"
    ledger.change("admin_token_revoke", "root")
    assert ledger.answer(ledger.begin("token", hash=made["hash"]))["err"] == "not found"
    ledger.change("admin_token_create", body={"name": "root", "role": "viewer", "hash": hash_of("2"), "expires_in": "24h"})
    database.sql("ALTER TABLE qwen.admin_token DISABLE TRIGGER ALL; UPDATE qwen.admin_token SET created_at = now() - interval '2 days',"
                 " expires_at = now() - interval '1 s' WHERE revoked_at IS NULL")
    assert ledger.answer(ledger.begin("token", hash=hash_of("2")))["err"] == "not found"


# Everything at random -----------------------------------------------------------------------------------------

class Chance:
    """Changes at random, with objects that are there, were there, or never were."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.made = 0

    def one_of(self, *words):
        return self.random.choice(words)

    def change(self):
        r, pick = self.random, self.one_of
        self.made += 1
        user, team, model = f"u{r.randrange(5)}", f"t{r.randrange(3)}", f"m{r.randrange(6)}"
        key = f"{user}/k{r.randrange(4)}"
        return r.choice([
            ("team_create", "", {"name": team}), ("team_update", team, {"name": f"t{r.randrange(3)}", "note": str(self.made)}),
            ("team_delete", team, None), ("user_create", "", {"name": user, "team": pick(None, team), "weight": r.randrange(1, 5)}),
            ("user_update", user, pick({"weight": r.randrange(1, 9)}, {"disabled": pick(True, False)}, {"team": pick(None, team)},
                                       {"name": f"u{r.randrange(5)}"}, {"class": pick("batch", "interactive"),
                                                                        "disabled": pick(True, False)},
                                       {"note": str(self.made)})),
            *[("key_create", "", {"user": user, "name": key.split("/")[1], "hash": hash_of(f"s{self.made}"), "prefix": f"p{self.made:09d}",
                                  "create_user": pick(True, False), "rpm": pick(None, 5), "expires_in": pick(None, "9d")})] * 4,
            *[("key_update", key, pick({"rpm": r.randrange(1, 9)}, {"models": pick(None, ["m1", "M2"])}, {"name": f"k{r.randrange(4)}"},
                                       {"note": str(self.made)}, {"allow": ["10.0.0.0/8"], "expires_at": None}))] * 2,
            ("key_revoke", key, {"cut": pick(True, False)}),
            ("key_rotate", key, {"hash": hash_of(f"r{self.made}"), "keep_for_s": pick(0, 60)}),
            ("key_import", "", {"keys": [{"user": f"u{i}", "name": f"i{self.made}", "secret": f"w{self.made}-{i}"} for i in range(3)],
                                "create_users": True}),
            *([("user_delete", user, None)] if r.random() < 0.5 else []),
            ("whitelist_create", "", {"cidr": f"10.{r.randrange(4)}.0.0/16"}), ("whitelist_delete", f"10.{r.randrange(4)}.0.0/16", None),
            ("whitelist_update", f"10.{r.randrange(4)}.0.0/16", {"note": str(self.made)}),
            ("model_create", "", {"name": model, "alias_of": pick(None, None, f"m{r.randrange(6)}")}),
            ("model_update", model, pick({"num_ctx": r.randrange(4, 9)}, {"alias_of": pick(None, f"m{r.randrange(6)}")},
                                         {"think": pick(None, True)},
                                         {"backend_model": "x", "alias_of": None})),
            ("model_delete", model, None), ("backend_create", "", {"name": f"b{r.randrange(3)}", "url": f"http://h{r.randrange(3)}"}),
            ("backend_update", f"b{r.randrange(3)}",
             pick({"weight": r.randrange(9)}, {"note": str(self.made)}, {"models": pick(None, ["m1"])})),
            ("backend_delete", f"b{r.randrange(3)}", None), ("setting_put", f"s{r.randrange(3)}", {"value": r.randrange(3)}),
            ("setting_delete", f"s{r.randrange(3)}", None),
            ("gateway_create", "", {"name": f"g{r.randrange(3)}", "hash": hash_of(f"g{self.made}")}),
            ("gateway_remove", f"g{r.randrange(3)}", None),
        ])


@pytest.mark.parametrize("seed", [1, 2])
def test_whoever_follows_the_changes_knows_what_is_there(ledger, database, seed):
    chance = Chance(seed)
    done = set()
    for _ in range(10):
        for action, answer in [(change[0], ledger.begin_change(*change)) for change in (chance.change() for _ in range(100))]:
            answer = ledger.answer(answer)
            assert answer["status"] in (0, 400, 404, 409, 410), (action, answer)
            if not answer["status"]:
                done.add(action)
        assert followed(database) == published(database)
    assert len(done) > 20 and followed(database), done
    assert database.sql("SELECT count(DISTINCT version), max(version) FROM qwen.change_log") == f"{head(database)}|{head(database) + FIRST}"
    assert database.sql("SELECT count(*) FROM qwen.change_log GROUP BY version, seq HAVING count(*) > 1") == ""
    assert database.sql("SELECT bool_and(n = last + 1) FROM (SELECT count(*) AS n, max(seq) AS last FROM qwen.change_log"
                        " GROUP BY version) AS v") == "t", "seq counts from 0"


# Pages --------------------------------------------------------------------------------------------------------

MANY = """
    SET search_path = qwen, pg_temp;
    INSERT INTO team (name) SELECT 't' || i FROM generate_series(1, 20) AS i;
    INSERT INTO app_user (name, team_id, disabled) SELECT 'u' || i, (SELECT id FROM team WHERE name = 't' || (1 + i % 20)), i % 20 = 0
        FROM generate_series(1, {users}) AS i;
    INSERT INTO api_key (user_id, name, hash, prefix, state, revoked_at, expires_at, created_at)
        SELECT u.id, 'k' || i / {users}, sha256(convert_to('s' || i, 'UTF8')), 'p' || lpad(i::text, 9, '0'),
               CASE WHEN i % 400 = 7 THEN 'revoked' ELSE 'active' END, CASE WHEN i % 400 = 7 THEN now() END,
               CASE WHEN i % 10 = 3 THEN now() + (i - {keys} * 0.2) * interval '1 hour' END,
                   now() - interval '1 day' + i % 1000 * interval '1 ms'
        FROM generate_series(1, {keys}) AS i JOIN app_user AS u ON u.name = 'u' || (1 + i % {users});
    INSERT INTO audit_log (actor, action, noun, object_id) SELECT 'a' || i % 250, CASE WHEN i % 100 = 0 THEN 'xy' ELSE 'x' END, 'key',
        i % 100
        FROM generate_series(1, {keys} / 4) AS i;
    ANALYZE;
"""
SOON = "2099-01-01T00:00:00Z"
PAGES = [
    ("key", {}), ("key", {"user": "u7"}), ("key", {"user": "u7", "state": "active"}), ("key", {"user": "u7", "name": "k3"}),
        ("key", {"team": "t3"}),
    ("key", {"team": "t3", "state": "revoked"}), ("key", {"name": "k3"}), ("key", {"name": "k3", "team": "t3"}),
        ("key", {"prefix": "p000000042"}),
    ("key", {"state": "revoked"}), ("key", {"state": "active"}), ("key", {"state": "expired"}), ("key", {"expires_before": SOON}),
    ("key", {"user": "u4", "expires_before": SOON}), ("key", {"team": "t5", "expires_before": SOON, "state": "active"}),
    ("user", {}), ("user", {"team": "t3"}), ("user", {"disabled": True}), ("user", {"disabled": False, "team": "t3"}),
        ("user", {"name": "u7"}),
    ("team", {}), ("audit", {}), ("audit", {"actor": "a3"}), ("audit", {"noun": "key"}), ("audit", {"noun": "key", "object_id": "7"}),
    ("audit", {"action": "xy"}), ("audit", {"from": "2020-01-01T00:00:00Z", "to": SOON}),
]


def in_time(key, filter):
    return key["expires_at"] is not None and key["expires_at"] < filter["expires_before"] and key["state"] != "revoked"


def wanted(noun, everything, filter, teams):
    """The ids that the filter is for, found the slow way."""
    def fits(one):
        for name, value in filter.items():
            if name == "expires_before":
                good = in_time(one, filter)
            elif name in ("from", "to"):
                good = True
            else:
                good = one[name] == value
            if not good:
                return False
        return True
    return sorted(str(one["id"]) for one in everything if fits(one))


def test_pages_hold_everything_once_and_nothing_else(ledger, database):
    database.sql(MANY.format(users=40, keys=2000))
    everything = {noun: ledger.all(noun, max=1000) for noun in ("key", "user", "team", "audit")}
    assert [len(everything[noun]) for noun in ("key", "user", "team", "audit")] == [2000, 40, 20, 500]
    for noun, filter in PAGES:
        found = [str(one["id"]) for max in (7, 1000) for one in ledger.all(noun, max=max, **filter)]
        half = len(found) // 2
        assert found[:half] == found[half:], (noun, filter)
        assert sorted(found[:half]) == wanted(noun, everything[noun], filter, None), (noun, filter)
        assert half or noun == "key" and filter == {"team": "t3", "state": "revoked"}, (noun, filter)
    by_end = [key["expires_at"] or "never" for key in ledger.all("key", state="active")]
    assert by_end == sorted(by_end)
    for noun, after in (("key", "x"), ("key", "1|2|3|4"), ("key", "2026-11-23|y"), ("audit", "x|y"), ("admin_token", "a|b"),
                        ("whitelist", "x")):
        with pytest.raises(Refused) as refusal:
            ledger.page(noun, after)
        assert refusal.value.answer["status"] == 400, (noun, after)
    with pytest.raises(Refused) as refusal:
        ledger.page("key", state="asleep")
    assert refusal.value.answer["pointer"] == "/state"


def test_pages_come_from_an_index_in_its_order(database):
    """However many there are, a page reads its own rows: no table is read whole, nothing but a page is sorted."""
    database.sql(MANY.format(users=400, keys=20000))
    database.sql("VACUUM ANALYZE qwen.api_key")
    calls = []
    for noun, filter in PAGES:
        if noun == "team":
            continue
        first = f"qwen.{noun}_list('{json.dumps(filter)}', NULL, 20)"
        after = database.sql(f"SELECT position FROM {first}").splitlines()
        calls.append((noun, filter, first))
        if len(after) == 20:
            calls.append((noun, filter, f"qwen.{noun}_list('{json.dumps(filter)}', '{after[-1]}', 20)"))
    script = ("LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;"
              " SET auto_explain.log_analyze = on; SET auto_explain.log_timing = off; SET auto_explain.log_format = json;"
              " SET client_min_messages = log; SET search_path = qwen, pg_temp;\n\\set VERBOSITY terse\n")
    plans = []
    for noun, filter, call in calls:
        done = database.cluster.psql(f"{script}SELECT count(*) FROM {call};", database.name)
        plans.append((noun, filter, [json.loads(plan) for plan in re.findall(r"plan:\n(\{.*?\n\})", done.stderr, re.S)]))
    bad = []
    for noun, filter, found in plans:
        turned = [plan for plan in found if "LIMIT $" in plan["Query Text"] and " AS page" in plan["Query Text"]]
        assert len(turned) == 1, (noun, filter, [plan["Query Text"] for plan in found])
        for node in nodes(turned[0]["Plan"]):
            read = node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0) * node["Actual Loops"]
            if node["Node Type"] == "Seq Scan" and node["Relation Name"] in ("api_key", "audit_log") or read > 2000:
                bad.append((noun, filter, node["Node Type"], node.get("Index Name"), read))
    assert not bad, "\n".join(map(str, bad))


def nodes(plan):
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


# When the database is not there -------------------------------------------------------------------------------

def test_a_database_that_is_away_is_told_as_such(ledger, database, cluster):
    ledger.change("team_create", body={"name": "red"})
    database.sql(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on; SELECT pg_terminate_backend(pid)"
                 " FROM pg_stat_activity WHERE application_name = 'ledger-driver'")
    wait_for(lambda: ledger.get("team", "red"))
    answer = ledger.tried("team_create", body={"name": "blue"})
    assert (answer["status"], answer["code"], answer["detail"]) == (503, "database_away", "the database takes no changes at present")
    assert answer["sentence"] and not answer["may_be_done"]
    cluster.stop()
    away = Ledger(database)
    id = away.begin("get", noun="team", object="red")
    cluster.start()
    assert away.answer(id)["status"] == 0, "what waited is asked when it is there again"
    away.close()


def test_an_answer_that_nobody_wants_is_not_told(ledger):
    ledger.begin_change("team_create", body={"name": "red"}, forget=True)
    ledger.begin("get", noun="team", object="red", forget=True)
    ledger.begin("list", noun="team", filter="{}", after="", max=3, forget=True)
    ledger.begin("token", hash="a" * 64, forget=True)
    wait_for(lambda: ledger.get("team", "red"))
    assert list(ledger.answers) == [id for id in ledger.answers if int(id[1:]) > 4]


def test_what_is_no_text_is_not_even_asked(ledger):
    answer = ledger.tried("team_update", "a\u0000b", {})
    assert answer == {"err": "not well formed", "at_once": True, "id": answer["id"]}


def test_a_change_takes_a_few_milliseconds(ledger, alice):
    """Measured 1.6 each; loose, for a machine with other things to do."""
    start = time.monotonic()
    ids = [ledger.begin_change("key_create", body={"user": "alice", "name": f"k{i}", "hash": hash_of(str(i))}) for i in range(200)]
    assert {ledger.answer(id)["status"] for id in ids} == {0}
    assert time.monotonic() - start < 10
