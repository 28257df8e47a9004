"""The configuration file: what stops the start and how it is said, what has which default, the options."""

import hashlib
import json
import os
import pathlib
import re
import resource
import socket
import subprocess

import pytest

from gateway import KEY, PROGRAM, as_yaml, defaults, merged
from processes import environment, free_port, has_ipv6, run
from wire import Cut, wait_for

MINIMAL = f"""\
listen: ":18789"
ollama_api: "http://localhost:11434"
log_level: "info"
rate_limit: {{ enabled: true, max_requests: 30, window_seconds: 60 }}
auth:       {{ enabled: true, header_key: "X-Api-Key", valid_keys: ["{KEY}"] }}
whitelist:  {{ enabled: true, ips: ["127.0.0.1", "10.0.0.0/16"] }}
"""
BLOCK_STYLE = f"""\
# a comment
listen: ":18789"
ollama_api: http://localhost:11434   # another
rate_limit:
  enabled: true
  max_requests: 30
  window_seconds: 60
auth:
  enabled: true
  header_key: X-Api-Key
  valid_keys:
    - {KEY}
    - 'single-quoted'
whitelist:
  enabled: true
  ips:
  - 127.0.0.1
  - "10.0.0.0/16"
"""


def check(folder, text, *arguments):
    path = f"{folder}/config.yaml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o600)
    return run([PROGRAM, "--config", path, *(arguments or ("--check",))])


@pytest.mark.parametrize("text", [MINIMAL, BLOCK_STYLE], ids=["flow", "block"])
def test_the_file_of_the_contract_is_good(folder, text):
    done = check(folder, text)
    assert done.returncode == 0, done.stderr


AUTH_OFF = "auth: { enabled: false }\nrate_limit: { enabled: false }\nollama_api: http://localhost:11434\n"

GOOD = {
    "nothing but keys": f'ollama_api: "http://localhost:11434"\nauth: {{ valid_keys: ["{KEY}"] }}\n',
    "auth off": AUTH_OFF,
    "durations": AUTH_OFF + "head_timeout: 500ms\nbody_timeout: 2m\nidle_timeout: 1h\ndrain_delay: 0s\nwrite_timeout: 9s\n",
    "sizes": AUTH_OFF + "max_body_bytes: 5MiB\nmax_line_bytes: 100KiB\nmax_body_memory_bytes: 2GiB\n",
    "bytes": AUTH_OFF + "max_body_bytes: 1000000\n",
    "networks": AUTH_OFF + 'whitelist: { enabled: true, ips: ["::1", "2001:db8::/32", "10.0.0.0/8", "192.168.1.7"] }\n',
    "proxies": AUTH_OFF + 'trusted_proxies: ["127.0.0.1", "10.0.0.0/8"]\n',
    "json log": AUTH_OFF + "log_format: json\n",
    "unix": AUTH_OFF + "operator_listen: unix:/run/qwen-gateway/operator.sock\n",
    "a key by hash": "ollama_api: http://localhost:11434\nauth: { valid_keys: [\"sha256:" + "0" * 64 + "\"] }\n",
    "strip": AUTH_OFF + "response_filter: { strip: [model, created] }\n",
    "ipv6": AUTH_OFF + 'listen: "[::1]:18789"\n',
    "backends": """\
auth: { enabled: false }
backends:
  - name: gpu1
    url: http://10.0.0.5:11434
    slots: 4
    models: [qwen3:32b, llama3]
    weight: 2
  - { name: spare, url: "http://[fd00::1]:11434", kind: ollama, weight: 0 }
  - { name: leaving, url: http://gpu3, drain: true }
""",
    "a queue": AUTH_OFF + "queue_timeout: 10ms\nmax_waiting: 1\nmax_waiting_per_user: 1\nbatch_percent: 50\n"
               "max_waiting_batch_percent: 99\n"
               "slow_start: 0s\nwarm_timeout: 10m\nsession_header: X-OpenWebUI-Chat-Id\n",
    "a key with weight": "ollama_api: http://localhost:11434\n"
                         "auth: { valid_keys: [{ key: nightly, weight: 1000, class: batch }] }\n",
    "a model to preload": AUTH_OFF + "models: { qwen3:32b: { keep_alive: -1, preload: true } }\n",
}


@pytest.mark.parametrize("which", GOOD)
def test_good_files(folder, which):
    done = check(folder, GOOD[which])
    assert done.returncode == 0, done.stderr


