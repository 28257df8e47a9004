"""
Random changes of requests that end in odd places, sent three ways: straight to the gateway, straight to an Nginx that
answers by itself, and through an Nginx that passes them on to the gateway. Behind each lie two more requests.

Straight: where neither closes, both must have seen the same requests. What only the gateway takes is counted by kind (none
of these touches where a request ends), and what is of no known kind is shown for people to look at. Through: both logs
must tell of the same requests, the next caller must get its own answer, and no sanitizer may have anything to say.

    smuggling.py MINUTES [SEED]
"""

import collections
import concurrent.futures
import contextlib
import pathlib
import random
import re
import sys
import tempfile
import time

from fake import Fake
from gateway import KEY, Gateway
from nginx import Nginx
from processes import free_port, spawn
from test_smuggling import CASES, NEXT, THEN, as_bytes
from test_smuggling_nginx import AS_SHIPPED, OPEN, Road
from wire import Cut, Wire, wait_for

PATIENCE_S = 0.25
SHOWN = 20
LAST = b"GET /v1/last HTTP/1.1\r\nHost: a\r\nX-Request-Id: last\r\nConnection: close\r\n\r\n"
# What parsers stumble over, put where a change is made.
BITS = [b"\r", b"\n", b"\r\n", b"\0", b"\t", b" ", b"\x0b", b"\x0c", b"\x7f", b"\xa0", b"\xff", b":", b";", b",", b"0", b"00",
        b"+", b"-", b"0x", b"_", b"%", b"%00", b"%0d%0a", b"..", b"/", b"//", b"?", b"#", b"\\", b'"', b"chunked", b"Chunked",
        b"identity", b"gzip, ", b"Content-Length: 0\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n", b"Host: b\r\n", b"\r\n\r\n", b"\n\n",
        b"\r\n ", b"\r\n\t", b"0\r\n\r\n", b"HTTP/1.0", b"HTTP/1.1", b"GET ", b"POST ", b"http://a", b"Upgrade: h2c\r\n", b"f" * 16,
        b"9" * 20, b"x" * 300]
# Why Nginx does not take what the gateway answers (with 404 or 405, most of it): where it does not end otherwise.
KNOWN = {
    "the target is an asterisk": rb"^\S+ \* ",
    "a method that Nginx does not have": rb"^(TRACE|CONNECT) ",
    "a method that is not of capitals": rb"^(?![A-Z_-]+ )\S+ |\r\n\r\n([^\r]*\})?[^\s{}]+$", # the latter: put before NEXT's
    "an escape that is none, or of NUL": rb"^\S+ \S*%(?![0-9a-fA-F]{2})|^\S+ \S*%00",
    "dots that lead above the root": rb"^\S+ \S*(\.\.|%2e)",
    "a Host that is empty, odd or beside a tab": rb"\n(?i:host):[ \t]*(\r|\t|[^\r]*\t|[.:])",
    "Connection has close somewhere within": rb"\n(?i:connection):[^\r]*(?i:close)",
    "a chunk that is larger than any body may be": rb"\r\n0*[1-9a-fA-F][0-9a-fA-F]{5,}\r\n",
}
ALONE = """\
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log crit;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; lingering_timeout 100ms; keepalive_requests 100000;
  server {{ listen 127.0.0.1:{port}; add_header X-Request-Id $http_x_request_id always;
            location / {{ proxy_pass http://127.0.0.1:{port}/answered/; }} location /answered/ {{ return 404; }} }}
}}
"""


@contextlib.contextmanager
def nginx_alone(folder):
    """It reads bodies, as a proxy does, before it answers by itself."""
    port = free_port()
    config = pathlib.Path(folder) / "nginx.conf"
    config.write_text(ALONE.format(folder=folder, port=port))
    process = spawn(["nginx", "-p", folder, "-c", config])
    try:
        wait_for(lambda: answers(("127.0.0.1", port)), 10, "Nginx")
        yield ("127.0.0.1", port)
    finally:
        process.terminate()
        process.wait()


def answers(address):
    try:
        Wire(address).close()
        return True
    except OSError:
        return False


def changed(chance, data):
    data = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 2, 3])):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(5)
        if kind == 0:
            data[at:at] = chance.choice(BITS)
        elif kind == 1:
            data[at:at + chance.choice([1, 1, 2, 4])] = chance.choice(BITS)
        elif kind == 2:
            data[at:at + chance.choice([1, 1, 2, 8])] = b""
        elif kind == 3:
            data[at:at + 1] = bytes([chance.randrange(256)])
        else: # a line twice, or elsewhere
            lines = bytes(data).split(b"\r\n")
            lines.insert(chance.randrange(len(lines)), chance.choice(lines))
            data = bytearray(b"\r\n".join(lines))
    return bytes(data)


