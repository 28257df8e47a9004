"""Who changes things while everything burns, and what is known for sure about what he was told."""

import hashlib
import http.client
import random
import string
import threading
import time
import urllib.parse
import zlib

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
MODELS = ("qwen3:32b", "m1:latest", "m2:latest")


def make_secret(chance):
    """A key as the house makes them (behaviour.md 2.5)."""
    body = "qk_" + "".join(chance.choices(BASE62, k=10)) + "_" + "".join(chance.choices(BASE62, k=27))
    number, check = zlib.crc32(body.encode()), ""
    for _ in range(6):
        check = BASE62[number % 62] + check
        number //= 62
    return body + check


class Ledger:
    """What is known for sure, whatever the database says later."""

    def __init__(self):
        self.lock = threading.Lock()
        self.secrets = {}       # secret: when it was last heard of
        self.shut = {}          # (gateway, secret): since when it has confirmed the revocation
        self.acknowledged = {}  # a key's secret: "active" or "revoked", as the API said; not there while it is open
        self.blames = {}        # what was broken: how often
        self.counts = {}

    def blame(self, what):
        with self.lock:
            self.blames[what] = self.blames.get(what, 0) + 1

    def count(self, what, number=1):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + number

    def keep(self, secret):
        with self.lock:
            self.secrets[secret] = time.monotonic()

    def set_state(self, secret, state):
        with self.lock:
            self.acknowledged[secret] = state

    def forget_state(self, secret):
        with self.lock:
            self.acknowledged.pop(secret, None)
            self.secrets[secret] = time.monotonic()

    def confirm_shut(self, gateways, secret):
        now = time.monotonic()
        with self.lock:
            for name in gateways:
                self.shut.setdefault((name, secret), now)