# name: (lines added to a good file, what the sentence names beside the file)
BAD = {
    "unknown key": ("no_such_key: 1\n", ["no_such_key"]),
    "unknown inner key": ("whitelist: { enabled: true, addresses: [] }\n", ["addresses"]),
    "duplicate key": ('listen: ":1"\nlisten: ":2"\n', ["listen"]),
    "duplicate inner key": ("whitelist: { enabled: true, enabled: false }\n", ["enabled"]),
    "a list for a word": ("listen: [a]\n", ["listen"]),
    "a word for a list": ("trusted_proxies: here\n", ["trusted_proxies"]),
    "a word for a section": ("whitelist: on\n", ["whitelist"]),
    "a word for a number": ("max_connections: many\n", ["max_connections"]),
    "a word for yes or no": ('whitelist: { enabled: "perhaps" }\n', ["enabled"]),
    "a bad network": ('whitelist: { enabled: true, ips: ["10.0.0.0/33"] }\n', ["ips", "10.0.0.0/33"]),
    "no network at all": ('whitelist: { enabled: true, ips: ["localhost"] }\n', ["ips", "localhost"]),
    "a range turned round": ('whitelist: { enabled: true, ips: ["10.0.0.256"] }\n', ["ips"]),
    "host bits": ('whitelist: { enabled: true, ips: ["10.0.0.1/8"] }\n', ["ips", "10.0.0.1/8"]),
    "a port too high": ('listen: ":65536"\n', ["listen"]),
    "no port": ('listen: "127.0.0.1"\n', ["listen"]),
    "a duration without unit": ("head_timeout: 10\n", ["head_timeout"]),
    "a duration of no unit": ("head_timeout: 10parsecs\n", ["head_timeout"]),
    "a half duration": ("head_timeout: 1.5s\n", ["head_timeout"]),
    "a negative duration": ("head_timeout: -1s\n", ["head_timeout"]),
    "a size of no unit": ("max_body_bytes: 5MB\n", ["max_body_bytes"]),
    "a huge size": ("max_body_bytes: 99999999999999999999\n", ["max_body_bytes"]),
    "an unknown level": ("log_level: chatty\n", ["log_level"]),
    "an unknown format": ("log_format: xml\n", ["log_format"]),
    "workers below one": ("workers: -1\n", ["workers"]),
    "both backends": ("backends: [{ name: a, url: http://localhost:1 }]\n", ["backends", "ollama_api", "line 3"]),
    "both backends, turned round": ("backends: [{ name: a, url: http://gpu1 }]\nollama_api: http://localhost:11434\n",
                                    ["backends", "ollama_api", "line 4"]),
    "a url that is none": ("ollama_api: nowhere\n", ["ollama_api"]),
    "an unknown rule": ("seccomp: sometimes\n", ["seccomp", "enforce"]),
    "dumps, perhaps": ("core_dumps: perhaps\n", ["core_dumps"]),
    "a host that is none": ("operator_hosts: [\"a:80\"]\n", ["operator_hosts[1]"]),
    "a stripped field nobody knows": ("response_filter: { strip: [everything] }\n", ["strip"]),
    "an anchor": ("whitelist: &one { enabled: false }\n", []),
    "an alias": ("trusted_proxies: *one\n", []),
    "a second document": ("---\nlisten: \":1\"\n", []),
    "not YAML": ("listen: [\n", []),
    "a tab": ("whitelist:\n\tenabled: true\n", []),
}


def with_lines(added):
    """A good file with these lines, in place of the ones that set the same keys."""
    keys = {line.partition(":")[0] for line in added.splitlines()}
    kept = [line for line in AUTH_OFF.splitlines() if line.partition(":")[0] not in keys]
    return "\n".join(kept) + "\n" + added


@pytest.mark.parametrize("which", BAD)
def test_what_stops_the_start_is_said_in_one_sentence(folder, which):
    added, named = BAD[which]
    text = with_lines(added)
    done = check(folder, text)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    said = done.stderr.strip()
    assert re.search(r"config\.yaml:\d+|config\.yaml.*line \d+", said), said
    assert all(word in said for word in named), said
    assert len(said.splitlines()) == 1, said
    started = run([PROGRAM, "--config", f"{folder}/config.yaml"])
    assert (started.returncode, started.stderr.strip()) == (2, said)


def test_the_line_is_the_right_one(folder):
    done = check(folder, "# one\n# two\nollama_api: http://localhost:11434\nauth: { enabled: false }\nhead_timeout: soon\n")
    assert re.search(r"config\.yaml:5\b|line 5\b", done.stderr), done.stderr


