"""
Mixed requests, a tenth of them given up by their callers at some moment, and then every book beside every other: what callers
got, the log, the metrics, and what the stand-ins say they did. A request is known everywhere by its number: in its last
message (`id=…`) and in X-Request-Id.

The rule (behaviour.md 5): tokens are the backend's own counts. Where those never come, or are known to be too small (thinking
before a prescribed form), a record is marked `estimated`, and its completion tokens are the pieces that passed, or a quarter
of their bytes where that is more. So the bound of an estimated one is

    pieces that its caller received  <=  completion_tokens  <=  larger of pieces and bytes / 4 that the backend sent

and its prompt tokens are a quarter of its characters, rounded up.
"""

import collections
import contextlib
import json
import random
import threading
import time

from gateway import KEY, chat_body
from wire import Cut

CALLERS = 16
ABORTS = 0.1
MOST_DELAY_S = 0.04
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
FORM = {"type": "json_schema", "json_schema": {"name": "n", "schema": {
    "type": "object", "properties": {"city": {"type": "string"}, "people": {"type": "integer"}}, "required": ["city", "people"]}}}

# What is asked, by the words of its last message and further fields; and how often.
ASKED = {
    "tokens": (8, lambda chance: (f"tokens:{chance.randrange(1, 30)}@{chance.randrange(0, 4)}", {})),
    "text": (3, lambda chance: ("say:Zeichen ✓ für Zeichen", {})),
    "thinking": (2, lambda chance: ("why?", {})),
    "no thinking": (1, lambda chance: ("why?", {"reasoning_effort": "none"})),
    "tools": (3, lambda chance: ("weather?", {"tools": [TOOL]})),
    "form": (1, lambda chance: ("fill in", {"response_format": FORM, "reasoning_effort": "none"})),
    "form after thinking": (2, lambda chance: ("fill in", {"response_format": FORM})),
    "unknown model": (1, lambda chance: ("hi", {"model": "nobody:1b"})),
    "unfit": (1, lambda chance: ("hi", {"temperature": "hot"})),
    "wrong key": (1, lambda chance: ("hi", {})),
}
# What a backend does to whatever it is asked next, now and then.
FAULTS = (
    {"error_after_tokens": {"n": 3}}, {"error_after_tokens": {"n": 0}}, {"reset_after_bytes": 500}, {"hangup_after_bytes": 700},
    {"close_before_answer": True}, {"status": 503, "body": {"error": "server busy"}}, {"status": 500, "body": {"error": "no"}},
    {"no_done": True}, {"head_delay_ms": 30},
)


class Request:
    """One request and what its caller saw of it. `pieces`, `usage`: what came; `left`: the caller gave it up then."""

    def __init__(self, number, kind, says, fields, left):
        self.number, self.kind, self.says, self.fields, self.left = number, kind, says, fields, left
        self.status = self.usage = None
        self.pieces = self.bytes = 0
        self.is_whole = False

    def __repr__(self):
        return f"<{self.number} {self.kind} {self.fields.get('stream')} left={self.left} {self.status} {self.pieces} {self.usage}>"

    @property
    def asked(self):
        """All that ask this are answered alike."""
        return self.kind, self.says.partition("@")[0], self.fields.get("reasoning_effort")

    def send(self, wire):
        key = "wrong" if self.kind == "wrong key" else KEY
        headers = [("Authorization", f"Bearer {key}"), ("X-Request-Id", self.number)]
        wire.request("POST", "/v1/chat/completions", headers, chat_body(f"{self.says} id={self.number}", **self.fields))

    def read(self, answer):
        """What is said in an answer, or in as much of one as came."""
        self.status = answer.status
        if answer.status != 200:
            return
        if not answer.is_stream:
            if answer.is_whole:
                self.usage = answer.json["usage"]
                self.count(answer.json["choices"][0]["message"])
            return
        whole = answer.body[:answer.body.rfind(b"\n\n") + 2]
        for event in whole.decode().split("\n\n"):
            if event.startswith("data: {"):
                self.read_chunk(json.loads(event[len("data: "):]))

    def read_chunk(self, chunk):
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk.get("choices", ()):
            self.pieces += self.count(choice["delta"])

    def count(self, said):
        """The bytes of a message or a part of one. True: it has text."""
        texts = (said.get("content") or "") + (said.get("reasoning") or "")
        calls = [call["function"] for call in said.get("tool_calls") or ()]
        self.bytes += len(texts.encode()) + sum(len(call.get("name", "") + call.get("arguments", "")) for call in calls)
        return bool(texts)


