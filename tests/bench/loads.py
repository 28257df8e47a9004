"""What is asked in each load, and of which kind it is."""

import collections
import json

TOKEN_MS = 20
MOST_TOKENS_A_SECOND = 50_000
MOST_OPENED_A_SECOND = 2000
RATE = 1000
WORKERS_RATE = 10_000

# key: its name in build/bench.json; kind: requests, rate, streams or start, which says how it is measured and shown;
# slices: in how many short turns, all contenders alternating; 0: each has one turn a round.
Job = collections.namedtuple("Job", "key load kind title connections rate token_ms tokens spread_ms slices",
                             defaults=(0, 0, 0, 0, 0, 0))


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


def streams_job(streams, options):
    token_ms = pace_of(streams, options.tokens_per_second)
    spread_ms = max(1000, streams * 1000 // MOST_OPENED_A_SECOND)
    return Job(f"c{streams}", "c", "streams", f"(c) {streams} streams, {1000 / token_ms:.3g} tokens/s each", streams,
               token_ms=token_ms, tokens=(spread_ms + options.stream_ms) // token_ms, spread_ms=spread_ms)


def jobs_of(options):
    """What there is to measure in a round, in its order."""
    kilobytes = len(BODIES["b"]) / 1000
    jobs = {
        "a": [Job("a", "a", "requests", "(a) short chat, 64 connections", 64)],
        "b": [Job("b", "b", "requests", f"(b) agent's turn of {kilobytes:.0f} kB with 22 tools, 16 connections", 16)],
        "c": [streams_job(streams, options) for streams in options.streams],
        "d": [Job("d", "d", "rate", f"(d) short chat at {options.rate} requests/s, from when each was due", 64, options.rate,
                  slices=options.slices)],
        "e": [Job("e", "e", "requests", "(e) wrong key, 64 connections (Nginx, HAProxy: return 401)", 64)],
        "w": [Job("w", "w", "rate", f"(w) one and two workers, short chat at {options.workers_rate} requests/s", 64,
                  options.workers_rate)],
        "s": [Job("s", "s", "start", f"(s) from the start to the first answer, {options.starts} starts a round")],
    }
    return [job for load in options.load for job in jobs[load]]
