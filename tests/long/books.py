"""
Thousands of mixed requests, a tenth given up by their callers at some moment, before backends that do wrong now and then: log,
metrics and backends must agree to the token. The machinery, and the bound of what is estimated, are tests/e2e/ledger.py's.

    books.py [THOUSANDS [SEED]]
"""

import contextlib
import random
import sys
import tempfile

import ledger
from fake import Fake
from gateway import Gateway
from wire import wait_for

SLOTS, BACKENDS = 4, 3


def main():
    count = 1000 * int(sys.argv[1]) if len(sys.argv) > 1 else 10000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
    print(f"seed {seed}", flush=True)
    with contextlib.ExitStack() as stack:
        fakes = []
        for _ in range(BACKENDS):
            fakes.append(Fake(stack.enter_context(tempfile.TemporaryDirectory(prefix="qg-")), 0, "--num-parallel", SLOTS))
            stack.callback(fakes[-1].stop)
        entries = [{"name": f"gpu{at}", "url": fake.url, "slots": SLOTS} for at, fake in enumerate(fakes)]
        gateway = Gateway(stack.enter_context(tempfile.TemporaryDirectory(prefix="qg-")), fakes[0].url, ollama_api=None, backends=entries)
        stack.callback(gateway.end, 10)
        wait_for(lambda: gateway.metric("backend_up") == len(fakes))
        callers = ledger.ask_all(gateway, fakes, count, seed)
        faults, figures = ledger.compare(gateway, fakes, callers)
    for name, figure in figures.items():
        print(f"{name}: {figure}")
    for fault in faults[:50]:
        print("FAILED:", fault)
    print("VERDICT:", "it does not hold" if faults else "it holds")
    print(f"{not faults:d} passed, {len(faults)} failed")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
