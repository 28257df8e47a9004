"""Keys: their forms, the people behind a delegate key, and names that cannot lie."""

import hashlib
import json

import pytest

from gateway import KEY, chat_body

FRONT = "front-end-key"


def user_of(gateway, answer):
    return gateway.line_of(answer)["user"]


def test_a_key_may_be_any_string_or_a_hash_or_a_file(start_gateway, folder):
    with open(f"{folder}/secret", "w", encoding="ascii") as file:
        file.write("from-a-file\n")
    gateway = start_gateway(auth={"valid_keys": [
        "plain/with+signs=", "sha256:" + hashlib.sha256(b"hashed").hexdigest(),
        {"key_sha256": hashlib.sha256(b"hashed too").hexdigest(), "name": "hashed-too"},
        {"key_file": f"{folder}/secret", "name": "filed"},
        {"key": "entry", "name": "entry", "user": "erna"}]})
    names = {}
    for key in ("plain/with+signs=", "hashed", "hashed too", "from-a-file", "entry"):
        it = gateway.line_of(gateway.chat(key=key))
        assert it["status"] == "200"
        names[key] = (it["key"], it["user"])
    assert names == {"plain/with+signs=": ("key1", "key1"), "hashed": ("key2", "key2"),
                     "hashed too": ("hashed-too", "hashed-too"), "from-a-file": ("filed", "filed"),
                     "entry": ("entry", "erna")}


def test_a_key_of_ours_is_named_by_its_public_id(start_gateway):
    key = made_key("7f3aQ9xWz0", "A" * 27)
    gateway = start_gateway(auth={"valid_keys": [key]})
    it = gateway.line_of(gateway.chat(key=key))
    assert it["key"] == "7f3aQ9xWz0"
    assert "A" * 27 not in gateway.log


def made_key(public, secret):
    import zlib
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    body = f"qk_{public}_{secret}"
    rest, check = zlib.crc32(body.encode()), ""
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        check = digits[digit] + check
    return body + check


def test_auth_off_lets_everyone_in(start_gateway):
    gateway = start_gateway(auth={"enabled": False, "valid_keys": None})
    assert gateway.chat(key=None).status == 200
    assert gateway.chat(key="whatever").status == 200
    assert gateway.line_of(gateway.chat(key=None))["user"] == "!127.0.0.1"


def test_the_header_of_keys_can_be_named(start_gateway):
    gateway = start_gateway(auth={"header_key": "X-House-Key"})
    assert gateway.chat(key=None, headers={"X-House-Key": KEY}).status == 200
    assert gateway.chat(key=None, headers={"X-Api-Key": KEY}).status == 401


@pytest.fixture
def delegating(start_gateway):
    return start_gateway(auth={"valid_keys": [
        KEY, {"key": FRONT, "name": "frontend", "delegate": True, "max_requests": 2, "max_total_requests": 5},
        {"key": "named-key", "name": "named", "user": "nora"}]},
        rate_limit={"enabled": True, "max_requests": 100, "window_seconds": 60})


def test_a_delegate_names_the_person(delegating):
    assert user_of(delegating, delegating.chat(key=FRONT, headers={"X-User-Id": "alice"})) == "frontend/alice"
    assert user_of(delegating, delegating.chat(key=FRONT)) == "frontend"


def test_each_person_of_a_delegate_has_a_window_and_the_key_has_one_for_all(delegating):
    def status(person):
        return delegating.chat(key=FRONT, headers={"X-User-Id": person}).status
    assert [status("alice") for _ in range(3)] == [200, 200, 429]
    assert [status("bob") for _ in range(3)] == [200, 200, 429]
    assert [status("carol") for _ in range(2)] == [200, 429], "five for the key in all"


def test_two_names_are_none(delegating, fake):
    """A front end that adds its header to those of its caller: the caller's own would be as good as any."""
    answer = delegating.chat(key=FRONT, headers=[("X-User-Id", "mallory"), ("x-user-id", "alice")])
    assert (answer.status, answer.code, answer.header("Connection")) == (400, "bad_http", "close")
    assert fake.seen() == []


def test_other_keys_cannot_name_a_person(delegating):
    assert user_of(delegating, delegating.chat(key="named-key", headers={"X-User-Id": "alice"})) == "nora"


def test_a_plain_key_names_the_person_for_the_log_only(start_gateway):
    gateway = start_gateway(rate_limit={"enabled": True, "max_requests": 2, "window_seconds": 60})
    answers = [gateway.chat(headers={"X-User-Id": person}) for person in ("alice", "bob", "carol")]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert user_of(gateway, answers[0]).endswith("alice") and user_of(gateway, answers[1]).endswith("bob")


NAMES = [("al ice", "al_ice"), ("a/b", "a_b"), ("a=b", "a_b"), ('a"b', "a_b"), ("a\tb", "a_b"), ("ünï", "ünï"),
         (b"bad\xffutf8", "bad_utf8"), (b"half\xc3", "half_"), ("x" * 200, "x" * 128), ("é" * 100, "é" * 64),
         ("a" + "é" * 100, "a" + "é" * 63), ("世" * 50, "世" * 42)]


