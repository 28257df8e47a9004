"""
A measurement that is taken in short turns, so that a drift of the machine meets all contenders alike.

What becomes of a contender's slices of one round. This was settled before anything was measured with it:
- Faults and counts are added.
- CPU a request: what the process ran in all slices, divided by the answers of all slices. CPU a token: the same of the spans in
  which all streams ran, divided by the tokens of those; a slice in which there was no such span gives to neither. User and system
  share that as the clock's ticks of all slices do.
- Latencies, delays of first tokens and gaps of all slices lie in one heap, and percentiles are those of the heap.
- Memory a stream: by how much the process grew in each slice, added, divided by the streams of those slices. A contender is
  started anew for each slice of streams, so none has grown before.
- Requests a second and shares of a core: by the time that all slices took together, warming up not counted.
Nothing is left out for being far from the rest. The ratio to Nginx is that of what became of either's slices in the same round,
and the figure is the median of the rounds.
"""

import collections

USED = ("took_us", "ran_us", "user_ticks", "system_ticks", "callers_us", "backend_us", "busy_us")
ANSWERED = ("answers", "all_answers", "wrong", "broken", "reconnects", "behind")
STREAMED = ("streams", "tokens", "lost", "doubled", "reordered", "failed", "tokens_measured")
SHARES = {"own_percent": "ran_us", "callers_percent": "callers_us", "backend_percent": "backend_us", "busy_percent": "busy_us"}


def percentile(values, share):
    """Of a counter of values: the one below which `share` of all lie, as bench_load takes it."""
    wanted = int(share * sum(values.values()))
    for value in sorted(values):
        wanted -= values[value]
        if wanted < 0:
            return value
    return 0


def pooled(slices, name):
    """One heap, as a counter, of what each slice tells as [[value, how many]]."""
    heap = collections.Counter()
    for each in slices:
        for value, count in each[name]:
            heap[value] += count
    return heap


def added(slices, names):
    return {name: sum(each[name] for each in slices) for name in names}


def cost_of(used, count):
    """What each of `count` has cost, and how busy everybody was meanwhile. Nothing of what could not be seen."""
    said = {}
    if used["ran_us"] and count:
        ticks = used["user_ticks"] + used["system_ticks"]
        said["cpu_us"] = used["ran_us"] / count
        said["user_us"] = said["cpu_us"] * used["user_ticks"] / ticks if ticks else 0
        said["system_us"] = said["cpu_us"] - said["user_us"]
    if used["took_us"]:
        said.update({name: 100 * used[of] / used["took_us"] for name, of in SHARES.items()})
    return said


def put_together(slices):
    """Of slices of requests, as bench_load tells them."""
    said = added(slices, ANSWERED)
    used, latencies = added(slices, USED), pooled(slices, "latencies")
    said["per_s"] = said["answers"] * 1e6 / used["took_us"]
    for name, share in {"p50_us": 0.5, "p99_us": 0.99, "p999_us": 0.999}.items():
        said[name] = percentile(latencies, share)
    said["late_p99_us"] = max(each["late_p99_us"] for each in slices)
    return {**said, **cost_of(used, said["answers"])}


def put_streams_together(slices):
    """The same of slices of streams."""
    said = added(slices, STREAMED)
    firsts, gaps = pooled(slices, "firsts"), pooled(slices, "gaps")
    for name, heap, share in (("first_p50", firsts, 0.5), ("first_p99", firsts, 0.99),
                              ("gap_p50", gaps, 0.5), ("gap_p99", gaps, 0.99), ("gap_p999", gaps, 0.999)):
        said[f"{name}_ms"] = percentile(heap, share) / 1000
    said.update(cost_of(added(slices, USED), said["tokens_measured"]))
    streams = sum(each["streams_measured"] for each in slices)
    if "cpu_us" in said and streams:
        said["kib_a_stream"] = sum(each["grown_bytes"] for each in slices if each["streams_measured"]) / streams / 1024
    return said


def in_turn(running, turn):
    """Who is asked when: nobody always goes first, nor always behind the same one."""
    begin = turn // 2 % len(running)
    order = running[begin:] + running[:begin]
    return order[::-1] if turn % 2 else order