def leave(wire, request, chance):
    """At once, a moment later, or with the answer's first bytes; in order or not."""
    answer = None
    if request.left == "later":
        time.sleep(chance.uniform(0, MOST_DELAY_S))  # the moment is what is tried
    elif request.left == "reading":
        with contextlib.suppress(Cut):
            answer = wire.head()
            wire.wait_until_bytes()
            if (answer.header("Transfer-Encoding") or "") == "chunked":
                for _ in range(chance.randrange(1, 6)):
                    piece = wire.chunk()
                    answer.body += piece
                    if not piece:
                        break
            request.read(answer)
    if answer and chance.random() < 0.5:
        wire.reset()
    else:
        wire.close()


class Callers:
    """Ask `count` in all, on kept and on fresh connections."""

    def __init__(self, gateway, count, seed):
        self.gateway, self.count, self.seed = gateway, count, seed
        self.lock = threading.Lock()
        self.given = 0
        self.requests, self.errors = [], []
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(CALLERS)]
        for thread in self.threads:
            thread.start()

    def next(self, caller, chance):
        with self.lock:
            if self.given == self.count:
                return None
            self.given += 1
            number = f"b{caller}-{self.given}"
        kind, = chance.choices(list(ASKED), [often for often, _ in ASKED.values()])
        says, fields = ASKED[kind][1](chance)
        stream = chance.random() < 0.6
        fields = {**fields, "stream": stream, **({"stream_options": {"include_usage": True}} if stream else {})}
        left = chance.choice(["at once", "later", "later", "reading"]) if chance.random() < ABORTS else None
        request = Request(number, kind, says, fields, left)
        self.requests.append(request)
        return request

    def run(self, caller):
        chance = random.Random(self.seed * 1000 + caller)
        wire = None
        try:
            while request := self.next(caller, chance):
                if wire is None:
                    wire = self.gateway.wire()
                wire.ends_at = time.monotonic() + 60
                if not self.ask(wire, request, chance):
                    wire.close()
                    self.gateway.wires.remove(wire)
                    wire = None
        except Exception as wrong:  # whatever it is, it is a finding
            self.errors.append(f"{request}: {type(wrong).__name__}: {wrong}")

    def ask(self, wire, request, chance):
        """True: the connection can be used again, and shall be."""
        request.send(wire)
        if request.left:
            leave(wire, request, chance)
            return False
        answer = wire.answer(may_be_cut=True)
        request.is_whole = answer.is_whole
        request.read(answer)
        closes = answer.header("Connection") == "close" or (answer.is_stream and answer.stream_error)
        return answer.is_whole and not closes and chance.random() < 0.8

    def wait(self):
        for thread in self.threads:
            thread.join()


def ask_all(gateway, fakes, count, seed):
    """Asks them while backends do wrong now and then. Gives the callers."""
    callers, chance = Callers(gateway, count, seed), random.Random(seed)
    wrong_at = 0
    while any(thread.is_alive() for thread in callers.threads):
        if callers.given >= wrong_at:
            wrong_at = callers.given + 20
            chance.choice(fakes).script(**chance.choice(FAULTS))
        callers.threads[0].join(0.01)
    callers.wait()
    return callers


# --- comparing ------------------------------------------------------------------------------------------------------

class Row:
    """What a stand-in did for a number."""

    def __init__(self, name, outcome, pieces, prompt, completion):
        self.name, self.outcome, self.pieces, self.prompt, self.completion = name, outcome, pieces, prompt, completion

    def __repr__(self):
        return f"[{self.name} {self.outcome} {self.pieces} {self.prompt}+{self.completion}]"


def rows_of(fakes):
    rows = collections.defaultdict(list)
    for at, fake in enumerate(fakes):
        for number, *row in fake.ask("GET", "/ids")["ids"]:
            rows[number].append(Row(at, *row))
    return rows


def whole_bytes(requests):
    """{what was asked: UTF-8 bytes of its whole answer}, from those who had all of it."""
    found = {}
    for request in requests:
        if request.is_whole and request.usage:
            found[request.asked] = max(found.get(request.asked, 0), request.bytes)
    return found