def test_auth_without_keys_stops_the_start(folder):
    for text in ("ollama_api: http://localhost:11434\n", "ollama_api: http://localhost:11434\nauth: { valid_keys: [] }\n"):
        done = check(folder, text)
        assert done.returncode == 2
        assert "valid_keys" in done.stderr


@pytest.mark.parametrize("text", ["", "# nothing\n", "just words\n", "- a\n- list\n", "\x00"])
def test_a_file_that_is_no_configuration_stops_the_start(folder, text):
    assert check(folder, text).returncode == 2


def test_no_file_stops_the_start(folder):
    done = run([PROGRAM, "--config", f"{folder}/nowhere.yaml"])
    assert done.returncode == 2 and "nowhere.yaml" in done.stderr


def test_random_bytes_stop_the_start_and_nothing_crashes(folder):
    for seed in range(20):
        with open(f"{folder}/random", "wb") as file:
            file.write(b"".join(hashlib.sha256(f"{seed} {n}".encode()).digest() for n in range(20)))
        done = run([PROGRAM, "--config", f"{folder}/random", "--check"], errors="replace")
        assert done.returncode == 2


DEFAULTS = {
    "operator_listen": "127.0.0.1:18790", "max_body_bytes": "32 ?MiB|33554432", "max_prompt_chars": "32768",
    "max_system_chars": "131072", "max_body_memory_bytes": "1 ?GiB|1073741824", "max_connections": "15000",
    "max_connections_per_address": "1000", "max_buffer_memory_bytes": "64 ?MiB|67108864",
    "max_line_bytes": "64 ?MiB|67108864", "head_timeout": "10s", "body_timeout": "60s|1m",
    "idle_timeout": "120s|2m", "write_timeout": "60s|1m", "connect_timeout": "3s", "first_token_timeout": "300s|5m",
    "stream_idle_timeout": "120s|2m", "queue_timeout": "120s|2m", "max_waiting": "1000", "max_waiting_per_user": "100",
    "max_waiting_batch_percent": "50", "batch_percent": "10",
    "slow_start": "10s", "warm_timeout": "300s|5m", "session_header": "X-Session-Id",
    "backends": "ollama_api", "drain_timeout": "30s", "drain_delay": "0s?", "linger_timeout": "2s",
    "heartbeat_interval": "10s", "commit_after": "10s",
}


def test_print_config_shows_every_setting_and_where_it_came_from(folder):
    done = check(folder, MINIMAL, "--print-config")
    assert done.returncode == 0, done.stderr
    for name, wanted in DEFAULTS.items():
        assert re.search(rf"^\s*{name}\b.*({wanted}).*default", done.stdout, re.MULTILINE), (name, done.stdout)
    assert re.search(r"max_requests.*30.*(config\.yaml:4|line 4)", done.stdout), done.stdout


BACKENDS = """\
backends:
  - { name: gpu1, url: http://10.0.0.5:11434, slots: 4, models: [Qwen3:32B], drain: true }
  - name: gpu2
    url: http://gpu2
    weight: 0
auth:
  valid_keys:
    - { key: nightly-secret, name: nightly, weight: 7, class: batch }
models: { qwen3:32b: { preload: true } }
"""


def test_print_config_shows_each_backend_and_which_line_says_so(folder):
    done = check(folder, BACKENDS, "--print-config")
    assert done.returncode == 0, done.stderr
    for wanted in (r"ollama_api:\s+none\b", r"backends:\s+2 backends\b.*config\.yaml:1$",
                   r"  gpu1\s+http://10\.0\.0\.5:11434, slots 4, weight 1, models qwen3:32b, drain\s.*config\.yaml:2$",
                   r"  gpu2\s+http://gpu2:80, slots 0 \(no limit\), weight 0 \(standby\)\s.*config\.yaml:3$",
                   r"  nightly\s.*, weight 7, class batch\s.*config\.yaml:8$", r"  qwen3:32b\s.*, preload\s.*config\.yaml:9$"):
        assert re.search(rf"^{wanted}", done.stdout, re.MULTILINE), (wanted, done.stdout)


