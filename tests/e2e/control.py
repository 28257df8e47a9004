"""
The control plane as a process of the test: `qwen-control run` before a database of its own, on a free port or a unix
socket, and a caller for its admin API.
"""

import http.client
import json
import pathlib
import signal
import socket
import subprocess
import urllib.parse

from postgres import CONTROL
from processes import REPORTS, environment, free_port, spawn
from wire import wait_for


class Answer:
    """Of one call: status, headers (by any case), body as JSON where it is some, else text."""

    def __init__(self, response, body):
        self.status, self.headers = response.status, response.headers
        self.text = body.decode(errors="replace")
        self.json = json.loads(body) if body and "json" in response.headers.get("Content-Type", "") else None

    def __getitem__(self, name):
        return self.json[name]

    @property
    def version(self):
        """As If-Match wants it."""
        return self.headers["ETag"]

    @property
    def config_version(self):
        return int(self.headers["Qwen-Config-Version"])

    def __repr__(self):
        return f"{self.status} {self.text[:2000]}"


class _Local(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Control:
    """
    `qwen-control run`. With `database` (see postgres.py) migrated and the first owner's token made, both unless they are
    already; with_unix: the admin API on a socket in `folder`. `settings` go into the file as they stand.
    """

    def __init__(self, database, folder, with_unix=False, ready=True, **settings):
        self.database, self.folder = database, pathlib.Path(folder)
        self.socket = self.folder / "admin.sock" if with_unix else None
        self.port = None if with_unix else free_port()
        self.link_port = free_port()
        self.settings = {"admin_listen": f'"unix:{self.socket}"' if with_unix else f'"127.0.0.1:{self.port}"',
                         "link_listen": f'"127.0.0.1:{self.link_port}"', **settings}
        self.log = self.folder / "control.log"
        self.process = None
        self.token = None
        if ready:
            self.prepare()
            self.start()

    # The process ------------------------------------------------------------------------------------------

    def config(self, **more):
        return self.database.config(**{**self.settings, **more})

    def command(self, *arguments):
        """Another qwen-control with the same file."""
        return subprocess.run([str(CONTROL), "--config", str(self.config()), *arguments], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60, env=environment())

    def prepare(self):
        done = self.command("migrate")
        assert done.returncode == 0, done.stderr
        done = self.command("init")
        assert done.returncode == 0, done.stderr
        self.token = done.stdout.strip()

    def start(self, leads=True):
        """Returns once the admin API answers, and may change something unless another control plane is to lead."""
        with open(self.log, "ab") as log:
            self.process = spawn([CONTROL, "--config", self.config(), "run"], stdout=log, stderr=log, env=environment())
        wait_for(lambda: self.process.poll() is not None or self.answers(leads), 60)
        assert self.process.poll() is None, self.errors

    def answers(self, leads=False):
        try:
            if not leads or not self.token:
                return self.call("GET", "/admin/openapi.json", token=None).status == 200
            return self.call("GET", "/status")["leader"]["state"] == "leads"
        except (OSError, KeyError):
            return False

    @property
    def errors(self):
        return self.log.read_text(errors="replace")

    def stop(self, how=signal.SIGTERM):
        """Ends it and looks for a sanitizer's report."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(how)
        status = self.process.wait(60)
        self.process = None
        assert not any(report in self.errors for report in REPORTS), self.errors[-8000:]
        assert status in (0, -how), f"status {status}: {self.errors[-4000:]}"

    def kill(self):
        self.stop(signal.SIGKILL)

    def restart(self):
        self.stop()
        self.start()

    # The API ----------------------------------------------------------------------------------------------

    def connect(self, timeout=30):
        """A connection of http.client, to be closed by the caller."""
        return _Local(str(self.socket), timeout) if self.socket else http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def dial(self, timeout=30):
        """A bare socket."""
        if self.socket:
            bare = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            bare.settimeout(timeout)
            bare.connect(str(self.socket))
            return bare
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def call(self, method, path, body=None, *, token="", version=None, once=None, headers=None, connection=None, timeout=30):
        """
        One request. body: anything JSON has, or bytes as they are; token: "" the owner's, None none; version: for If-Match;
        once: an Idempotency-Key. `path` without /admin gets /admin/v1 in front.
        """
        fields = dict(headers or {})
        if token is not None:
            fields.setdefault("Authorization", f"Bearer {token or self.token}")
        if version is not None:
            fields["If-Match"] = str(version)
        if once is not None:
            fields["Idempotency-Key"] = once
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            fields.setdefault("Content-Type", "application/json")
        wire = connection or self.connect(timeout)
        try:
            wire.request(method, path if path.startswith("/admin/") else f"/admin/v1{path}", body, fields)
            response = wire.getresponse()
            return Answer(response, response.read())
        finally:
            if connection is None:
                wire.close()

    def good(self, method, path, body=None, **more):
        """The same, of which nothing but success is expected."""
        answer = self.call(method, path, body, **more)
        assert answer.status < 300, answer
        return answer

    def all(self, path, **more):
        """Every entry of a list, page by page."""
        found, cursor = [], None
        while True:
            mark = "&" if "?" in path else "?"
            page = self.good("GET", f"{path}{mark}cursor={cursor}" if cursor else path, **more)
            found += page["data"]
            cursor = page["next_cursor"]
            if not cursor:
                return found

    def make_token(self, name, role, **more):
        return self.good("POST", "/admin-tokens", {"name": name, "role": role, **more})["secret"]


def part(name):
    """A name within a path."""
    return urllib.parse.quote(name, safe="")
