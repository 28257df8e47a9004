"""The loads of tests/bench/fleet that go to three backends, one twice and one four times as fast as the first."""

import asyncio
import collections
import contextlib
import json
import statistics
import time
import urllib.request

from crowd import MEAN_TOKENS, Crowd, percentile
from sites import DELEGATE, SLOTS, SPEEDS, GatewayFleet, NginxFleet, stand_in

TOKEN_MS = 12
WARM_S = 2
CALLERS = 60  # five for each slot
RATE_SHARE, CALM_SHARE = 0.85, 0.4  # of what the backends can do
SESSIONS = 40
ALONE = "/api/chat"


def contenders(program):
    """Judged are the first three; the last two are told what the others must find out."""
    return [gateways(program)[0], NginxFleet("round robin"), NginxFleet("least_conn", "least_conn;"),
            NginxFleet("round robin, told the speeds", "", SPEEDS), NginxFleet("least_conn, told the speeds", "least_conn;", SPEEDS)]


def gateways(program):
    """The second is told the speeds, and so gives conversations to backends in that proportion."""
    return [GatewayFleet("gateway", program, **DELEGATE),
            GatewayFleet("gateway, told the speeds", program, weights=[speed // SPEEDS[0] for speed in SPEEDS], **DELEGATE)]


@contextlib.contextmanager
def backends(bench):
    """[(port, books' port)]"""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(stand_in(bench, SLOTS, speed, TOKEN_MS)) for speed in SPEEDS]


def served_by(books):
    """{number of a question: index of the stand-in that answered it}"""
    found = {}
    for index, port in enumerate(books):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ids", timeout=30) as answer:
            found.update({row[0]: index for row in json.load(answer)["ids"] if row[1] == "answered"})
    return found


def pace_of(books):
    """How long the stand-ins took to say what they said, beside how long they should have taken. More than 1 is not the doing of
    whoever stands before them: the machine kept them from their work."""
    took = due = 0
    for speed, port in zip(SPEEDS, books):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/seen?path=/api/chat", timeout=30) as answer:
            for chat in json.load(answer)["requests"]:
                if chat["outcome"] == "answered":
                    took += chat["ended_ms"] - chat["started_ms"]
                    due += (chat["tokens_sent"] - 1) * TOKEN_MS * SPEEDS[0] / speed
    return took / due if due else float("nan")


def full_load(port, path, seed, callers, seconds):
    """Tokens a second while all callers keep asking, and how many failed."""
    crowd, began = Crowd(port, path, seed), time.monotonic()
    asyncio.run(crowd.keep_asking(callers, WARM_S + seconds))
    return {"tokens_per_s": crowd.tokens_per_s(began + WARM_S, began + WARM_S + seconds), "failed": len(crowd.failed())}


def measure_alone(bench, seed, seconds):
    """What each backend does with nobody between, added up."""
    with backends(bench) as sites:
        each = [full_load(port, ALONE, seed, 2 * SLOTS, seconds) for port, _ in sites]
        pace = pace_of([books for _, books in sites])
    return {"tokens_per_s": sum(one["tokens_per_s"] for one in each), "failed": sum(one["failed"] for one in each),
            "each": [one["tokens_per_s"] for one in each], "pace": pace}


def measure_full(bench, contender, seed, seconds):
    with backends(bench) as sites, contender.running(bench, contender, [port for port, _ in sites]) as (port, _):
        said = full_load(port, contender.path, seed, CALLERS, seconds)
        spread = collections.Counter(served_by([books for _, books in sites]).values())
        pace = pace_of([books for _, books in sites])
    return {**said, "spread": [spread[index] for index in range(len(sites))], "pace": pace}


def measure_waits(bench, contender, seed, tokens_per_s, seconds):
    rate = RATE_SHARE * tokens_per_s / MEAN_TOKENS
    with backends(bench) as sites, contender.running(bench, contender, [port for port, _ in sites]) as (port, _):
        crowd, began = Crowd(port, contender.path, seed), time.monotonic()
        asyncio.run(crowd.ask_at_random(rate, WARM_S + seconds))
        spread = collections.Counter(served_by([books for _, books in sites]).values())
        pace = pace_of([books for _, books in sites])
    waits = crowd.waits_ms(began + WARM_S)
    return {"rate": rate, "count": len(waits), "failed": len(crowd.failed()), "mean_ms": statistics.fmean(waits),
            "p50_ms": percentile(waits, 0.5), "p99_ms": percentile(waits, 0.99), "most_ms": waits[-1],
            "spread": [spread[index] for index in range(len(sites))], "pace": pace}


def measure_affinity(bench, gateway, seed, tokens_per_s, seconds):
    """By the gateway's own count, and by the stand-ins': how many turns went where the turn before had been."""
    with backends(bench) as sites, gateway.running(bench, gateway, [port for port, _ in sites]) as (port, _):
        crowd = Crowd(port, gateway.path, seed)
        asyncio.run(crowd.ask_at_random(CALM_SHARE * tokens_per_s / MEAN_TOKENS, WARM_S + seconds, SESSIONS))
        where = served_by([books for _, books in sites])
        hits, tries = gateway.metric("queue_affinity_hits_total"), gateway.metric("queue_affinity_tries_total")
    before, same, turns = {}, 0, 0
    for question in crowd.questions:
        if question.session in before:
            turns += 1
            same += where.get(question.number) == before[question.session]
        before[question.session] = where.get(question.number)
    return {"count": len(crowd.questions), "failed": len(crowd.failed()), "hits": hits, "tries": tries,
            "hit_rate": hits / tries if tries else 0, "same_as_before": same / turns if turns else 0}
