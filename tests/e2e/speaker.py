"""A stand-in control plane (tests/fakes/speaker) that says what a test tells it to, and the truth that it speaks for."""

import hashlib
import json
import queue
import subprocess
import threading
import time

from processes import BIN, environment, free_port, spawn

SECRET = "qen_" + "a" * 43
DRAIN, UNDRAIN, RESYNC, UNKNOWN = 2, 3, 4, 99
BUSY = 7


def hash_of(secret):
    return hashlib.sha256(secret.encode()).hexdigest()


def identity_of(change):
    """What a change is about: (noun, name)."""
    (noun, what), = change.items()
    if noun == "range":
        return noun, what
    return noun, what["hash"] if noun == "key" else what["name"]


class Speaker:
    def __init__(self, name="gw"):
        self.name = name
        self.version = 0
        self.truth = {}
        self.events = []
        self.news = threading.Condition()
        self.done = queue.Queue()
        self.process = spawn([BIN / "speaker-driver", f"tcp://127.0.0.1:{free_port()}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             env=environment({"ASAN_OPTIONS": environment()["ASAN_OPTIONS"] + ":detect_leaks=0"}))
        threading.Thread(target=self._read, daemon=True).start()
        self.url = self.wait(event="listens")["url"]
        self.order("know", name=name, secret=SECRET)

    def _read(self):
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] == "done":
                self.done.put(event)
                continue
            with self.news:
                self.events.append(event)
                self.news.notify_all()

    def order(self, do, **fields):
        self.process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        self.process.stdin.flush()
        return self.done.get(timeout=20)

    def end(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=20) == 0

    # What it says -----------------------------------------------------------------------------------------

    def publish(self, *changes, keeps=True, version=None):
        """The next version, with these changes. `keeps`: who has the one before gets only them."""
        for change in changes:
            if "gone" in change:
                gone = change["gone"]
                self.truth.pop(("key", gone["key"]) if "key" in gone else (gone["noun"], gone["name"]), None)
            else:
                self.truth[identity_of(change)] = change
        self.version = version or self.version + 1
        self.order("publish", to=self.version, delta=list(changes), whole=list(self.truth.values()), keeps=keeps)
        return self.version

    def be(self, **manner):
        self.order("be", **manner)

    # What it hears ----------------------------------------------------------------------------------------

    def here(self):
        """Where the events stand, to wait for later ones."""
        return len(self.events)

    def wait(self, timeout=15, since=0, where=lambda event: True, **wanted):
        deadline = time.monotonic() + timeout
        with self.news:
            while True:
                for event in self.events[since:]:
                    if all(event.get(key) == value for key, value in wanted.items()) and where(event):
                        return event
                assert self.news.wait(max(0, deadline - time.monotonic())), \
                    f"no {wanted} within {timeout} s; the last: {self.events[-5:]}"

    def wait_applied(self, version=None, timeout=15, since=0):
        """A Sync that says that the gateway serves by that version and keeps it."""
        version = version or self.version
        return self.wait(timeout, since, lambda event: event["applied"] >= version, event="sync")

    def loads(self):
        return [event for event in self.events if event["event"] == "load"]


def key(secret, user="alice", name=None, **rules):
    return {"key": {"hash": hash_of(secret), "user": user, "name": name or f"{user}-key", **rules}}


def no_key(secret, cut=False):
    return {"gone": {"key": hash_of(secret), "cut": cut}}


def backend(url, name="gpu1", **rules):
    return {"backend": {"name": name, "url": url, **rules}}


def model(name, **rules):
    return {"model": {"name": name, **rules}}


def setting(name, value):
    return {"setting": {"name": name, "value": json.dumps(value)}}


def gone(noun, name):
    return {"gone": {"noun": noun, "name": name}}
