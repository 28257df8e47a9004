"""One running qwen-gateway: its configuration file, its log, its metrics, and its end."""

import json
import os
import pathlib
import re
import signal
import subprocess
import time

from processes import BIN, REPORTS, environment, free_port, spawn
from wire import Wire, pairs, wait_for

PROGRAM = BIN / "qwen-gateway"
KEY = "prod-key-2024-qwen3"
MODEL = "qwen3:32b"
HEALTH_PATHS = ("/healthz", "/readyz", "/metrics")

ACCESS_LINE = re.compile(
    r"^(?P<user>\S+) (?P<address>\S+) (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) req=(?P<req>\S+) key=(?P<key>\S*)"
    r" (?P<method>\S+) (?P<path>\S+) (?P<status>\d{3})(?P<rest>( [a-z_]+=\S*)*)$")


def defaults(fake_url, folder):
    """What every test's gateway has unless the test says otherwise."""
    return {
        "listen": None,
        "operator_listen": f"unix:{folder}/operator.sock",
        "workers": 2,
        "ollama_api": fake_url,
        "log_level": "info",
        "log_file": f"{folder}/access.log",
        "auth": {"enabled": True, "header_key": "X-Api-Key", "valid_keys": [KEY]},
        "rate_limit": {"enabled": False},
        "core_dumps": os.geteuid() != 0 or None,  # where we are not root, else its /proc is shut to us
    }


