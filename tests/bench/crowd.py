"""
The callers of tests/bench/fleet: many streams from one loop, each on a connection of its own. Either so many at once, each
asking again when it was answered, or at random moments (a Poisson process from a printed seed) whatever the answers do; then
a wait counts from when the question was due.
"""

import asyncio
import json
import random
import time

from contenders import KEY

MARK = b'"content":" r'  # of each token, in OpenAI's frames and in Ollama's lines
SHORTEST, LONGEST = 8, 40  # tokens
MEAN_TOKENS = (SHORTEST + LONGEST) / 2
USERS = 20


class Question:
    """`due`, `first`, `ended`: seconds of CLOCK_MONOTONIC."""

    def __init__(self, number, chance, session=None):
        self.number, self.session = number, session
        self.tokens = chance.randint(SHORTEST, LONGEST)
        self.user = chance.randrange(USERS)
        self.due = self.first = self.ended = None
        self.got = 0
        self.status = 0

    @property
    def is_served(self):
        return self.status == 200 and self.got == self.tokens

    def request(self, path):
        body = json.dumps({"model": "qwen3:32b", "stream": True,
                           "messages": [{"role": "user", "content": f"tokens:{self.tokens} id={self.number}"}]}).encode()
        session = f"X-Session-Id: {self.session}\r\n" if self.session else ""
        return (f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nAuthorization: Bearer {KEY}\r\n"
                f"X-User-Id: user{self.user}\r\n{session}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


class Crowd:
    """Asks at one place and keeps all questions. `arrived`: [(when, how many)] of tokens."""

    def __init__(self, port, path, seed):
        self.port, self.path = port, path
        self.chance = random.Random(seed)
        self.questions, self.arrived = [], []

    def question(self, session=None):
        question = Question(f"{len(self.questions)}", self.chance, session)
        self.questions.append(question)
        return question

    async def ask(self, question):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(question.request(self.path))
            said = b""
            while piece := await reader.read(65536):
                said += piece
                count = said.count(MARK)
                now = time.monotonic()
                if count > question.got:
                    self.arrived.append((now, count - question.got))
                    question.first = question.first or now
                    question.got = count
            question.ended = time.monotonic()
            question.status = int(said.split(b" ", 2)[1]) if said.startswith(b"HTTP/1.1 ") else 0
        except OSError:
            question.ended = time.monotonic()
        finally:
            writer.close()

    async def one_caller(self, until):
        while time.monotonic() < until:
            question = self.question()
            question.due = time.monotonic()
            await self.ask(question)

    async def keep_asking(self, callers, seconds):
        """So many at once, until the time is over and the last is answered."""
        until = time.monotonic() + seconds
        await asyncio.gather(*(self.one_caller(until) for _ in range(callers)))

    async def ask_at_random(self, rate, seconds, sessions=0):
        """`rate` questions a second; of so many conversations, if any."""
        due, until, open_ones = time.monotonic(), time.monotonic() + seconds, []
        while (due := due + self.chance.expovariate(rate)) < until:
            await asyncio.sleep(max(0, due - time.monotonic()))
            question = self.question(f"session-{self.chance.randrange(sessions)}" if sessions else None)
            question.due = due
            open_ones.append(asyncio.ensure_future(self.ask(question)))
        await asyncio.gather(*open_ones)

    # What came of it --------------------------------------------------------------------------------------

    def failed(self):
        return [question for question in self.questions if not question.is_served]

    def tokens_per_s(self, begin, end):
        return sum(count for when, count in self.arrived if begin <= when < end) / (end - begin)

    def waits_ms(self, begin):
        """Until the first token, of those due from then on."""
        return sorted((question.first - question.due) * 1000 for question in self.questions
                      if question.first and question.due >= begin)


def percentile(values, share):
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")
