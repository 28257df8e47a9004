"""Three short rounds of tests/chaos/run. What must hold in them stands in its help."""

import sys

from processes import ROOT, environment, run


def test_nothing_that_was_promised_is_broken_when_parts_are_killed_frozen_and_parted():
    done = run([sys.executable, ROOT / "tests" / "chaos" / "run", "--rounds", 3, "--short"], timeout=120, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
