"""
The ledger (controlplane/ledger) behind a pipe, and what gateways would know if they followed its changes. The driver
itself counts: it ends with an error when an answer comes twice or never.
"""

import hashlib
import json
import subprocess
import threading

from processes import BIN, environment, spawn


class Refused(Exception):
    def __init__(self, answer):
        super().__init__(f"{answer['status']} {answer['code']} {answer['pointer']}: {answer['detail']}")
        self.answer = answer


class Ledger:
    def __init__(self, database, role="qwen_control"):
        self.database = database
        self.process = spawn([BIN / "ledger-driver", database.address(), role], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, env=environment())
        self.answers = {}
        self.errors = []
        self.asked = 0
        self.version = 0  # of the last change
        self.came = threading.Condition()
        self.readers = [threading.Thread(target=self.listen, daemon=True), threading.Thread(target=self.overhear, daemon=True)]
        for reader in self.readers:
            reader.start()

    def listen(self):
        for line in self.process.stdout:
            line = json.loads(line)
            with self.came:
                self.answers[line["id"]] = line
                self.came.notify_all()

    def overhear(self):
        for line in self.process.stderr:
            self.errors.append(line)

    def begin(self, do, **words):
        self.asked += 1
        id = f"q{self.asked}"
        self.process.stdin.write(json.dumps({"do": do, "id": id, **words}) + "\n")
        self.process.stdin.flush()
        return id

    def answer(self, id, timeout=30):
        with self.came:
            assert self.came.wait_for(lambda: id in self.answers or self.process.poll() is not None, timeout), f"no answer to {id}"
            assert id in self.answers, "".join(self.errors)
            return self.answers[id]

    def begin_change(self, action, object="", body=None, version=0, who=None, **words):
        return self.begin("change", action=action, object=object, version=version, who={"actor": "tests", **(who or {})},
                          body=body if isinstance(body, str) else "" if body is None else json.dumps(body), **words)

    def tried(self, action, object="", body=None, version=0, who=None):
        """The whole answer, whatever it is."""
        return self.answer(self.begin_change(action, object, body, version, who))

    def change(self, action, object="", body=None, version=0, who=None):
        """What it is now; Refused if it is not done."""
        answer = self.tried(action, object, body, version, who)
        if answer.get("status"):
            raise Refused(answer)
        assert not answer.get("at_once"), answer
        self.version = answer["version"]
        return json.loads(answer["body"])

    def get(self, noun, object):
        """None: there is none."""
        answer = self.answer(self.begin("get", noun=noun, object=object))
        if answer["status"] == 404:
            return None
        assert answer["status"] == 0, answer
        return json.loads(answer["body"])

    def page(self, noun, /, after="", max=100, **filter):
        answer = self.answer(self.begin("list", noun=noun, filter=json.dumps(filter), after=after, max=max))
        if answer["status"]:
            raise Refused(answer)
        return json.loads(answer["body"]), answer["next"]

    def all(self, noun, /, max=100, **filter):
        found, after = [], ""
        while True:
            page, after = self.page(noun, after, max, **filter)
            found += page
            assert len(page) == max or not after
            if not after:
                return found

    def make(self, what):
        return self.answer(self.begin("make", what=what))

    def key(self, user, name, **more):
        made = self.make("key")
        return self.change("key_create", body={"user": user, "name": name, "hash": made["hash"], "prefix": made["prefix"], **more})

    def close(self):
        if self.process.stdin.closed:
            return
        self.process.stdin.close()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
        for reader in self.readers:
            reader.join(10)
        assert self.process.returncode == 0, "".join(self.errors)


def hash_of(words):
    return hashlib.sha256(words.encode()).hexdigest()


def followed(database):
    """What a gateway knows that has followed every change: (kind, id) to body."""
    known = {}
    rows = database.sql("SELECT kind, to_json(id), coalesce(body, 'null') FROM qwen.change_log ORDER BY version, seq")
    for line in rows.splitlines():
        kind, id, body = line.split("|", 2)
        id, body = json.loads(id), json.loads(body)
        if body is None or body.get("gone"):
            known.pop((kind, id), None)
        else:
            known[kind, id] = body
    return known


def published(database):
    """What one knows that is told everything at once."""
    known = {}
    rows = database.sql("SELECT 'key', to_json(k.id::text), qwen.key_body(k) FROM qwen.published_key AS k UNION ALL"
                        " SELECT kind, to_json(id), body FROM qwen.published_other")
    for line in rows.splitlines():
        kind, id, body = line.split("|", 2)
        known[kind, json.loads(id)] = json.loads(body)
    return known
