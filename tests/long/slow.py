"""
15,000 connections that keep the gateway waiting, of every kind, from many addresses and from one, while honest callers ask:
what these wait, and what memory the gateway takes. Needs a hard limit of 20,000 open files, and a quiet machine: honest
callers are timed without the attack too, so that the machine's own part is seen. The attackers have a key, with a rate.

    slow.py MINUTES [ATTACK...]
"""

import contextlib
import resource
import statistics
import sys
import tempfile
import time

from attack import Attackers
from fake import Fake
from gateway import KEY, Gateway, chat_body
from processes import resident_bytes
from wire import Cut

CONNECTIONS, ADDRESSES, AGAIN = 15000, 1000, 3000
P99_MS, RESIDENT_MIB = 10, 200
HONEST = "127.0.0.9"
SLOW_KEY = "the-key-of-the-attackers"
BEARER = [("Authorization", f"Bearer {KEY}")]
ATTACKS = {  # kind, from how many addresses, how many requests a minute their key may send
    "silent": ("silent", ADDRESSES, 0),
    "head": ("head", ADDRESSES, 0),
    "body": ("body", ADDRESSES, CONNECTIONS * 10),
    "unread": ("unread", ADDRESSES, 4000),
    "unread-flood": ("unread-flood", ADDRESSES, 100),
    "fat": ("fat", ADDRESSES, 0),
    "silent-from-one": ("silent", 1, 0),
    "unread-from-one": ("unread", 1, 4000),
}


def ask(gateway, wire):
    """One chat, on a kept connection or a fresh one: (seconds it took, how it ended)."""
    began = time.monotonic()
    try:
        wire = wire or gateway.wire(HONEST)
        answer = wire.request("POST", "/v1/chat/completions", BEARER, chat_body("say:here I am")).answer()
        outcome = "served" if answer.status == 200 and answer.content == "here I am" else str(answer.status)
    except (OSError, Cut) as error:
        outcome = type(error).__name__
    return time.monotonic() - began, outcome, wire


def measure(gateway, seconds):
    """Honest callers one after the other, each second one on a connection of its own."""
    took, outcomes, resident, kept = [], {}, [], None
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for is_kept in (True, False):
            spent, outcome, wire = ask(gateway, kept if is_kept else None)
            took.append(spent * 1000)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            kept = wire if is_kept and outcome == "served" else kept if not is_kept else None
            if wire and wire is not kept:
                wire.close()
                gateway.wires.remove(wire)
        time.sleep(0.002)
        if len(took) % 100 == 0:
            resident.append(resident_bytes(gateway.process.pid) / (1 << 20))
    return took, outcomes, max(resident)


def told(took):
    return (f"p50 {statistics.median(took):.2f} ms, p99 {statistics.quantiles(took, n=100)[98]:.2f} ms,"
            f" most {max(took):.1f} ms")


def attack(name, kind, addresses, requests, seconds):
    keys = [KEY, {"key": SLOW_KEY, "name": "slow", **({"max_requests": requests} if requests else {})}]
    rate = {"enabled": True, "max_requests": 1000000, "window_seconds": 60}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="qg-"))
        fake = Fake(folder, 0, "--num-ctx", "100000000")
        stack.callback(fake.stop)
        gateway = Gateway(folder, fake.url, auth={"valid_keys": keys}, rate_limit=rate)
        stack.callback(gateway.stop, 60)
        alone, _, _ = measure(gateway, seconds / 4)
        with Attackers(gateway.port, kind, CONNECTIONS, addresses, AGAIN, SLOW_KEY):
            took, outcomes, resident = measure(gateway, seconds)
            print(f"{name}: {int(gateway.metric('connections_open'))} connections, {int(gateway.metric('in_flight'))} requests in"
                  f" flight, {int(gateway.metric('connections_crowded_out_total'))} closed to make room", flush=True)
    print(f"    honest callers: {outcomes}, {told(took)} (alone: {told(alone)}); resident {resident:.0f} MiB", flush=True)
    return statistics.quantiles(took, n=100)[98] < P99_MS and resident < RESIDENT_MIB and set(outcomes) == {"served"}


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    failed = 0
    names = sys.argv[2:] or list(ATTACKS)
    for name in names:
        is_good = attack(name, *ATTACKS[name], float(sys.argv[1]) * 60 / len(names))
        failed += not is_good
        print(f"{'passed' if is_good else 'FAILED'}: {name}", flush=True)
    print(f"{len(names) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