# name: (the entries, what the sentence says after the file's name)
BAD_BACKENDS = {
    "none": ("backends: []\n", ":2: backends is empty: leave it out for the one of ollama_api"),
    "no list": ("backends: http://me:secret@gpu1\n", ":2: backends must be a list, each entry with a name and a url"),
    "no name": ("backends:\n  - url: http://a\n", ":3: backends[1] needs a name, which log and metrics call it by"),
    "no url": ("backends:\n  - name: a\n", ":3: backends[1] needs a url, such as http://10.0.0.5:11434"),
    "two of one name": ("backends:\n  - { name: a, url: http://a }\n  - { name: a, url: http://b }\n",
                        ":4: backends[2] is named a, as is the backend in line 3"),
    "two at one place": ("backends:\n  - { name: a, url: http://a }\n  - { name: b, url: http://A:80 }\n",
                         ":4: backends[2] is at the host and port of a in line 3"),
    "a kind to come": ("backends:\n  - { name: a, url: http://a, kind: openai }\n",
                       ':3: backends[1].kind must be ollama, not "openai"'),
    "slots below none": ("backends:\n  - { name: a, url: http://a, slots: -1 }\n",
                         ':3: backends[1].slots must be a whole number from 0 to 10000, not "-1"'),
    "a cloud model": ("backends:\n  - { name: a, url: http://a, models: [qwen3:cloud] }\n",
                      ":3: backends[1].models[1] is a cloud model: prompts would leave this machine"),
    "a model twice": ("backends:\n  - { name: a, url: http://a, models: [qwen3, Qwen3:latest] }\n",
                      ":3: backends[1].models[2] is the same model as [1] in line 3"),
}


@pytest.mark.parametrize("which", BAD_BACKENDS)
def test_bad_backends_stop_the_start_in_one_sentence(folder, which):
    added, said = BAD_BACKENDS[which]
    done = check(folder, "auth: { enabled: false }\n" + added)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert done.stderr == f"qwen-gateway: {folder}/config.yaml{said}\n"


def test_print_config_masks_keys(folder):
    done = check(folder, MINIMAL, "--print-config")
    assert KEY not in done.stdout + done.stderr
    assert KEY[:10] not in done.stdout


def test_a_missing_section_has_its_default(start_gateway):
    gateway = start_gateway(rate_limit=None)
    assert gateway.chat().header("x-ratelimit-limit-requests") == "30"
    assert gateway.chat(key="wrong").status == 401
    assert gateway.chat(source="127.0.0.9").status == 200


def test_hash_key_prints_the_form_for_the_file(start_gateway):
    done = subprocess.run([PROGRAM, "--hash-key"], input=b"my-secret\n", capture_output=True, env=environment(), timeout=30)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.decode().split()[-1]
    assert printed == "sha256:" + hashlib.sha256(b"my-secret").hexdigest()
    gateway = start_gateway(auth={"valid_keys": [printed]})
    assert gateway.chat(key="my-secret").status == 200
    assert gateway.chat(key=printed).status == 401


def test_version_and_help():
    version = run([PROGRAM, "--version"])
    assert version.returncode == 0 and re.search(r"\d+\.\d+\.\d+", version.stdout)
    told = run([PROGRAM, "--help"])
    assert told.returncode == 0
    for option in ("--config", "--check", "--print-config", "--hash-key", "--version"):
        assert option in told.stdout


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["--config"], ["stray"]])
def test_wrong_options_are_status_2(arguments):
    done = run([PROGRAM, *arguments])
    assert done.returncode == 2 and done.stderr.strip()


def test_a_file_with_plain_keys_that_others_may_read_is_warned_about(folder):
    path = f"{folder}/config.yaml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(MINIMAL)
    os.chmod(path, 0o644)
    loud = run([PROGRAM, "--config", path, "--check"])
    os.chmod(path, 0o600)
    quiet = run([PROGRAM, "--config", path, "--check"])
    assert loud.returncode == quiet.returncode == 0
    assert "config.yaml" in loud.stderr and len(loud.stderr) > len(quiet.stderr)
    assert KEY not in loud.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be warned about")
def test_root_without_user_is_warned_about(gateway):
    gateway.wait_log(r"(?i)root")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop to another user")
