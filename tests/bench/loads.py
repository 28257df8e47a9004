"""What is asked in each load, and of which kind it is."""

import collections
import json
import math

TOKEN_MS = 20
MOST_TOKENS_A_SECOND = 50_000
MOST_OPENED_A_SECOND = 2000
GENTLY_OPENED_A_SECOND, GENTLE_MS = 800, 750  # as long as it takes no longer
RATE = 1000
WORKERS_RATE = 10_000
WARM_MS, RATE_WARM_MS = 50, 100  # of a slice: some twenty questions a connection; one or two

# key: its name in build/bench.json; kind: requests, rate, streams or start, which says how it is measured and shown;
# slices: in how many turns a round, all contenders alternating; slice_ms: how long each is measured, after warm_ms.
Job = collections.namedtuple("Job", "key load kind title slices connections rate warm_ms slice_ms token_ms tokens spread_ms",
                             defaults=(1, 0, 0, 0, 0, 0, 0, 0))


def short_chat(is_stream):
    return {"model": "qwen3:32b",
            "messages": [{"role": "system", "content": "You are a helpful assistant."},
                         {"role": "user", "content": "What is the capital of France, and since when?"}],
            "stream": is_stream, "max_tokens": 256, "temperature": 0.7, "top_p": 0.95}


def agent_tool(number):
    path = {"type": "string", "description": "Path to the file to read (relative or absolute)"}
    line = {"type": "number", "description": "Line number to start reading from (1-indexed)"}
    most = {"type": "number", "description": "Maximum number of lines to read"}
    mode = {"type": "string", "enum": ["text", "lines", "bytes"], "description": "How to read"}
    says = ("Reads a file, or a part of one, and says what is in it; large files are cut, so that asking again for the "
            "rest is a good thing to do.")
    schema = {"type": "object", "required": ["path"],
              "properties": {"path": path, "offset": line, "limit": most, "mode": mode}}
    return {"type": "function",
            "function": {"name": f"tool_{number}", "description": says, "parameters": schema, "strict": False}}


def agent_turn():
    sentence = 'You are a careful assistant.\nDo what "the user" asks, and say so when you cannot. '
    return {"model": "qwen3:32b",
            "messages": [{"role": "developer", "content": sentence * 410},
                         {"role": "user", "content": [{"type": "text", "text": "Say hello"}]}],
            "stream": False, "store": False, "max_completion_tokens": 8192,
            "tools": [agent_tool(number) for number in range(22)], "reasoning_effort": "low"}


BODIES = {load: json.dumps(body, separators=(",", ":"))
          for load, body in {"a": short_chat(False), "b": agent_turn(), "c": short_chat(True), "d": short_chat(False),
                             "e": short_chat(False), "w": short_chat(False), "s": short_chat(False)}.items()}


def pace_of(streams, most_tokens_a_second):
    """Milliseconds between two tokens of a stream: 20, or as many as keep all of them together to what one core can relay."""
    return max(TOKEN_MS, streams * 1000 // most_tokens_a_second)


def spread_of(streams, token_ms):
    """Over how many milliseconds streams begin: so many times the time between two tokens of one that no two of them are in
    step. Else (200 streams over 1,000 ms at 20 ms) fifty would always have their tokens at the same moment."""
    least = max(streams * 1000 // MOST_OPENED_A_SECOND, min(streams * 1000 // GENTLY_OPENED_A_SECOND, GENTLE_MS))
    times = max(1, -(-least // token_ms))
    while math.gcd(times, streams) > 1:
        times += 1
    return times * token_ms


def streams_job(streams, options):
    """Of a slice, opening and ending are lost time, so those in which that takes long are fewer, and as much longer."""
    token_ms = pace_of(streams, options.tokens_per_second)
    spread_ms = options.spread or spread_of(streams, token_ms)
    slices = min(options.stream_slices, 4 if spread_ms < 500 else 3 if spread_ms < 1000 else 2)
    slice_ms = options.stream_ms // slices
    return Job(f"c{streams}", "c", "streams", f"(c) {streams} streams, {1000 / token_ms:.3g} tokens/s each", slices, streams,
               slice_ms=slice_ms, token_ms=token_ms, tokens=(spread_ms + slice_ms) // token_ms, spread_ms=spread_ms)


def jobs_of(options):
    """What there is to measure in a round, in its order. Of the time that a load has, each slice has its part."""
    kilobytes = len(BODIES["b"]) / 1000

    def requests(load, title, connections):
        return Job(load, load, "requests", f"({load}) {title}", options.slices, connections, 0, WARM_MS,
                   options.run_ms // options.slices)

    def paced(load, title, rate, run_ms):
        return Job(load, load, "rate", f"({load}) {title}", options.slices, 64, rate, RATE_WARM_MS, run_ms // options.slices)

    jobs = {
        "a": [requests("a", "short chat, 64 connections", 64)],
        "b": [requests("b", f"agent's turn of {kilobytes:.0f} kB with 22 tools, 16 connections", 16)],
        "c": [streams_job(streams, options) for streams in options.streams],
        "d": [paced("d", f"short chat at {options.rate} requests/s, from when each was due", options.rate, options.rate_ms)],
        "e": [requests("e", "wrong key, 64 connections (Nginx, HAProxy: return 401)", 64)],
        "w": [paced("w", f"one and two workers, short chat at {options.workers_rate} requests/s", options.workers_rate,
                    options.workers_ms)],
        "s": [Job("s", "s", "start", f"(s) from the start to the first answer, {options.starts} starts a round")],
    }
    return [job for load in options.load for job in jobs[load]]