def ends(address, request, patience=PATIENCE_S):
    """
    What comes back for the request, NEXT and LAST: how many answers, which of the two were answered as requests of their
    own, and how it ends: all ("all"), the other side closed ("closed"), or it waits for more ("waits").
    """
    wire = Wire(address, timeout=patience)
    count, named = 0, []
    try:
        wire.send_as_far_as_possible(request + NEXT.encode() + LAST)
        while "last" not in named:
            if not wire.wait_until_bytes().read_ahead.startswith(b"HTTP/1"[:len(wire.read_ahead)]):
                return count, tuple(named), "closed" # HTTP/0.9 has no head
            name = wire.answer().header_all("X-Request-Id")[:1] # Nginx alone says it twice
            named += [one for one in name if one in ("next", "last")]
            count += 1
        return count, tuple(named), "all"
    except TimeoutError:
        return count, tuple(named), "waits"
    except (Cut, OSError):
        return count, tuple(named), "closed"
    finally:
        wire.close()


class Straight:
    def __init__(self, gateway, alone):
        self.gateway, self.alone = ("127.0.0.1", gateway.port), alone
        self.kinds = collections.Counter()
        self.shown = collections.Counter()
        self.wrong = 0

    def both(self, request, patience=PATIENCE_S):
        ours, theirs = ends(self.gateway, request, patience), ends(self.alone, request, patience)
        return ours, theirs, ours[2] != "closed" and theirs[2] != "closed" and ours != theirs

    def judge(self, request):
        ours, theirs, is_wrong = self.both(request)
        if is_wrong or "waits" in (ours[2], theirs[2]): # it may only have been slow
            ours, theirs, is_wrong = self.both(request, 3)
        return request, ours, theirs, is_wrong

    def count(self, request, ours, theirs, is_wrong):
        self.kinds[f"gateway: {ours[2]}, Nginx: {theirs[2]}"] += 1
        self.wrong += is_wrong
        if is_wrong:
            print(f"WRONG: the gateway sees it end elsewhere, {ours}, than Nginx, {theirs}: {request!r}")
        elif ours[2] != "closed" and theirs[2] == "closed":
            kind = next((kind for kind, pattern in KNOWN.items() if re.search(pattern, request.lstrip(b"\r\n"))), "other")
            self.shown[kind] += 1
            if kind == "other" and self.shown[kind] <= SHOWN:
                print(f"only the gateway takes it, {ours}, not Nginx, {theirs}: {request!r}")


class Through:
    def __init__(self, gateway, nginx):
        self.road = Road(gateway, nginx)
        self.sent = self.wrong = 0

    def is_well(self, requests):
        other = self.road.wire()
        try:
            self.road.ask(other, "warm")
            for request in requests:
                ends(("127.0.0.1", self.road.nginx.port), request)
                self.sent += 1
                self.road.ask(other, f"theirs-{self.sent}")
            self.road.check(are_statuses_alike=False)
            return None
        except (AssertionError, Cut, OSError) as error:
            self.road.forget()
            return str(error)

    def send(self, requests):
        """A few at a time between two looks into the books; one by one where these do not agree."""
        if not self.is_well(requests):
            return
        found = [(request, error) for request in requests if (error := self.is_well([request]))]
        self.wrong += 1
        for request, error in found or [(requests, "only all together")]:
            print(f"WRONG through Nginx: {request!r}: {error}")


def main():
    minutes, seed = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    chance = random.Random(seed)
    print(f"seed {seed}")
    corpus = [as_bytes(text) for text, _ in CASES.values() if len(text) < 3000]
    clear = [as_bytes(text) for text, wanted in CASES.values() if wanted[-1] == THEN and len(text) < 3000]
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(10))

        def folder():
            return stack.enter_context(tempfile.TemporaryDirectory(prefix="qg-"))
        fake = Fake(folder())
        stack.callback(fake.stop)
        gateway = Gateway(folder(), fake.url, workers=1)
        stack.callback(gateway.stop)
        straight = Straight(gateway, stack.enter_context(nginx_alone(folder())))
        ways = []
        for extra in (AS_SHIPPED, OPEN):
            behind = Gateway(folder(), fake.url, workers=1, body_timeout="1s")
            stack.callback(behind.stop)
            nginx = Nginx(folder(), behind, extra=extra + " lingering_timeout 100ms; client_body_timeout 1s;", kept=1)
            stack.callback(nginx.stop)
            ways.append(Through(behind, nginx))
        until = time.monotonic() + minutes * 60
        while time.monotonic() < until:
            requests = [changed(chance, chance.choice(chance.choice([corpus, clear, clear]))) for _ in range(16)]
            done = [pool.submit(way.send, requests) for way in ways]
            for verdict in pool.map(straight.judge, requests):
                straight.count(*verdict)
            for future in done:
                future.result()
            fake.reset()
    for kind, count in sorted(straight.kinds.items()):
        print(f"{count:8} {kind}")
    for kind, count in straight.shown.most_common():
        print(f"{count:8} only the gateway takes it: {kind}")
    print(f"{sum(way.sent for way in ways):8} through Nginx")
    passed = [straight.wrong == 0] + [way.wrong == 0 for way in ways]
    print(f"{sum(passed)} passed, {len(passed) - sum(passed)} failed")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
