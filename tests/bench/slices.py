"""A measurement that is taken in short turns, so that a drift of the machine meets all contenders alike."""

import collections

SUMS = ("answers", "all_answers", "wrong", "broken", "reconnects", "behind")
LATENCIES = {"p50_us": 0.5, "p99_us": 0.99, "p999_us": 0.999}


def percentile(latencies, share):
    """Of a counter of values: the one below which `share` of all lie, as bench_load takes it."""
    wanted = int(share * sum(latencies.values()))
    for value in sorted(latencies):
        wanted -= latencies[value]
        if wanted < 0:
            return value
    return 0


def put_together(slices):
    """One measurement out of its slices: counts are added, latencies pooled, costs weighted by the answers they are for."""
    latencies = collections.Counter()
    for each in slices:
        for value, count in each.pop("latencies"):
            latencies[value] += count
    answers = sum(each["answers"] for each in slices)
    said = {name: sum(each[name] for each in slices) for name in SUMS}
    said.update({name: percentile(latencies, share) for name, share in LATENCIES.items()})
    said["late_p99_us"] = max(each["late_p99_us"] for each in slices)
    for name in slices[0].keys() - said.keys():
        # A slice so short that no tick fell into it says nothing of some costs.
        said[name] = sum(each.get(name, 0) * each["answers"] for each in slices) / answers if answers else 0
    return said


def in_turn(running, turn):
    """Who is asked when: nobody always goes first, nor always behind the same one."""
    begin = turn // 2 % len(running)
    order = running[begin:] + running[:begin]
    return order[::-1] if turn % 2 else order