def as_yaml(config):
    """One top-level key a line, so that a sentence about a line can be checked."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in config.items() if value is not None)


def merged(config, changes):
    """Sections are merged one level deep; None takes a key out."""
    config = dict(config)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            value = {k: v for k, v in {**config[key], **value}.items() if v is not None}
        config[key] = value
    return config


class Gateway:
    def __init__(self, folder, fake_url, environment_extra=None, arguments=(), preexec=None, pass_fds=(),
                 shell_wrap=None, is_ready_wanted=True, program=PROGRAM, is_started=True, **changes):
        self.folder = pathlib.Path(folder)
        self.program = program
        self.config_path = self.folder / "config.yaml"
        self.errors_path = self.folder / "stderr"
        self.wires = []
        self.ends_well = True
        self.process = None
        self.extra = environment_extra
        self.arguments = arguments
        self.preexec = preexec
        self.pass_fds = pass_fds
        self.shell_wrap = shell_wrap
        self.config = merged(defaults(fake_url, folder), changes)
        self.is_port_ours = self.config["listen"] is None
        if is_started:
            self.start(is_ready_wanted)
        else:
            self.take_port()
            self.write_config()

    # Start ------------------------------------------------------------------------------------------------

    def start(self, is_ready_wanted=True):
        for _ in range(5):
            self.take_port()
            self.write_config()
            self.spawn()
            if self.wait_until_up(is_ready_wanted):
                return
        raise AssertionError(f"no port was free: {self.errors}")

    def take_port(self):
        if self.is_port_ours:
            self.port = free_port()
            self.config["listen"] = f"127.0.0.1:{self.port}"
        elif not self.config["listen"].startswith("unix:"):
            self.port = int(self.config["listen"].rpartition(":")[2])

    def write_config(self, **changes):
        self.config = merged(self.config, changes)
        self.config_path.write_text(as_yaml(self.config))
        self.config_path.chmod(0o600)

    def spawn(self):
        command = [self.program, "--config", self.config_path, *self.arguments]
        if self.shell_wrap:
            command = ["/bin/bash", "-c", self.shell_wrap, *command]
        with open(self.errors_path, "ab") as errors:
            self.process = spawn(command, stdout=errors, stderr=errors, env=environment(self.extra),
                                 preexec_fn=self.preexec, pass_fds=self.pass_fds)

    def wait_until_up(self, is_ready_wanted):
        """True once it answers; False when it ended because its port was taken."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                assert self.is_port_ours and "using that port" in self.errors, f"ended {self.process.returncode}: {self.errors}"
                return False
            try:
                answer = self.operator("/readyz" if is_ready_wanted else "/healthz")
                if answer.status == 200:
                    return True
            except (OSError, AssertionError):
                pass
            time.sleep(0.01)
        raise AssertionError(f"not up within 30 s: {self.errors}")

    # Talking to it ----------------------------------------------------------------------------------------

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def wire(self, source=None, host="127.0.0.1", **options):
        where = self.config["listen"]
        wire = Wire(where[len("unix:"):] if where.startswith("unix:") else (host, self.port), source, **options)
        self.wires.append(wire)
        return wire

    def operator_wire(self):
        where = self.config["operator_listen"]
        if where.startswith("unix:"):
            wire = Wire(where[len("unix:"):])
        else:
            host, _, port = where.rpartition(":")
            wire = Wire((host, int(port)))
        self.wires.append(wire)
        return wire

    def operator(self, path, method="GET", host="localhost"):
        wire = self.operator_wire()
        try:
            return wire.request(method, path, {"Connection": "close"}, host=host).answer(method)
        finally:
            wire.close()

    def call(self, method, path, body=None, headers=(), key=KEY, source=None, may_be_cut=False):
        """One request on a connection of its own. `key` goes as a bearer token unless None."""
        headers = pairs(headers)
        if key is not None:
            headers.append(("Authorization", f"Bearer {key}"))
        wire = self.wire(source)
        try:
            return wire.request(method, path, headers, body).answer(method, may_be_cut)
        finally:
            wire.close()

    def get(self, path, headers=(), key=KEY):
        return self.call("GET", path, None, headers, key)

    def chat(self, content="hi", headers=(), key=KEY, source=None, path="/v1/chat/completions", may_be_cut=False,
             **fields):
        return self.call("POST", path, chat_body(content, **fields), headers, key, source, may_be_cut)

    def stream(self, content="hi", **fields):
        return self.chat(content, stream=True, **fields)

    def open_chat(self, content="hi", headers=(), key=KEY, source=None, receive_buffer=None, **fields):
        """Sends a chat and gives the connection: the answer is still to be read."""
        headers = pairs(headers) + [("Authorization", f"Bearer {key}")]
        wire = self.wire(source, receive_buffer=receive_buffer)
        return wire.request("POST", "/v1/chat/completions", headers, chat_body(content, **fields))

    # Its books --------------------------------------------------------------------------------------------

    @property
    def errors(self):
        return self.errors_path.read_text(errors="replace")

    @property
    def log_path(self):
        return pathlib.Path(self.config["log_file"]) if self.config.get("log_file") else self.errors_path

    @property
    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def requests_logged(self):
        """Every access line as a dictionary: the eight fields and the pairs."""
        whole = self.log[:self.log.rfind("\n") + 1].splitlines()
        if self.config.get("log_format") == "json":
            lines = [json.loads(line) for line in whole if line.startswith("{")]
            return [line for line in lines if "method" in line and "status" in line]
        found = []
        for line in whole:
            if match := ACCESS_LINE.match(line):
                fields = match.groupdict()
                fields.update(pair.split("=", 1) for pair in fields.pop("rest").split())
                found.append({**fields, "line": line})
        return found

    def wait_line(self, req=None, timeout=5, **wanted):
        """The access line of that request id (or with those fields), once it is written."""
        if req:
            wanted["req"] = req

        def there():
            return [line for line in self.requests_logged() if all(str(line.get(k)) == str(v) for k, v in wanted.items())]
        return wait_for(there, timeout, f"a log line with {wanted}")[-1]

    def line_of(self, answer):
        return self.wait_line(req=answer.header("X-Request-Id"))

    def wait_log(self, pattern, timeout=5, where=None):
        """Waits for a line that is found by this pattern, in the log or on stderr."""
        def there():
            return re.search(pattern, self.log + "\n" + self.errors, re.MULTILINE)
        return wait_for(there, timeout, f"/{pattern}/ in the log")

    def metrics(self):
        """[(name, labels, value)] of /metrics."""
        answer = self.operator("/metrics")
        assert answer.status == 200, answer
        found = []
        for line in answer.text.splitlines():
            if line and not line.startswith("#"):
                match = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)', line)
                assert match, f"not a sample: {line!r}"
                labels = dict(re.findall(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"', match[2] or ""))
                found.append((match[1], labels, float(match[3])))
        return found

    def metric(self, name, **labels):
        """The sum over all samples of that name with those labels."""
        name = name if name.startswith("qwen_gateway_") else f"qwen_gateway_{name}"
        return sum(value for found, its, value in self.metrics()
                   if found == name and all(its.get(k) == v for k, v in labels.items()))

    # Its end ----------------------------------------------------------------------------------------------

    def signal(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        """For a test that ends it the hard way."""
        self.ends_well = False
        self.process.kill()
        self.process.wait()

    def wait_exit(self, timeout=10):
        return self.process.wait(timeout)

    def close_wires(self):
        for wire in self.wires:
            wire.close()
        self.wires.clear()

    def check_books(self):
        """Lines written and lines dropped make up the requests counted."""
        def balance():
            counted = self.metric("requests_total")
            return (counted, len(self.requests_logged()) + self.metric("log_dropped_total"))

        def agrees():
            counted, written = balance()
            return counted == written and self.metric("in_flight") == 0
        try:
            wait_for(agrees, 5)
        except AssertionError:
            raise AssertionError(f"requests counted and lines written differ: {balance()},"
                                 f" {self.metric('in_flight')} in flight") from None

    def stop(self, within=10):
        """Checks the books, ends it by SIGTERM, and looks for what the sanitizers said."""
        self.close_wires()
        try:
            if self.process.poll() is None and self.ends_well:
                self.check_books()
        finally:
            self.end(within)

    def end(self, within):
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            self.wait_exit(within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"did not end within {within} s of SIGTERM: {self.errors[-2000:]}") from None
        finally:
            self.check_reports()
        assert not self.ends_well or self.process.returncode == 0, \
            f"ended with {self.process.returncode}: {self.errors[-4000:]}"

    def check_reports(self):
        said = self.errors
        assert not any(report in said for report in REPORTS), said[-8000:]


def chat_body(content="hi", model=MODEL, messages=None, **fields):
    """A chat request; a field given as None is left out, JSON's null is written NULL."""
    body = {"model": model, "messages": messages if messages is not None else [{"role": "user", "content": content}]}
    body.update(fields)
    return {key: (None if value is NULL else value) for key, value in body.items() if value is not None}


class _Null:
    pass


NULL = _Null()
