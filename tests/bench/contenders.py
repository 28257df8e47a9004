"""Who is measured: the backend alone, Nginx, HAProxy, the gateway. And the programs beside them: backend and callers."""

import contextlib
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from loads import BODIES  # noqa: E402
from processes import free_port, spawn  # noqa: E402

KEY = "bench-key-0123456789abcdef"
START_S = 10
FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))  # every program that is started here inherits it
SBIN = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

NGINX = """\
daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections {connections}; }}
http {{
  access_log {access_log};
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 100000000;
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  upstream backend {{ {upstream} }}
  server {{
    listen 127.0.0.1:{port} backlog=16384;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    {headers}
    proxy_buffering off;
    proxy_read_timeout 600s;
    location = /v1/chat/completions {{ {does} }}
    location = /healthz {{ return 200; }}
  }}
}}
"""

HAPROXY = """\
global
  nbthread 1
  maxconn {maxconn}
defaults
  mode http
  option http-no-delay
  http-reuse always
  timeout connect 3s
  timeout client 600s
  timeout server 600s
frontend callers
  bind 127.0.0.1:{port} backlog 16384
  http-request return status 200 if {{ path /healthz }}
  {does}
  default_backend ollama
backend ollama
  server ollama 127.0.0.1:{backend_port}
"""


class Bench:
    """Programs, cores and the folder that everything of this run lies in."""

    def __init__(self, options, folder):
        self.options = options
        self.folder = pathlib.Path(folder)
        self.programs = pathlib.Path(options.bin)
        cores = sorted(os.sched_getaffinity(0))
        self.own_core, self.contender_core = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
        self.backend_pid = 0
        self.bodies = {}
        for load, body in BODIES.items():
            self.bodies[load] = self.folder / f"{load}.json"
            self.bodies[load].write_text(body)

    def start(self, command, core, folder, **options):
        def pin():
            if core is not None:
                os.sched_setaffinity(0, {core})

        with open(folder / "stderr", "ab") as errors:
            return spawn(command, stderr=errors, preexec_fn=pin, **options)

    @contextlib.contextmanager
    def backend(self, job):
        """The stand-in for Ollama: fast, or speaking at the pace of the streams. Gives its port."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        command = [self.programs / "fake-ollama", "--bench", "--control", "none", "--quiet"]
        if job.tokens:
            command += ["--tokens", job.tokens, "--token-ms", job.token_ms, "--first-token-ms", job.token_ms]
        process = self.start(command, self.own_core, folder, stdout=subprocess.PIPE)
        self.backend_pid = process.pid
        try:
            yield int(process.stdout.readline().split()[1].rpartition(b":")[2])
        finally:
            stop(process)

    def callers(self, arguments, under=()):
        """Runs the load generator, `under` another program when one is given. Gives what it said."""
        process = self.start([*under, self.programs / "bench_load", *arguments], self.own_core, self.folder,
                             stdout=subprocess.PIPE)
        try:
            said, _ = process.communicate(timeout=300)
        finally:
            stop(process)
        if process.returncode != 0:
            raise SystemExit(f"bench_load ended with {process.returncode}: {(self.folder / 'stderr').read_text()}")
        return json.loads(said)


def stop(process, how=signal.SIGTERM):
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ask_status(address, path):
    """The status of a GET, or None while nobody answers."""
    family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
    try:
        with socket.socket(family, socket.SOCK_STREAM) as wire:
            wire.settimeout(2)
            wire.connect(address)
            wire.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            return int(wire.recv(64).split()[1])
    except (OSError, IndexError, ValueError):
        return None


def wait_until_ready(process, address, path, folder):
    deadline = time.monotonic() + START_S
    while ask_status(address, path) != 200:
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{process.args[0]} does not serve: {(folder / 'stderr').read_text()}")
        time.sleep(0.005)


class Direct:
    """Nobody between: what backend and callers can do by themselves."""

    path = "/api/chat"

    def __init__(self, name):
        self.name = name

    def fits(self, job):
        return job.load in "cd"

    @contextlib.contextmanager
    def running(self, bench, job, backend_port):
        yield backend_port, 0


class Proxy:
    """A program between callers and backend. A kind of it says how it is told what to do, and which loads it takes."""

    path = "/v1/chat/completions"
    workers = 1

    def command(self, bench, job, folder, port, backend_port):
        """Writes its configuration. Gives the program with its arguments, and where to ask whether it is ready."""
        raise NotImplementedError

    @contextlib.contextmanager
    def running(self, bench, job, backend_port):
        """Gives its port and its process id."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=bench.folder))
        port = free_port()
        command, address, path = self.command(bench, job, folder, port, backend_port)
        core = None if job.load == "w" else bench.contender_core
        process = bench.start([*bench.options.wrap, *command], core, folder, stdout=subprocess.DEVNULL)
        try:
            wait_until_ready(process, address, path, folder)
            yield port, process.pid
        finally:
            stop(process)


