"""
Many connections that keep a server waiting, as a program of its own, so that it does not slow down whoever measures.

    attack.py PORT KIND COUNT SOURCES [AGAIN [KEY]]

KIND: `silent` sends nothing; `head` sends a head, `body` a body, a byte a second; `unread` asks for a stream, `unread-flood`
for one of large pieces, and never reads; `fat` sends most of a large head at once, and then nothing. SOURCES:
from how many addresses, 127.1.0.1 and following. AGAIN: how many connections that were closed are opened anew each second
(1000). Ends when its input does.
"""

import json
import resource
import select
import socket
import subprocess
import sys
import time

from processes import spawn

IP_BIND_ADDRESS_NO_PORT = 24
CLOSED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
SLICES = 20  # a second
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"


def chat(content, **more):
    body = json.dumps({"model": "qwen3:32b", "stream": True, "messages": [{"role": "user", "content": content}], **more}).encode()
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def opening(kind, key):
    """What is sent at once; and what follows a byte a second."""
    head = HEAD % key.encode()
    return {
        "silent": (b"", b""),
        "head": (b"P", (head + b"X-Slow: " + b"a" * 10000)[1:]),
        "body": (head + b"Content-Length: 10000\r\n\r\n{", b" " * 9000),
        "unread": (head + chat("tokens:4000000@1000"), b""),
        "unread-flood": (head + chat("tokens:4000000@20", logprobs=True, top_logprobs=20), b""),
        "fat": (head + b"X-Fat: " + b"a" * 60000, b""),
    }[kind]


class Attack:
    """The program's side."""

    def __init__(self, port, kind, count, sources, again=1000, key="prod-key-2024-qwen3"):
        self.address = ("127.0.0.1", int(port))
        self.kind, self.count, self.sources, self.again = kind, int(count), int(sources), int(again)
        self.first, self.drip = opening(kind, key)
        self.epoll = select.epoll()
        self.held = {}  # descriptor: [socket, bytes of the drip that were sent, what is still to be sent at first]
        self.made = 0

    def connect(self):
        number = self.made % self.sources
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        one.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        if self.kind.startswith("unread"):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.bind((f"127.1.{number // 250}.{number % 250 + 1}", 0))
        self.made += 1
        one.connect_ex(self.address)
        self.epoll.register(one, CLOSED | (select.EPOLLOUT if self.first else 0))
        self.held[one.fileno()] = [one, 0, self.first]

    def close(self, number):
        self.epoll.unregister(number)
        self.held.pop(number)[0].close()

    def say_first(self, number):
        place = self.held[number]
        try:
            place[2] = place[2][place[0].send(place[2]):]
        except OSError:
            return
        if not place[2]:
            self.epoll.modify(number, CLOSED)

    def look(self, until):
        while (left := until - time.monotonic()) > 0:
            for number, events in self.epoll.poll(left, 4096):
                if number == 0:
                    return False
                if events & CLOSED:
                    self.close(number)
                else:
                    self.say_first(number)
        return True

    def drip_some(self, turn):
        for number, place in list(self.held.items()):
            if number % SLICES != turn % SLICES or place[2]:
                continue
            try:
                place[0].send(self.drip[place[1]:place[1] + 1])
                place[1] += 1
            except OSError:
                pass

    def run(self):
        self.epoll.register(0, select.EPOLLIN | select.EPOLLHUP)
        turn, began, is_told = 0, time.monotonic(), False
        while self.look(began + turn / SLICES):
            pace = self.again if is_told else 5000
            for _ in range(min(self.count - len(self.held), pace // SLICES)):
                self.connect()
            if not is_told and self.made >= self.count:
                is_told = True
                print("holding", flush=True)
            if self.drip:
                self.drip_some(turn)
            turn = max(turn + 1, int((time.monotonic() - began) * SLICES) + 1)


class Attackers:
    """The test's side: `with Attackers(port, kind, count, sources):` holds that many connections against the port."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __enter__(self):
        self.process = spawn([sys.executable, __file__, *self.arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        assert ready and self.process.stdout.readline() == b"holding\n", "the attack did not begin"
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Attack(*sys.argv[1:]).run()
