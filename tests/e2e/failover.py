"""
Three stand-ins with slots, a gateway before them, callers who keep asking, and one thing after another that happens to one
of the stand-ins. At the end all books are compared: what callers got, the log, the metrics, and what the stand-ins say.

A question carries its number in its last message (`id=…`) and in X-Request-Id, so that all four can be laid side by side.
"""

import collections
import contextlib
import random
import threading
import time

from wire import Cut, wait_for

SLOTS, CALLERS = 4, 14
AFTER_S = 3  # first tokens within so many seconds after something happened are told apart


class Question:
    """One request, and what became of it. `begun`: a byte of status or body has come."""

    def __init__(self, number, pieces, is_stream):
        self.number = number
        self.pieces = pieces
        self.is_stream = is_stream
        self.asked = time.monotonic()
        self.begun = self.first = self.status = None
        self.text = ""
        self.is_whole = False
        self.fault = None

    def __repr__(self):
        return f"<{self.number} {'stream' if self.is_stream else 'whole'} {self.status} {self.text!r} {self.fault}>"

    @property
    def is_served(self):
        return self.status == 200 and self.is_whole and self.text == "".join(f" r{n}" for n in range(self.pieces))

    def put_to(self, gateway):
        """Asks, and reads to the end."""
        wire = gateway.open_chat(f"tokens:{self.pieces}@5 id={self.number}", headers={"X-Request-Id": self.number},
                                 stream=self.is_stream)
        try:
            answer = wire.wait_until_bytes().head()
            self.begun, self.status = time.monotonic(), answer.status
            if self.is_stream and answer.status == 200:
                wire.wait_until_bytes()
            self.first = time.monotonic()
            wire.body_of(answer)
            self.is_whole = answer.is_done if answer.is_stream else answer.status == 200
            if answer.is_stream:
                self.fault = answer.stream_error
            elif answer.status != 200:
                self.fault = answer.error
            self.text = answer.content if answer.status == 200 else ""
        except Cut as cut:
            self.fault = f"cut: {cut}"
        finally:
            wire.close()
            gateway.wires.remove(wire)


class Callers:
    """Streams and whole answers by turns, each caller asking again as soon as it was answered."""

    def __init__(self, gateway, seed):
        self.gateway = gateway
        self.ends = threading.Event()
        self.lock = threading.Lock()
        self.questions, self.open = [], set()
        self.errors = []
        self.threads = [threading.Thread(target=self.run, args=(number, random.Random(seed * 1000 + number))) for number in range(CALLERS)]
        for thread in self.threads:
            thread.start()

    def run(self, caller, chance):
        turn = 0
        while not self.ends.is_set():
            turn += 1
            question = Question(f"c{caller}-{turn}", chance.randrange(3, 13), chance.random() < 0.5)
            with self.lock:
                self.open.add(question)
            try:
                question.put_to(self.gateway)
            except Exception as wrong:  # whatever it is, it is a finding
                self.errors.append(f"{question}: {type(wrong).__name__}: {wrong}")
                self.ends.set()
            with self.lock:
                self.open.discard(question)
                self.questions.append(question)

    def wait_answers(self, count):
        """So many more."""
        wanted = len(self.questions) + count
        wait_for(lambda: len(self.questions) >= wanted or self.ends.is_set(), 20, f"{count} more answers")

    def wait_those_open(self):
        """Until all who are being served now have had their answer."""
        with self.lock:
            now_open = set(self.open)
        wait_for(lambda: not now_open & self.open or self.ends.is_set(), 20, "the answers to what was asked before")

    def stop(self):
        self.ends.set()
        for thread in self.threads:
            thread.join()


class Trouble:
    """What happens to one stand-in. The next one has trouble when all are up and whoever met this one has been served."""

    def __init__(self, gateway, fakes, callers, chance):
        self.gateway, self.fakes, self.callers, self.chance = gateway, fakes, callers, chance
        self.events = []  # (time, what)
        self.answered = collections.defaultdict(set)  # number of a question: the stand-ins that said all of its answer
        self.held = collections.defaultdict(set)  # the same: those that were frozen in the middle of it
        self.books_read = collections.Counter()

    def read_books(self, name):
        for number, outcome, *_ in self.fakes[name].ask("GET", "/ids")["ids"]:
            if outcome == "answered":
                self.answered[number].add(name)

    def happens(self, what, name):
        self.events.append((time.monotonic(), what))
        getattr(self, what)(self.fakes[name], name)
        wait_for(lambda: self.gateway.metric("backend_up") == len(self.fakes), 15, f"{name} is up after it was {what}")
        self.callers.wait_those_open()

    def killed(self, fake, name):
        """At any moment: in the middle of answers, so a moment's answers are missing from its books."""
        self.read_books(name)
        fake.kill()
        self.callers.wait_answers(30)
        fake.start()
        self.books_read[name] = 0

    def restarted(self, fake, name):
        """As an update does: it ends by itself, and is back at once."""
        self.read_books(name)
        fake.process.terminate()
        fake.process.wait(10)
        fake.process.stdout.close()
        fake.start()
        self.books_read[name] = 0

    def frozen(self, fake, name):
        """For so long that the gateway gives it up, and those who wait for it are served elsewhere."""
        opened = self.gateway.metric("breaker_opened_total")
        with self.frost(fake.freeze, fake.thaw, fake, name):
            wait_for(lambda: self.gateway.metric("breaker_opened_total") > opened, 15, "it is given up")
            self.callers.wait_answers(30)

    def hung(self, fake, name):
        """The same, but the process is there: it takes connections and does nothing with them."""
        opened = self.gateway.metric("breaker_opened_total")
        with self.frost(lambda: fake.set(blackhole=True), lambda: fake.set(blackhole=False), fake, name):
            wait_for(lambda: self.gateway.metric("breaker_opened_total") > opened, 15, "it is given up")
            self.callers.wait_answers(30)

    def stumbled(self, fake, name):
        """Frozen for a moment: nobody needs to notice but those who wait."""
        with self.frost(fake.freeze, fake.thaw, fake, name):
            self.callers.wait_answers(15)

    def dropped(self, fake, name):
        """All its connections are reset, and it goes on."""
        fake.set(drop=True)

    @contextlib.contextmanager
    def frost(self, stop, go_on, fake, name):
        """What it was saying when it froze it goes on with when it thaws, and may say all of it before it notices that
        nobody is there any more."""
        stop()
        began = time.monotonic() * 1000
        yield
        thawed = time.monotonic() * 1000
        go_on()
        chats = fake.ask("GET", f"/seen?path=/api/chat&from={self.books_read[name]}")["requests"]
        self.books_read[name] = chats[-1]["n"] if chats else self.books_read[name]
        for chat in chats:
            if chat["received_ms"] <= thawed and (chat["ended_ms"] is None or chat["ended_ms"] >= began):
                self.held[chat["id"]].add(name)


