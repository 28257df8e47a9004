"""
What schemathesis cannot know from the OpenAPI document: which strings are ranges of addresses, times to come, cursors, and
names of what is really there. Loaded by it (SCHEMATHESIS_HOOKS), not by pytest.
"""

import datetime
import ipaddress
import random

import schemathesis
from hypothesis import strategies as st

USERS = ("alice", "bob")  # made by test_openapi.py before the run
MODEL = "qwen3:32b"


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
    if "team" in body:
        body["team"] = None
    if "alias_of" in body:
        body["alias_of"] = None
    if "[" in str(body.get("url", "")):
        body["url"] = f"http://[::1]:{random.randint(1, 65535)}"
    if "hash" in body and "secret" in body:
        del body["secret"]
    for key in body.get("keys", ()):
        mend(key)


@schemathesis.hook
def before_call(context, case, kwargs):
    if not is_good(case):
        return
    if case.query:
        case.query.pop("cursor", None)
    if isinstance(case.body, dict):
        mend(case.body)
