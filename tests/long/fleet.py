"""
Three backends under load, one of them at a time killed, frozen or restarted again and again: nobody who had not begun to be
answered fails, nobody is answered or counted twice. A line a minute, the checks at the end, first tokens after each kind of
trouble, the verdict; the exit status says the same. The machinery is that of tests/e2e/test_failover.py.

    fleet.py MINUTES [SEED]
"""

import contextlib
import random
import sys
import tempfile
import time

import failover
from fake import Fake
from gateway import Gateway
from wire import wait_for

REPORT_S = 60


def go_on(done, seconds):
    began = reported = time.monotonic()
    while time.monotonic() < began + seconds and not done.callers.ends.is_set():
        done.happens(done.chance.choice(failover.KINDS), done.chance.choice(list(done.fakes)))
        done.callers.wait_answers(done.chance.randrange(10, 200))
        if time.monotonic() - reported >= REPORT_S:
            reported += REPORT_S
            print(f"{(time.monotonic() - began) / 60:4.0f} min: {len(done.callers.questions)} asked, {len(done.events)} events, "
                  f"{len(failover.failed_before_they_began(done.callers.questions))} failed before they began", flush=True)


def main():
    minutes, seed = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
    print(f"seed {seed}", flush=True)
    faults = []
    with tempfile.TemporaryDirectory(prefix="qg-") as folder, contextlib.ExitStack() as stack:
        fakes = {}
        for n in range(3):
            home = stack.enter_context(tempfile.TemporaryDirectory(prefix="qg-"))
            fakes[f"gpu{n}"] = Fake(home, 0, "--num-parallel", failover.SLOTS)
            stack.callback(fakes[f"gpu{n}"].stop)
        entries = [{"name": name, "url": fake.url, "slots": failover.SLOTS} for name, fake in fakes.items()]
        gateway = Gateway(folder, entries[0]["url"], ollama_api=None, backends=entries, slow_start="2s")
        stack.callback(gateway.end, 10)
        wait_for(lambda: gateway.metric("backend_up") == len(fakes))
        with failover.trouble(gateway, fakes, seed) as done:
            try:
                go_on(done, minutes * 60)
            except AssertionError as wrong:
                faults.append(str(wrong))
        gateway.check_books()
        failover.say(done)
        faults += failover.faults_of(gateway, done)
    for fault in faults[:50]:
        print("FAILED:", fault)
    print("VERDICT:", "it does not hold" if faults else "it holds")
    print(f"{not faults:d} passed, {len(faults)} failed")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
