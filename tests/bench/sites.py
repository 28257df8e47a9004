"""Several stand-ins for Ollama, one faster than the other, and who spreads requests over them: the gateway, and Nginx."""

import contextlib
import pathlib
import socket
import subprocess
import tempfile
import time

from contenders import KEY, Gateway, Proxy, nginx_command, stop

SLOTS, TOKEN_MS, SPEEDS = 4, 20, (100, 200, 400)
GIVE_UP_S = 60


@contextlib.contextmanager
def stand_in(bench, slots, speed=100, token_ms=TOKEN_MS):
    """One backend that runs `slots` at once, the rest in the order in which they come, and begins to speak as soon as a
    slot is taken, so that the time to the first token is the wait. Gives its port and that of its books."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=bench.folder))
    command = [bench.programs / "fake-ollama", "--quiet", "--num-parallel", slots, "--token-ms", token_ms, "--speed", speed]
    process = bench.start(command, None, folder, stdout=subprocess.PIPE)
    try:
        said = process.stdout.readline().split()
        yield tuple(int(said[at].rpartition(b":")[2]) for at in (1, 3))
    finally:
        stop(process)


class NginxFleet(Proxy):
    """`method` as in its `upstream` block; empty: round robin. With weights it is told what it cannot find out."""

    load = "w"  # on no core of its own: there is room

    def __init__(self, name, method="", weights=None):
        self.name = name
        self.method = method
        self.weights = weights

    def command(self, bench, job, folder, port, backend_port):
        servers = " ".join(f"server 127.0.0.1:{each} max_fails=0{f' weight={weight}' if weight else ''};"
                           for each, weight in zip(backend_port, self.weights or [0] * len(backend_port)))
        return nginx_command(folder, port, f"{self.method} {servers}", "proxy_pass http://backend/api/chat;",
                             "proxy_set_header Host localhost;")


class GatewayFleet(Gateway):
    """Before several backends with slots; other settings as given. With weights it is told what it has to find out."""

    def __init__(self, name, program, slots=SLOTS, weights=None, **changes):
        super().__init__(name, program)
        self.load = "w"  # on no core of its own
        self.slots = slots
        self.weights = weights
        self.changes = changes
        self.operator = None

    def settings(self, bench, folder, port, backend_port):
        self.operator = f"{folder}/operator.sock"
        backends = [{"name": f"gpu{number}", "url": f"http://127.0.0.1:{each}", "slots": self.slots,
                     "weight": self.weights[number] if self.weights else 1} for number, each in enumerate(backend_port)]
        settings = super().settings(bench, folder, port, None)
        settings.pop("ollama_api")
        return {**settings, "backends": backends, "max_waiting": 100000, "max_waiting_per_user": 100000, "queue_timeout": "1h",
                **self.changes}

    def metric(self, name):
        """The sum over all samples of that name."""
        with socket.socket(socket.AF_UNIX) as wire:
            wire.connect(self.operator)
            wire.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            text = b"".join(iter(lambda: wire.recv(65536), b"")).decode()
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines()
                   if line.startswith((f"qwen_gateway_{name}{{", f"qwen_gateway_{name} ")))

    def wait_until(self, name, value):
        ends = time.monotonic() + GIVE_UP_S
        while (now := self.metric(name)) != value:
            if time.monotonic() > ends:
                raise SystemExit(f"{name} did not become {value}, it is {now:g}")
            time.sleep(0.02)


DELEGATE = {"auth": {"enabled": True, "valid_keys": [{"key": KEY, "name": "front", "delegate": True}]}}