@pytest.mark.parametrize("sent,shown", NAMES, ids=[repr(sent)[:20] for sent, _ in NAMES])
def test_names_are_cleaned_and_cut_on_a_character(shared_delegating, sent, shown):
    raw = sent.encode() if isinstance(sent, str) else sent
    body = json.dumps({"model": "qwen3:32b", "messages": [{"role": "user", "content": "hi"}]}).encode()
    wire = shared_delegating.wire().send(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + FRONT.encode() + b"\r\nX-User-Id: "
        + raw + b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    answer = wire.answer()
    assert answer.status == 200
    assert user_of(shared_delegating, answer) == f"frontend/{shown}"


@pytest.fixture(scope="module")
def shared_delegating(session_fake):
    from conftest import short_folder
    from gateway import Gateway
    with short_folder() as path:
        gateway = Gateway(path, session_fake.url, auth={"valid_keys": [
            {"key": FRONT, "name": "frontend", "delegate": True}]})
        yield gateway
        gateway.stop()


@pytest.mark.parametrize("where", ["X-OpenWebUI-User-Id", "body.user"])
def test_the_place_of_the_name_can_be_chosen(start_gateway, where):
    gateway = start_gateway(auth={"valid_keys": [{"key": FRONT, "name": "frontend", "delegate": True}],
                                  "user_header": where})
    if where == "body.user":
        answer = gateway.chat(key=FRONT, user="alice")
    else:
        answer = gateway.chat(key=FRONT, headers={where: "alice"})
    assert user_of(gateway, answer) == "frontend/alice"
    assert user_of(gateway, gateway.chat(key=FRONT, headers={"X-User-Id": "mallory"})) == "frontend"


def test_a_key_may_have_a_prompt_cap_and_a_default_for_thinking(start_gateway, fake):
    gateway = start_gateway(auth={"valid_keys": [{"key": "short", "max_prompt_chars": 10, "think": False}, KEY]})
    assert gateway.chat("a" * 10, key="short").status == 200
    assert fake.body["think"] is False
    refused = gateway.chat("a" * 11, key="short")
    assert refused.error["message"].startswith("prompt too long, max 10 chars")
    assert gateway.chat("a" * 11, key="short", reasoning_effort="high").status == 400
    assert gateway.chat("a", key="short", reasoning_effort="high").status == 200
    assert fake.body["think"] == "high"
    gateway.chat("a" * 11)
    assert "think" not in fake.body


def test_a_model_may_have_a_prompt_cap(start_gateway):
    gateway = start_gateway(models={"qwen3:32b": {"max_prompt_chars": 20}, "loop": {}})
    assert gateway.chat("a" * 21).status == 400
    assert gateway.chat("say:" + "a" * 21, model="loop").status == 200


# --- X-Forwarded-For ------------------------------------------------------------------------------------------

def test_a_flood_of_wrong_keys_takes_nothing_from_a_good_one(start_gateway, fake):
    gateway = start_gateway(workers=1, rate_limit={"enabled": True, "max_requests": 3, "window_seconds": 600})
    flood = [gateway.wire() for _ in range(4)]
    for round in range(3):
        for n, wire in enumerate(flood):
            wire.send(*[f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer wrong-{round}-{n}-{i}\r\n"
                        f"X-User-Id: u{i}\r\nContent-Length: 2\r\n\r\n{{}}" for i in range(100)])
        assert gateway.chat("say:served").content == "served"
    assert {wire.answer().status for wire in flood for _ in range(300)} == {401}
    assert gateway.chat().status == 429
    assert len(fake.seen()) == 3


FORWARDED = [
    ("10.1.2.3", "10.1.2.3"),
    ("6.6.6.6, 10.1.2.3", "10.1.2.3"),
    ("6.6.6.6, 10.1.2.3, 127.0.0.1", "10.1.2.3"),
    ("10.1.2.3,127.0.0.5 , 127.0.0.1", "10.1.2.3"),
    ("2001:db8::7", "2001:db8::7"),
    ("::ffff:10.1.2.3", "10.1.2.3"),
]


@pytest.mark.parametrize("header,address", FORWARDED)
def test_the_real_client_is_read_from_the_right(behind_proxy, header, address):
    assert behind_proxy.line_of(behind_proxy.chat(headers={"X-Forwarded-For": header}))["address"] == address


@pytest.mark.parametrize("header", ["nonsense", "10.1.2.3, nonsense", "", ","])
def test_what_is_no_address_is_not_believed(behind_proxy, header):
    answer = behind_proxy.chat(headers={"X-Forwarded-For": header})
    assert behind_proxy.line_of(answer)["address"] == "127.0.0.1"


def test_several_headers_are_one_list(behind_proxy):
    answer = behind_proxy.chat(headers=[("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "10.1.2.3")])
    assert behind_proxy.line_of(answer)["address"] == "10.1.2.3"


@pytest.fixture(scope="module")
def behind_proxy(session_fake):
    from conftest import short_folder
    from gateway import Gateway
    with short_folder() as path:
        gateway = Gateway(path, session_fake.url, trusted_proxies=["127.0.0.0/8"])
        yield gateway
        gateway.stop()


def test_from_others_the_header_is_ignored(gateway):
    answer = gateway.chat(headers={"X-Forwarded-For": "10.1.2.3"})
    assert gateway.line_of(answer)["address"] == "127.0.0.1"


def test_ten_thousand_names_and_the_rest_are_other(start_gateway):
    gateway = start_gateway(auth={"valid_keys": [{"key": FRONT, "name": "frontend", "delegate": True}]},
                            rate_limit={"enabled": True, "max_requests": 5, "window_seconds": 600})
    body = json.dumps(chat_body("say:x"))
    wire = gateway.wire()
    batch = 100
    for start in range(0, 10000, batch):
        wire.send(*[f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {FRONT}\r\nX-User-Id: u{n}\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n{body}" for n in range(start, start + batch)])
        assert {wire.answer().status for _ in range(batch)} == {200}
    assert user_of(gateway, gateway.chat(key=FRONT, headers={"X-User-Id": "one-too-many"})) == "frontend/other"
    assert user_of(gateway, gateway.chat(key=FRONT, headers={"X-User-Id": "u77"})) == "frontend/u77"
