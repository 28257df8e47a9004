"""
The admin API against its own document for as long as one likes: tests/e2e/test_openapi.py with every operation in every phase,
and another seed each time.

    openapi.py [MINUTES [SEED]]
"""

import contextlib
import os
import random
import sys
import tempfile

from control import Control
from postgres import Cluster
from test_openapi import furnish, schemathesis


def main():
    minutes = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
    print(f"seed {seed}", flush=True)
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(tempfile.TemporaryDirectory(prefix="qg-", ignore_cleanup_errors=True)) for _ in range(3)]
        os.chmod(folders[0], 0o711)  # PostgreSQL's, which is another user's where we are root
        cluster = Cluster(folders[0])
        stack.callback(cluster.stop)
        control = Control(cluster.database(), folders[1], admin_wrong_tokens=1000000, log_level="warn")
        stack.callback(control.stop)
        furnish(control)
        try:
            print(schemathesis(control, folders[2], "--seed", seed, "--max-time", minutes * 60, timeout=minutes * 60 + 1800)[-1500:])
        except AssertionError as found:
            print(found)
            print("0 passed, 1 failed")
            return 1
    print("1 passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
