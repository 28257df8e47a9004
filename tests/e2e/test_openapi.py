"""
The OpenAPI document against the program: schemathesis makes requests of it, good ones and bad ones, and holds every answer
against it. Longer: tests/long/run openapi.
"""

import os
import pathlib
import re
import subprocess
import sys

from processes import ROOT, die_with_parent

HERE = ROOT / "tests" / "e2e"


def furnish(control):
    """What openapi_hooks.py says is there."""
    control.good("POST", "/teams", {"name": "ops"})
    control.good("POST", "/users", {"name": "alice", "team": "ops"})
    control.good("POST", "/users", {"name": "bob"})
    control.good("POST", "/keys", {"user": "alice", "name": "laptop"})
    control.good("POST", "/whitelist", {"cidr": "10.0.0.0/8"})
    control.good("POST", "/models", {"name": "qwen3:32b"})
    control.good("POST", "/backends", {"name": "gpu1", "url": "http://10.0.0.5:11434"})
    control.good("PUT", "/settings/rate_limit.max_requests", {"value": 30})
    control.good("POST", "/gateways", {"name": "gw1"})


BRIEF = """
# Written beside the rest for the short run: these are made of the same tables as the others.
[[operations]]
include-path-regex = "/(teams|models|backends|admin-tokens|whitelist)"
phases.coverage.enabled = false
"""


def schemathesis(control, folder, *arguments, more="", timeout=600):
    """Runs it; fails with what it found."""
    config = pathlib.Path(folder) / "schemathesis.toml"
    config.write_text((HERE / "schemathesis.toml").read_text() + more)
    program = pathlib.Path(sys.executable).with_name("schemathesis")
    address = f"http://127.0.0.1:{control.port}"
    done = subprocess.run(
        [str(program), "--config-file", str(config), "run", f"{address}/admin/openapi.json", "--url", address,
         "--header", f"Authorization: Bearer {control.token}", "--no-shrink", "--continue-on-failure", "--no-color", "--warnings", "off",
         *map(str, arguments)],
        env={**os.environ, "SCHEMATHESIS_HOOKS": "openapi_hooks", "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=folder, preexec_fn=die_with_parent, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, "\n".join(line[:600] for line in (done.stdout + done.stderr).splitlines())[-12000:]
    return done.stdout


def test_the_document_is_valid(control, folder):
    """By schemathesis's own judge of OpenAPI 3.1, and by looking: every route of it is there, every one there is in it."""
    document = control.good("GET", "/admin/openapi.json", token=None)
    assert document["openapi"] == "3.1.0" and document.headers["Content-Type"] == "application/json"
    for path, operations in document["paths"].items():
        named = path.replace("{id}", "0" if "confirmations" in path else "nobody")
        for method, operation in operations.items():
            wanted = 200 if path == "/admin/openapi.json" else 401
            assert control.call(method.upper(), named, token=None).status == wanted, (method, path)
            assert operation["operationId"] and operation["summary"]
        others = {"GET", "POST", "PUT", "PATCH", "DELETE"} - {method.upper() for method in operations}
        for method in sorted(others) + ["HEAD", "OPTIONS", "TRACE", "QUERY"]:
            answer = control.call(method, named)
            assert answer.status == 405, (method, path, answer)
            assert set(answer.headers["Allow"].split(", ")) == {method.upper() for method in operations}


def test_every_answer_is_as_the_document_says(start_control, folder):
    control = start_control(admin_wrong_tokens=1000000, log_level="warn")
    furnish(control)
    said = schemathesis(control, folder, "--seed", "1", "--max-examples", "2", more=BRIEF)
    assert int(re.search(r"([0-9]+) generated", said)[1]) > 1000