def judge(request, line, rows, bytes_of):
    """What is wrong between the books of one request, or None. All of them are over."""
    told = [row for row in rows if row.completion is not None and row.outcome == "answered"]
    counted = None if "completion_tokens" not in line else (int(line["prompt_tokens"]), int(line["completion_tokens"]))
    if request.status not in (None, int(line["status"])) and not (request.status == 200 and "why" in line):
        return "the caller was told another status"  # what fails after that one went out is logged as what failed
    if len(told) > 1:
        return "two stand-ins answered it"
    if counted is None:
        return "its tokens are not counted" if request.usage or request.pieces else None
    if request.usage and request.usage["completion_tokens"] != counted[1]:
        return "the caller was told another count"
    if not rows:
        return "no stand-in knows of it"
    if "estimated" not in line:
        return None if told and counted == (told[0].prompt, told[0].completion) else "the stand-in counted otherwise"
    return judge_estimated(request, counted, int(line["prompt_chars"]), rows, bytes_of)


def judge_estimated(request, counted, prompt_chars, rows, bytes_of):
    pieces = max(row.pieces for row in rows)
    if counted[0] != (prompt_chars + 3) // 4 and counted[0] not in [row.prompt for row in rows if row.prompt is not None]:
        return "the prompt is estimated out of bounds"
    least = max(request.pieces, request.bytes // 4)
    if request.is_whole and request.usage:  # thinking before a form: all of it passed, and the backend counted a part
        least = max([least, *(row.completion or 0 for row in rows)])
    most = max([pieces, bytes_of.get(request.asked, 0) // 4, *(row.completion or 0 for row in rows)])
    return None if least <= counted[1] <= most else f"not within {least} and {most}"


def compare(gateway, fakes, callers):
    """(faults, figures). All callers are gone."""
    for fake in fakes:
        fake.wait_running(0)
    gateway.check_books()
    requests = {request.number: request for request in callers.requests}
    lines = collections.defaultdict(list)
    for line in gateway.requests_logged():
        lines[line["req"]].append(line)
    rows, bytes_of = rows_of(fakes), whole_bytes(callers.requests)
    faults = list(callers.errors)
    faults += [f"{request} is in the log {len(lines[number])} times" for number, request in requests.items() if len(lines[number]) != 1]
    for number, request in requests.items():
        for line in lines[number]:
            if wrong := judge(request, line, rows[number], bytes_of):
                faults.append(f"{wrong}: {request} {rows[number]} {line['line']}")
    told, logged = totals(gateway, requests, lines, rows, faults)
    left = {name: gateway.metric(name)
            for name in ("queue_waiting", "queue_users_waiting", "queue_running", "backend_running", "in_flight")}
    if any(left.values()):
        faults.append(f"left at the end: {left}")
    return faults, {**told, **logged, "given up": sum(request.left is not None for request in requests.values()),
                    "of them waiting": int(gateway.metric("queue_abandoned_total")),
                    "statuses": dict(collections.Counter(line["status"] for each in lines.values() for line in each))}


def totals(gateway, requests, lines, rows, faults):
    """Sums over all requests, for what is not estimated and for what is; the metrics must have the same."""
    own, estimated, theirs, passed = [0, 0], [0, 0], [0, 0], 0
    count = 0
    for number in requests:
        for line in lines[number]:
            if "completion_tokens" not in line:
                continue
            into = estimated if "estimated" in line else own
            count += into is estimated
            for at, name in enumerate(("prompt_tokens", "completion_tokens")):
                into[at] += int(line[name])
            told = [row for row in rows[number] if row.completion is not None and row.outcome == "answered"]
            if into is estimated:
                passed += max(row.pieces for row in rows[number])
            elif told:
                theirs[0] += told[0].prompt
                theirs[1] += told[0].completion
    metrics = [gateway.metric("tokens_total", direction=direction) for direction in ("prompt", "completion")]
    if metrics != [own[0] + estimated[0], own[1] + estimated[1]]:
        faults.append(f"the metrics count {metrics}, the log {own} and {estimated}")
    if own != theirs:
        faults.append(f"the log counts {own}, the stand-ins {theirs}")
    by_status = collections.Counter(line["status"][0] for each in lines.values() for line in each)
    for status, written in by_status.items():
        if gateway.metric("requests_total", status=f"{status}xx") != written:
            faults.append(f"{written} lines with {status}xx, counted {gateway.metric('requests_total', status=f'{status}xx')}")
    return ({"requests": len(requests), "prompt tokens": own[0], "completion tokens": own[1]},
            {"estimated": count, "their completion tokens": estimated[1], "pieces sent for them": passed})