def nginx_command(folder, port, upstream, does, headers="", access_log="off"):
    """As Proxy.command() gives it. The only Nginx there is here: what differs is where it sends what it is asked, and its log."""
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, upstream=upstream, does=does, headers=headers,
                                                    access_log=access_log, files=FILES, connections=FILES - 64))
    return [shutil.which("nginx", path=SBIN), "-p", folder, "-c", folder / "nginx.conf"], ("127.0.0.1", port), "/healthz"


class Nginx(Proxy):
    def __init__(self, name, has_log):
        self.name = name
        self.has_log = has_log

    def fits(self, job):
        return job.load in ("abe" if self.has_log else "abcdes")

    def command(self, bench, job, folder, port, backend_port):
        upstream = f"server 127.0.0.1:{backend_port}; keepalive 16384; keepalive_requests 100000000;"
        does = "return 401;" if job.load == "e" else "proxy_pass http://backend/api/chat;"
        return nginx_command(folder, port, upstream, does, access_log=f"{folder}/access.log" if self.has_log else "off")


class Haproxy(Proxy):
    def __init__(self, name):
        self.name = name

    def fits(self, job):
        return job.load in "abcdes"

    def command(self, bench, job, folder, port, backend_port):
        does = "http-request return status 401" if job.load == "e" else "http-request set-path /api/chat"
        (folder / "haproxy.cfg").write_text(HAPROXY.format(port=port, backend_port=backend_port, does=does,
                                                           maxconn=FILES // 2 - 100))
        return [shutil.which("haproxy", path=SBIN), "-db", "-f", folder / "haproxy.cfg"], ("127.0.0.1", port), "/healthz"


class Gateway(Proxy):
    """Everything on: keys, whitelist, rate, log to a file."""

    def __init__(self, name, program, workers=1, loads="abcdes"):
        self.name = name
        self.program = program
        self.workers = workers
        self.loads = loads

    def fits(self, job):
        return job.load in self.loads

    def settings(self, bench, folder, port, backend_port):
        return {
            "listen": f"127.0.0.1:{port}",
            "operator_listen": f"unix:{folder}/operator.sock",
            "workers": self.workers,
            "ollama_api": f"http://127.0.0.1:{backend_port}",
            "log_file": f"{folder}/access.log",
            "max_connections_per_address": 15000,
            "auth": {"enabled": True, "valid_keys": [f"other-key-{number}" for number in range(20)] + [KEY]},
            "rate_limit": {"enabled": True, "max_requests": 1000000, "window_seconds": 1},
            "whitelist": {"enabled": True, "ips": ["10.0.0.0/16", "192.168.0.0/16", "127.0.0.1"]},
            **({"core_dumps": True} if os.geteuid() else {}),  # else only root may ask how much memory it takes
            **({"seccomp": "none"} if bench.options.wrap else {}),  # valgrind asks the kernel for more than we do
        }

    def command(self, bench, job, folder, port, backend_port):
        settings = self.settings(bench, folder, port, backend_port)
        config = folder / "config.yaml"
        config.touch(0o600)
        config.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()))
        return [self.program, "--config", config], f"{folder}/operator.sock", "/readyz"


def contenders_of(options):
    """In the order in which they are measured and shown. Nginx must be there; HAProxy is taken when it is."""
    if not shutil.which("nginx", path=SBIN):
        raise SystemExit("Nginx is what is compared with: apt-get install nginx")
    found = [Direct("backend alone"), Nginx("nginx", False), Nginx("nginx, log on", True)]
    if shutil.which("haproxy", path=SBIN):
        found.append(Haproxy("haproxy"))
    for given in options.gateway or [f"gateway={options.bin}/qwen-gateway"]:
        name, _, program = given.rpartition("=")
        name = name or f"gateway {len(found)}"
        found += [Gateway(name, program), Gateway(f"{name}, 1 worker", program, 1, "w"),
                  Gateway(f"{name}, 2 workers", program, 2, "w")]
    return found
