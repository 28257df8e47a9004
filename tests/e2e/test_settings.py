"""
The settings that the admin API takes are those that a gateway takes: two tables in two programs, one truth. What a gateway
cannot apply holds up all of its version, so the API must never let it through.
"""

import pytest

from test_pair import start_pair  # noqa: F401

BOOL, COUNT = (False, True), (1, 1000000)
LIMITS = {  # the least and the greatest
    "rate_limit.enabled": BOOL, "rate_limit.max_requests": COUNT, "rate_limit.window_seconds": (1, 86400),
    "rate_limit.retry_after": ("window", "exact"), "whitelist.enabled": (True, False), "response_filter.strip": ([], ["model", "created"]),
    "slow_start": ("0ms", "1h"), "max_waiting": COUNT, "max_waiting_per_user": COUNT, "max_waiting_batch_percent": (1, 99),
    "batch_percent": (1, 50), "max_body_bytes": (1024, 1 << 30), "max_prompt_chars": (0, 1000000000),
    "max_system_chars": (0, 1000000000),
}
SPELLED = {  # other ways to say it
    "rate_limit.window_seconds": ["1s", "24h", "15 m", 60.0], "slow_start": ["3600s", "1 s", "60m"],
    "max_body_bytes": ["1 KiB", "1GiB", "1024 MiB"], "max_waiting": [7.0],
    "response_filter.strip": [["created", "model"], ["model", "model"]],
}
BEYOND = {  # one step further, or of another kind
    "rate_limit.enabled": ["true", 1], "rate_limit.max_requests": [0, 1000001, "5", 1.5, True],
    "rate_limit.window_seconds": [0, 86401, "25h", "500ms", "0s", "60", 9223372036854775807], "rate_limit.retry_after": ["never", 1],
    "whitelist.enabled": ["no"], "response_filter.strip": ["model", ["usage"], [1], {}],
    "slow_start": [0, 1000, "3601s", "1d", "-1s", "01s", "1  s", "99999999999999999999h", "1s\u0000"], "max_waiting": [0, 1000001, []],
    "max_waiting_per_user": [0, 1000001], "max_waiting_batch_percent": [0, 100], "batch_percent": [0, 51],
    "max_body_bytes": [1023, (1 << 30) + 1, "2 GiB", "1 TiB", "1023"], "max_prompt_chars": [-1, 1000000001, "1"],
    "max_system_chars": [-1, 1000000001],
}


@pytest.fixture
def pair(start_pair):  # noqa: F811
    return start_pair(gateways=1)


def allowed(pair):
    document = pair.admin.ask("GET", "/admin/openapi.json").json
    names = next(one for one in document["paths"]["/admin/v1/settings/{id}"]["put"]["parameters"] if one["in"] == "path")
    return names["schema"]["enum"]


def test_a_gateway_applies_every_setting_at_its_least_and_greatest(pair):
    names = allowed(pair)
    assert sorted(names) == sorted(LIMITS), "a limit for each setting there is"
    gateway, = pair.gateways
    pair.wait_applied()
    for turn in range(2):
        for name in names:
            version = pair.admin("PUT", f"/settings/{name}", {"value": LIMITS[name][turn]}).version
        pair.wait_applied(version)
    for name, values in SPELLED.items():
        for value in values:
            version = pair.admin("PUT", f"/settings/{name}", {"value": value}).version
        pair.wait_applied(version)
    assert gateway.metric("control_apply_errors_total") == 0
    assert gateway.metric("control_version", state="applied") == pair.head()


def test_what_a_gateway_would_refuse_is_refused_and_nothing_is_kept_of_it(control):
    for name, values in BEYOND.items():
        for value in values:
            refused = control.call("PUT", f"/settings/{name}", {"value": value})
            assert refused.status == 400 and refused.json["errors"][0]["pointer"] == "/value", (name, value, refused.json)
    assert control.all("/settings") == []


def test_what_is_no_setting_of_gateways_is_refused_with_the_names_of_those_that_are(control):
    for name in ("max_prompt_char", "listen", "auth.enabled", "control.url", "log_level", "x" * 64):
        refused = control.call("PUT", f"/settings/{name}", {"value": 1})
        assert refused.status == 400 and refused.json["code"] == "bad_value", refused.json
        error, = refused.json["errors"]
        assert error["parameter"] == "id" and all(one in error["detail"] for one in LIMITS)
