"""
What schemathesis cannot know from the OpenAPI document: which strings are ranges of addresses, times to come, cursors, and
names of what is really there. Loaded by it (SCHEMATHESIS_HOOKS), not by pytest.
"""

import datetime
import ipaddress
import itertools
import random
import re

import schemathesis
from hypothesis import strategies as st

USERS = ("alice", "bob")
THERE = {  # made by test_openapi.py before the run
    "users": "alice", "teams": "ops", "keys": "alice/laptop", "whitelist": "10.0.0.0/8", "models": "qwen3:32b",
    "backends": "gpu1", "settings": "rate_limit.max_requests", "gateways": "gw1", "admin-tokens": "owner",
}
VALUES = {"enabled": True, "retry_after": "exact", "strip": ["model"], "slow_start": "5s", "max_body_bytes": "1 MiB"}  # others: 20
NUMBERS = itertools.count()
MATCH = re.compile(r'("[1-9][0-9]{0,8}"|\*)')


def network(address, bits, width):
    return str(ipaddress.ip_network((address >> (width - bits) << (width - bits), bits))).removesuffix(f"/{width}")


schemathesis.openapi.format("cidr", st.one_of(
    st.builds(lambda address, bits: network(address, bits, 32), st.integers(0, 2**32 - 1), st.integers(0, 32)),
    st.builds(lambda address, bits: network(address, bits, 128), st.integers(2**64, 2**128 - 1), st.integers(0, 128)),
))
schemathesis.openapi.format("date-time", st.datetimes(
    min_value=datetime.datetime(2040, 1, 1), max_value=datetime.datetime(2099, 12, 31),
).map(lambda time: time.strftime("%Y-%m-%dT%H:%M:%SZ")))


def is_good(case):
    """Meant to be accepted? What is meant to be refused stays as it is."""
    return case.meta is None or case.meta.generation.mode.is_positive


def mend(body):
    """What the document says in words only."""
    for name in ("expires_in", "keep_for"):
        if isinstance(body.get(name), str):
            body[name] = "30d"
    if isinstance(body.get("expires_at"), str):
        body["expires_at"] = "2050-01-01T00:00:00Z"
    if "user" in body:
        body["user"] = USERS[len(str(body)) % len(USERS)]
        body["create_user"] = True  # it may have been deleted
    if "team" in body:
        body["team"] = None
    if "alias_of" in body:
        body["alias_of"] = None
    if "[" in str(body.get("url", "")):
        body["url"] = f"http://[::1]:{random.randint(1, 65535)}"
    if "secret" in body:
        body.pop("hash", None)
        body.pop("prefix", None)
        body["secret"] = f"secret-{next(NUMBERS)}"  # one that looks like ours must have its check digits
    if "keys" in body:
        body["create_users"] = True
    for key in body.get("keys", ()):
        mend(key)
        key.pop("create_user", None)


def aim(case):
    """Half of what only looks and changes is about something that is there."""
    noun = case.path.split("/")[3]
    if noun in THERE and "id" in (case.path_parameters or {}) and len(str(case.body)) % 2:
        case.path_parameters["id"] = THERE[noun]
        if isinstance(case.body, dict):
            case.body.pop("name", None)
            case.body["note" if noun != "settings" else "value"] = "aimed"


@schemathesis.hook
def before_call(context, case, kwargs):
    if not is_good(case):
        return
    if case.query:
        case.query.pop("cursor", None)
    if isinstance(case.body, dict):
        mend(case.body)
    if case.path.startswith("/admin/v1/settings/") and case.method == "PUT":
        case.body["value"] = VALUES.get(case.path_parameters["id"].split(".")[-1], 20)  # of any of them, the document says
    if case.headers and "If-Match" in case.headers and not MATCH.fullmatch(str(case.headers["If-Match"])):
        case.headers["If-Match"] = "*"
    if case.headers and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = f"once-{next(NUMBERS)}"  # another one for another request
    if case.method in ("GET", "PATCH") and case.meta and case.meta.phase.name.value != "stateful":
        aim(case)
    if case.method == "DELETE" and "/admin-tokens/" in case.path:
        case.path_parameters["id"] = "nobody"  # not the one that all this is done with