def test_user_is_dropped_to(start_gateway, folder):
    os.chmod(folder, 0o777)
    gateway = start_gateway(user="nobody", log_file=f"{folder}/access.log", operator_listen=f"127.0.0.1:{free_port()}")
    assert gateway.chat().status == 200
    with open(f"/proc/{gateway.process.pid}/status", encoding="ascii") as status:
        uids = next(line for line in status if line.startswith("Uid:")).split()[1:]
    assert set(uids) == {"65534"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop to another user")
def test_a_user_who_cannot_read_the_file_again_is_warned_about(start_gateway, folder):
    os.chmod(folder, 0o777)
    gateway = start_gateway(user="nobody", log_file=f"{folder}/access.log", operator_listen=f"127.0.0.1:{free_port()}")
    gateway.wait_log("as user nobody every reload would be refused: .*config.yaml: cannot be read: Permission denied")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop to another user")
def test_root_is_nobody_to_drop_to(folder):
    done = run_config(folder, merged(defaults("http://127.0.0.1:9", folder),
                                     {"listen": f"127.0.0.1:{free_port()}", "user": "root"}))
    assert done.returncode not in (0, 99) and "user: root is root; name somebody who is not" in done.stderr


def test_callers_may_come_through_a_unix_socket(start_gateway, folder):
    gateway = start_gateway(listen=f"unix:{folder}/callers.sock", workers=3)
    for n in range(20):
        assert gateway.chat(f"say:{n}").content == str(n)
    wait_for(lambda: len(gateway.requests_logged()) == 20, 5, "twenty lines")
    assert {line["address"] for line in gateway.requests_logged()} == {"::1"}
    gateway.stop()
    assert not os.path.exists(f"{folder}/callers.sock")


def test_a_taken_port_is_one_clear_sentence(folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_config(folder, merged(defaults("http://127.0.0.1:9", folder), {"listen": f"127.0.0.1:{port}"}))
    assert done.returncode not in (0, 99) and "using that port" in done.stderr
    assert str(port) in done.stderr


def run_config(folder, config):
    with open(f"{folder}/config.yaml", "w", encoding="utf-8") as file:
        file.write(as_yaml(config))
    os.chmod(f"{folder}/config.yaml", 0o600)
    return run([PROGRAM, "--config", f"{folder}/config.yaml"])


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_a_bare_port_listens_on_both_families(start_gateway):
    port = free_port()
    gateway = start_gateway(listen=f":{port}", whitelist={"enabled": True, "ips": ["127.0.0.1"]})
    for host in ("127.0.0.1", "::1"):
        answer = gateway.wire(host=host).request("GET", "/healthz").answer("GET")
        assert answer.status == 200
    assert gateway.wire(source="127.0.0.2").is_closed()


def test_localhost_tries_each_of_its_addresses(start_gateway, fake):
    gateway = start_gateway(ollama_api=f"http://localhost:{fake.port}")
    assert gateway.chat().status == 200


def test_no_stream_stands_still_because_the_table_of_descriptors_grows(start_gateway):
    """Growing it would stop a worker for tens of milliseconds, so it has its full size from the start."""
    gateway = start_gateway(max_connections=600)
    status = pathlib.Path(f"/proc/{gateway.process.pid}/status").read_text()
    assert int(re.search(r"^FDSize:\s*(\d+)", status, re.M)[1]) >= 2 * 600


def test_max_connections_is_capped_by_the_descriptor_limit_and_said_once(start_gateway):
    gateway = start_gateway(preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300)), max_connections=15000)
    gateway.wait_log("max_connections")
    said = [line for line in (gateway.log + gateway.errors).splitlines() if "max_connections" in line]
    assert len(said) == 1


def test_connections_over_the_cap_of_one_address_are_closed(start_gateway):
    gateway = start_gateway(max_connections_per_address=3)
    held = [gateway.wire() for _ in range(3)]
    for wire in held:
        assert wire.request("GET", "/healthz").answer("GET").status == 200
    assert gateway.wire().is_closed()
    other = gateway.wire(source="127.0.0.7").request("GET", "/healthz").answer("GET")
    assert other.status == 200
    held[0].close()
    def admitted():
        try:
            return gateway.call("GET", "/healthz").status == 200
        except (Cut, ConnectionError):
            return False
    wait_for(admitted)


def test_trusted_proxies_have_no_cap_of_their_own(start_gateway):
    gateway = start_gateway(max_connections_per_address=3, trusted_proxies=["127.0.0.1"])
    for wire in [gateway.wire() for _ in range(10)]:
        assert wire.request("GET", "/healthz").answer("GET").status == 200


def test_connections_over_the_cap_in_all_are_closed(start_gateway, fake):
    gateway = start_gateway(max_connections=4)
    fake.script(times=4, silent=True)
    for _ in range(4):
        gateway.open_chat()
    fake.wait_chats(4)
    assert gateway.wire().is_closed()
    gateway.close_wires()
    wait_for(lambda: gateway.metric("connections_open") == 0)
    assert gateway.chat().status == 200


def test_the_file_may_hold_json(folder):
    done = check(folder, json.dumps({"ollama_api": "http://localhost:11434", "auth": {"valid_keys": [KEY]}}))
    assert done.returncode == 0, done.stderr
