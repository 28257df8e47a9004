"""
The pair: PostgreSQL, qwen-control and gateways that follow it. Each part can be killed, frozen, restarted and cut off from the
others, and `differences()` says where what a gateway does is not what the database says.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time

from gateway import MODEL, Gateway
from postgres import CONTROL
from processes import REPORTS, environment, free_port, run, spawn
from wire import Cut, wait_for

TOKEN = re.compile(r"\bqat_\w+")
HOME = "127.0.0.1/32"


# --- the control plane ------------------------------------------------------------------------------------------------

class Answer:
    def __init__(self, status, headers, text):
        self.status, self.headers, self.text = status, headers, text

    def __repr__(self):
        return f"<{self.status} {self.text[:600]}>"

    @property
    def json(self):
        return json.loads(self.text) if self.text else None

    @property
    def version(self):
        """Of the configuration, as it is with this change."""
        return int(self.headers["Qwen-Config-Version"])


class Admin:
    """The admin API with one token. Every request on a connection of its own, so that threads may share it."""

    def __init__(self, port, token=None, timeout=20):
        self.port, self.token, self.timeout = port, token, timeout

    def ask(self, method, path, body=None, timeout=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout or self.timeout)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())
        finally:
            connection.close()

    def __call__(self, method, path, body=None, status=None, **headers):
        """Must go well, once somebody leads: on a machine that is busy enough a lease runs out now and then."""
        until = time.monotonic() + 20
        while (answer := self.ask(method, f"/admin/v1{path}", body, **headers)).status == 503 and time.monotonic() < until:
            if answer.json.get("code") != "not_leader" or status == 503:
                break
            time.sleep(0.05)
        assert answer.status == status if status else 200 <= answer.status < 300, f"{method} {path} {body}: {answer}"
        return answer

    def confirmations(self, version, wait_s=2, timeout=None):
        return self("GET", f"/confirmations/{version}?wait={int(wait_s * 1000)}ms", timeout=timeout).json


class Control:
    """One qwen-control. Its file, its log, its end."""

    def __init__(self, database, folder, role="qwen_control", extra=None, **settings):
        self.folder = pathlib.Path(folder)
        self.errors_path = self.folder / "control.err"
        self.config_path = self.folder / "control.yaml"
        self.admin_port, self.link_port = free_port(), free_port()
        self.database, self.role, self.extra = database, role, extra
        self.settings = {"admin_listen": f'"127.0.0.1:{self.admin_port}"', "link_listen": f'"127.0.0.1:{self.link_port}"', **settings}
        self.process = None
        self.ends_well = True
        self.admin = Admin(self.admin_port)
        self.write_config()

    def write_config(self, **settings):
        self.settings.update(settings)
        lines = {"database": json.dumps(self.database.address(self.role)), **self.settings}
        fresh = self.config_path.with_suffix(".new")
        fresh.write_text("".join(f"{name}: {value}\n" for name, value in lines.items()))
        fresh.chmod(0o600)
        fresh.rename(self.config_path)

    def init(self):
        """Makes the first token, and keeps it."""
        done = run([CONTROL, "--config", self.config_path, "init"])
        assert done.returncode == 0, done.stdout + done.stderr
        self.admin.token = TOKEN.search(done.stdout)[0]

    def spawn(self):
        with open(self.errors_path, "ab") as errors:
            self.process = spawn([CONTROL, "--config", self.config_path, "run"], stdout=errors, stderr=errors, env=environment(self.extra))

    def start(self, is_answer_wanted=True):
        self.spawn()
        if is_answer_wanted:
            wait_for(lambda: self.process.poll() is not None or self.answers(), 30, "an answer of qwen-control")
            assert self.process.poll() is None, self.errors

    def answers(self):
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            return self.admin.ask("GET", "/admin/v1/status", timeout=5).status == 200

    @property
    def errors(self):
        return self.errors_path.read_text(errors="replace") if self.errors_path.exists() else ""

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, within=15):
        if self.process and self.process.poll() is None:
            thaw(self.process)
            self.process.terminate()
            try:
                self.process.wait(within)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"did not end within {within} s of SIGTERM: {self.errors[-4000:]}") from None
            assert self.process.returncode == 0 or not self.ends_well, f"ended {self.process.returncode}: {self.errors[-4000:]}"
        self.check_reports()

    def check_reports(self):
        assert not any(report in self.errors for report in REPORTS), self.errors[-8000:]


def freeze(process):
    """Stopped for sure: the signal takes effect a moment after it is sent."""
    if process.poll() is None:
        os.kill(process.pid, signal.SIGSTOP)
        with contextlib.suppress(OSError):
            wait_for(lambda: open(f"/proc/{process.pid}/stat").read().rpartition(")")[2].split()[0] in "TZ", 5, "the stop")


def thaw(process):
    if process.poll() is None:
        os.kill(process.pid, signal.SIGCONT)


# --- what lies between ------------------------------------------------------------------------------------------------

class Relay:
    """
    Passes on what two sides say to each other, on TCP or on a unix socket (a target with a slash). While it is `cut` nothing
    passes either way and nobody is told, as when a cable is pulled; `delay_s` is added to whatever passes towards the target.
    """

    def __init__(self, target, path=None):
        self.target, self.delay_s, self.is_cut = target, 0, False
        self.listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        if path:
            self.listener.bind(path)
            os.chmod(path, 0o777)
            self.port = None
        else:
            self.port = free_port()
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(128)
        self.open = {}  # each connection's two sockets, by either
        self.late = []  # (when, to whom, bytes): in order, for all are delayed alike
        self.ours, self.theirs = socket.socketpair()
        self.is_over = False
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def cut(self):
        self.is_cut = True
        self.wake()

    def heal(self, keeps=True):
        """With `keeps`, what was said meanwhile arrives late; else the connections of before are gone without a word, as when an
        address has changed."""
        if not keeps:
            for one in list(self.open):
                with contextlib.suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    one.shutdown(socket.SHUT_RDWR)
        self.is_cut = False
        self.wake()

    def wake(self):
        with contextlib.suppress(OSError):
            self.ours.send(b"!")

    def connect(self):
        near, _ = self.listener.accept()
        far = socket.socket(socket.AF_INET if isinstance(self.target, tuple) else socket.AF_UNIX)
        try:
            far.connect(self.target)
        except OSError:
            near.close()
            far.close()
            return
        for one in (near, far):
            if one.family == socket.AF_INET:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.setblocking(True)
        self.open[near], self.open[far] = (far, True), (near, False)

    def end(self, one):
        if one in self.open:
            other, _ = self.open.pop(one)
            self.open.pop(other, None)
            other.close()
        one.close()

    def pass_on(self, one):
        other, is_towards_target = self.open[one]
        try:
            got = one.recv(65536)
            if got and is_towards_target and self.delay_s:
                self.late.append((time.monotonic() + self.delay_s, one, got))
                return
            if got:
                other.sendall(got)
                return
        except OSError:
            pass
        self.end(one)

    def send_late(self):
        while self.late and self.late[0][0] <= time.monotonic():
            _, one, got = self.late.pop(0)
            if one in self.open:
                try:
                    self.open[one][0].sendall(got)
                except OSError:
                    self.end(one)

    def work(self):
        while not self.is_over:
            wanted = [self.theirs] if self.is_cut else [self.theirs, self.listener, *self.open]
            wait = max(0, self.late[0][0] - time.monotonic()) if self.late and not self.is_cut else 5
            ready, _, _ = select.select(wanted, [], [], wait)
            for one in ready:
                if one is self.theirs:
                    one.recv(65536)
                elif one is self.listener:
                    self.connect()
                elif one in self.open:
                    self.pass_on(one)
            if not self.is_cut:
                self.send_late()

    def close(self):
        self.is_over = True
        self.wake()
        self.thread.join(10)
        for one in [self.listener, self.ours, self.theirs, *self.open]:
            one.close()


# --- all together -----------------------------------------------------------------------------------------------------

class Pair:
    """
    qwen-control on a database of its own, and so many gateways, each behind a relay where `relays`. The database, the cluster
    and the stand-in for Ollama are the test's.
    """

    def __init__(self, stack, folder, database, fake, gateways=2, relays=False, control=None, extra=None, **settings):
        self.stack, self.folder, self.database, self.fake = stack, pathlib.Path(folder), database, fake
        self.extra, self.settings, self.has_relays = extra, settings, relays
        migrated = database.control("migrate")
        assert migrated.returncode == 0, migrated.stderr
        self.control = Control(database, folder, extra=extra, **(control or {}))
        self.control.init()
        self.admin = self.control.admin
        self.gateways, self.relays = [], []
        self.control.start()
        stack.callback(self.control.stop)
        self.admin("POST", "/backends", {"name": "gpu1", "url": fake.url})
        for _ in range(gateways):
            self.add_gateway()

    def enroll(self, name):
        return self.admin("POST", "/gateways", {"name": name}).json["secret"]

    def add_gateway(self, is_ready_wanted=True, **settings):
        name = f"g{len(self.gateways) + 1}"
        folder = self.folder / name
        folder.mkdir()
        secret = folder / "secret"
        secret.write_text(self.enroll(name) + "\n")
        secret.chmod(0o600)
        port = self.control.link_port
        if self.has_relays:
            self.relays.append(Relay(("127.0.0.1", port)))
            self.stack.callback(self.relays[-1].close)
            port = self.relays[-1].port
        control = {"url": f"tcp://127.0.0.1:{port}", "name": name, "state": f"{folder}/state", "enroll_secret_file": str(secret),
                   **settings.pop("control", {})}
        gateway = Gateway(folder, self.fake.url, environment_extra=self.extra, is_ready_wanted=is_ready_wanted,
                          **{"ollama_api": None, "auth": {"valid_keys": None}, "control": control, **self.settings, **settings})
        gateway.name = name
        self.gateways.append(gateway)
        self.stack.callback(self.end_gateway, gateway)
        return gateway

    @staticmethod
    def end_gateway(gateway):
        if gateway.process.poll() is None:
            thaw(gateway.process)
        if gateway.process.poll() is None and gateway.ends_well:
            gateway.stop()
        else:
            gateway.ends_well = False
            gateway.end(10)

    # What is changed --------------------------------------------------------------------------------------

    def create_key(self, name, user="alice", **fields):
        """{…, "secret"}, and with which version."""
        answer = self.admin("POST", "/keys", {"user": user, "name": name, "create_user": True, **fields}, status=201)
        return answer.json, answer.version

    def revoke_key(self, id, wait_s=2, cut=False):
        """As `qwadm key revoke` does it: gives the version and what the gateways confirmed."""
        answer = self.admin("POST", f"/keys/{id}/revoke", {"cut": cut})
        return answer.version, self.admin.confirmations(answer.version, wait_s)

    # What can be seen -------------------------------------------------------------------------------------

    def status_of(self, gateway, secret, source=None, path="/v1/models"):
        """What a caller with that key meets; "closed" where he is not even listened to."""
        try:
            return gateway.call("GET", path, key=secret, source=source).status
        except (Cut, ConnectionError):
            return "closed"

    def statuses(self, secret, **more):
        return [self.status_of(gateway, secret, **more) for gateway in self.gateways]

    def wait_statuses(self, secret, status, timeout=10):
        wait_for(lambda: set(self.statuses(secret)) == {status}, timeout, f"{status} everywhere")

    def head(self):
        """The version of the configuration that the database has."""
        return int(self.database.sql("SELECT version FROM qwen.config_head"))

    def wait_applied(self, version=None, timeout=20):
        """Until every gateway has applied it. Gives how long it took."""
        began, version = time.monotonic(), version or self.head()
        names = {gateway.name for gateway in self.gateways}

        def all_have():
            with contextlib.suppress(OSError, AssertionError, http.client.HTTPException):
                said = self.admin.confirmations(version, 1, timeout=10)
                return names <= {one["name"] for one in said["confirmed"]}
        wait_for(all_have, timeout, f"version {version} on all gateways")
        return time.monotonic() - began

    def truth(self):
        """What the database says: which keys let in (by hash) and which models they may use, the whitelist, the models."""
        rows = self.database.sql(
            "SELECT json_build_object("
            "'keys', (SELECT coalesce(json_object_agg(encode(hash, 'hex'), models), '{}') FROM qwen.published_key"
            "         WHERE expires_s IS NULL OR expires_s > extract(epoch FROM now())),"
            "'ranges', (SELECT coalesce(json_agg(cidr ORDER BY cidr), '[]') FROM qwen.whitelist),"
            "'models', (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM qwen.model))")
        return json.loads(rows)

    def models_of(self, gateway, secret):
        """What a caller with that key is shown, or his refusal."""
        answer = gateway.call("GET", "/v1/models", key=secret)
        return sorted(model["id"] for model in answer.json["data"]) if answer.status == 200 else answer.status


@contextlib.contextmanager
def pair_of(folder, database, fake, **options):
    with contextlib.ExitStack() as stack:
        yield Pair(stack, folder, database, fake, **options)