KINDS = ("killed", "frozen", "hung", "restarted", "stumbled", "dropped")


@contextlib.contextmanager
def trouble(gateway, fakes, seed):
    callers = Callers(gateway, seed)
    try:
        yield Trouble(gateway, fakes, callers, random.Random(seed))
    finally:
        callers.stop()


# --- the books ------------------------------------------------------------------------------------------------------

def failed_before_they_began(questions):
    """A byte of the answer's status or body is its beginning; a status that says no is none."""
    return [each for each in questions if not each.is_served and (each.status != 200 or not each.is_stream)]


def faults_of(gateway, done):
    """A sentence for all that is not as it should be; the callers must have stopped."""
    questions = done.callers.questions
    faults = list(done.callers.errors)
    faults += [f"{each} failed before it began" for each in failed_before_they_began(questions)]
    faults += [f"{each} ended without a word" for each in questions if each.status == 200 and not each.is_whole and not each.fault]
    compare_books(gateway, done, faults)
    return faults


def compare_books(gateway, done, ret_faults):
    """Appends a sentence to ret_faults for all that does not agree."""
    questions = {each.number: each for each in done.callers.questions}
    lines = collections.defaultdict(list)
    for line in gateway.requests_logged():
        if line["path"] == "/v1/chat/completions":
            lines[line["req"]].append(line)
    if set(lines) != set(questions) or any(len(each) > 1 for each in lines.values()):
        ret_faults.append(f"{len(questions)} asked, {sum(map(len, lines.values()))} lines of {len(lines)}")
    for name in done.fakes:
        done.read_books(name)
    prompt = completion = 0
    for number, question in questions.items():
        for line in lines[number]:
            prompt += int(line.get("prompt_tokens", 0))
            completion += int(line.get("completion_tokens", 0))
            counted = (line["status"], int(line.get("completion_tokens", -1)), line.get("estimated"))
            if question.is_served and counted != ("200", question.pieces, None):
                ret_faults.append(f"{question} was counted as {line['line']}")
            sent_on = done.held[number] if line.get("resent") else set()
            if not done.answered[number] - sent_on <= {line["backend"]}:
                ret_faults.append(f"{question} was answered by {done.answered[number]}, {line['line']}")
    counted = {direction: gateway.metric("tokens_total", direction=direction) for direction in ("prompt", "completion")}
    if counted != {"prompt": prompt, "completion": completion}:
        ret_faults.append(f"counted {counted}, logged {prompt} and {completion}")
    left = {name: gateway.metric(name) for name in ("queue_waiting", "queue_running", "backend_running", "in_flight")}
    if any(left.values()):
        ret_faults.append(f"left at the end: {left}")


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0


def first_tokens(done):
    """{what happened: (count, median, 99th percentile, most)} of seconds to the first token, of those who were being
    served when it happened or came within AFTER_S; `nothing`: of all others."""
    waits = collections.defaultdict(list)
    for each in done.callers.questions:
        if each.first is None:
            continue
        near = [what for at, what in done.events if each.asked < at + AFTER_S and each.first > at]
        waits[near[-1] if near else "nothing"].append(each.first - each.asked)
    return {what: (len(each), percentile(each, 0.5), percentile(each, 0.99), max(each)) for what, each in sorted(waits.items())}


def say(done):
    questions = done.callers.questions
    begun = [each for each in questions if not each.is_served]
    print(f"{len(questions)} asked, {len(questions) - len(begun)} served, {len(begun)} cut after they had begun, "
          f"{done.gateway.metric('backend_resends_total'):g} sent again, {len(done.events)} events: "
          f"{dict(collections.Counter(what for _, what in done.events))}")
    for what, (count, median, p99, most) in first_tokens(done).items():
        print(f"  first token after {what:10} {count:6} requests: median {median * 1000:6.0f} ms, p99 {p99 * 1000:6.0f} ms, "
              f"most {most * 1000:6.0f} ms")