class Operator(threading.Thread):
    """Goes on until `over` is set. Users named after him are his alone, so he knows what becomes of their keys."""

    def __init__(self, name, admin, ledger, over, seed):
        super().__init__(daemon=True)
        self.who, self.admin, self.ledger, self.over = name, admin, ledger, over
        self.random = random.Random(seed)
        self.keys = {}  # id: (secret, user)
        self.made = 0

    def run(self):
        acts = {self.create_key: 30, self.import_keys: 4, self.revoke_key: 18, self.change_key: 8, self.rotate_key: 3,
                self.toggle_user: 6, self.weigh_user: 3, self.delete_user: 1, self.change_whitelist: 6, self.change_models: 5}
        while not self.over.is_set():
            self.random.choices(list(acts), list(acts.values()))[0]()
            self.over.wait(self.random.uniform(0, 0.06))

    def ask(self, method, path, body=None, **headers):
        """The answer if it is one that says for sure what happened, or None."""
        try:
            answer = self.admin.ask(method, f"/admin/v1{path}", body, timeout=8, **headers)
        except (OSError, http.client.HTTPException, ValueError):
            self.ledger.count("changes without an answer")
            return None
        self.ledger.count(f"changes answered {answer.status}")
        if answer.status == 500:
            self.ledger.blame(f"{method} {path} {body}: {answer}")
        return answer if answer.status < 500 else None

    def some_user(self):
        """A third of the time one that others change as well."""
        owner = "shared" if self.random.random() < 0.33 else self.who
        return f"{owner}-{self.random.randint(1, 4)}"

    def some_key(self):
        return self.random.choice(list(self.keys)) if self.keys else None

    def is_mine(self, user):
        return user.startswith(f"{self.who}-")

    # Keys -------------------------------------------------------------------------------------------------

    def create_key(self):
        self.made += 1
        user = self.some_user()
        body = {"user": user, "name": f"{self.who}-{self.made}", "create_user": True}
        if self.random.random() < 0.3:
            body["models"] = self.random.sample(MODELS, self.random.randint(1, 2))
        if self.random.random() < 0.2:
            body["rpm"] = 100000
        answer = self.ask("POST", "/keys", body, Idempotency_Key=f"{self.who}-{self.made}-{self.random.random()}")
        if answer and answer.status == 201:
            self.take(answer.json["id"], answer.json["secret"], user)

    def take(self, id, secret, user):
        if secret is None:  # the answer is one to an earlier attempt, of which the API has heard nothing
            self.ledger.count("keys made whose secret was lost on the way")
            return
        self.keys[id] = (secret, user)
        self.ledger.keep(secret)
        if self.is_mine(user):
            self.ledger.set_state(secret, "active")

    def import_keys(self):
        keys, secrets = [], []
        for _ in range(self.random.randint(1, 5)):
            self.made += 1
            secrets.append(make_secret(self.random))
            keys.append({"user": f"{self.who}-{self.random.randint(1, 4)}", "name": f"{self.who}-{self.made}",
                         "hash": hashlib.sha256(secrets[-1].encode()).hexdigest(), "prefix": secrets[-1][3:13]})
        for secret in secrets:
            self.ledger.keep(secret)
        answer = self.ask("POST", "/keys/import", {"keys": keys, "create_users": True})
        if answer and answer.status < 300:
            for key, secret in zip(keys, secrets):
                self.take(key["prefix"], secret, key["user"])

    def revoke_key(self):
        id = self.some_key()
        if id is None:
            return
        secret, _ = self.keys.pop(id)
        self.ledger.forget_state(secret)
        answer = self.ask("POST", f"/keys/{id}/revoke", {"cut": self.random.random() < 0.3})
        if not answer or answer.status >= 300:
            return
        self.ledger.set_state(secret, "revoked")
        said = self.ask("GET", f"/confirmations/{answer.version}?wait=500ms")
        if said and said.status == 200:
            self.ledger.count("revocations that were confirmed by all" if not said.json["pending"] else "revocations that were not")
            self.ledger.confirm_shut([one["name"] for one in said.json["confirmed"]], secret)

    def change_key(self):
        id = self.some_key()
        if id is not None:
            self.ledger.keep(self.keys[id][0])
            models = self.random.choice([None, list(self.random.sample(MODELS, self.random.randint(1, 3)))])
            self.ask("PATCH", f"/keys/{id}", {"models": models}, If_Match="*")

    def rotate_key(self):
        """The old one stays good for as long as it is said."""
        id = self.some_key()
        if id is None:
            return
        _, user = self.keys[id]
        answer = self.ask("POST", f"/keys/{id}/rotate", {"keep_for": "24h"})
        if answer and answer.status < 300:
            self.take(answer.json["id"], answer.json["secret"], user)

    # Users, whitelist, models -----------------------------------------------------------------------------

    def heard_of(self, user):
        for secret, whose in list(self.keys.values()):
            if whose == user:
                self.ledger.keep(secret)

    def toggle_user(self):
        user = self.some_user()
        self.heard_of(user)
        self.ask("PATCH", f"/users/{user}", {"disabled": self.random.random() < 0.4}, If_Match="*")

    def weigh_user(self):
        user = self.some_user()
        self.heard_of(user)
        self.ask("PATCH", f"/users/{user}", {"weight": self.random.randint(1, 9)}, If_Match="*")

    def delete_user(self):
        """Only his own, with all keys of it."""
        user = f"{self.who}-{self.random.randint(1, 4)}"
        gone = [id for id, (_, whose) in self.keys.items() if whose == user]
        secrets = [self.keys.pop(id)[0] for id in gone]
        for secret in secrets:
            self.ledger.forget_state(secret)
        answer = self.ask("DELETE", f"/users/{user}", If_Match="*")
        if answer and answer.status < 300:
            for secret in secrets:
                self.ledger.set_state(secret, "revoked")

    def change_whitelist(self):
        cidr = f"127.0.1.{self.random.randint(1, 20)}/32"
        if self.random.random() < 0.5:
            self.ask("POST", "/whitelist", {"cidr": cidr})
        else:
            self.ask("DELETE", f"/whitelist/{urllib.parse.quote(cidr, safe='')}", If_Match="*")

    def change_models(self):
        name = self.random.choice(("m1", "m2", "m3"))
        act = self.random.random()
        if act < 0.4:
            self.ask("POST", "/models", {"name": name, "backend_model": "qwen3:32b", "num_ctx": self.random.choice([8192, 16384])})
        elif act < 0.7:
            self.ask("PATCH", f"/models/{name}", {"num_ctx": self.random.choice([8192, 16384, 32768])}, If_Match="*")
        else:
            self.ask("DELETE", f"/models/{name}", If_Match="*")
