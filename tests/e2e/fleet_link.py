"""
The link between the planes: control planes without their API (`control-driver`), and gateways' ends that follow one and
show what they hold (`follower-driver`). What changes is written by the database's own admin_change().
"""

import hashlib
import json
import secrets
import subprocess
import threading

from processes import BIN, REPORTS, environment, spawn
from wire import wait_for

WHO = '{"actor": "tests", "request_id": "r"}'


def quoted(value):
    return "NULL" if value is None else "'" + str(value).replace("'", "''") + "'"


class Piped:
    """A driver: lines of JSON in, lines of JSON out."""

    def __init__(self, arguments):
        self.process = spawn(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env=environment())
        self.lines, self.errors, self.came = [], [], threading.Condition()
        self.readers = [threading.Thread(target=self.listen, daemon=True), threading.Thread(target=self.overhear, daemon=True)]
        for reader in self.readers:
            reader.start()

    def listen(self):
        for line in self.process.stdout:
            with self.came:
                self.lines.append(json.loads(line))
                self.came.notify_all()
        with self.came:
            self.came.notify_all()

    def overhear(self):
        for line in self.process.stderr:
            self.errors.append(line)

    def do(self, what, **words):
        self.process.stdin.write(json.dumps({"do": what, **words}) + "\n")
        self.process.stdin.flush()

    def next(self, wanted, since=0, timeout=20):
        """The first line from `since` on for which wanted(line) holds, and how many lines there were up to it."""
        def look():
            nonlocal since
            while since < len(self.lines):
                since += 1
                if wanted(self.lines[since - 1]):
                    return True
            return self.process.poll() is not None
        with self.came:
            came = self.came.wait_for(look, timeout)
            assert came and since and wanted(self.lines[since - 1]), f"it did not come: {self.lines[-20:]} {''.join(self.errors[-20:])}"
            return self.lines[since - 1], since

    def ask(self, what, **words):
        since = len(self.lines)
        self.do(what, **words)
        return self.next(lambda line: what in line, since)[0][what]

    def kill(self):
        self.process.kill()
        self.process.wait(10)

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(30)
            finally:
                self.process.kill()
            assert self.process.returncode == 0, "".join(self.errors)
        for reader in self.readers:
            reader.join(10)
        assert not any(report in line for line in self.errors for report in REPORTS), "".join(self.errors)


class Control(Piped):
    """The control plane's end."""

    def __init__(self, database, **options):
        super().__init__([BIN / "control-driver", database.address("qwen_control"),
                          *(f"{name}={value}" for name, value in options.items())])
        self.url = "tcp://" + self.next(lambda line: "ready" in line)[0]["ready"]
        self.asked = 0

    def confirm(self, version, wait_ms=5000):
        """Who goes by it; None: this one does not lead."""
        self.asked += 1
        id, since = f"c{self.asked}", len(self.lines)
        self.do("confirm", id=id, version=version, wait_ms=wait_ms)
        return self.next(lambda line: line.get("id") == id, since, 20 + wait_ms / 1000)[0]["confirmed"]

    def leads(self):
        return self.ask("status")["leader"]["state"] == "leads"

    def wait_until_leading(self):
        wait_for(self.leads, 20, "the lead")
        return self


class Follower:
    """One gateway's end."""

    def __init__(self, driver, id):
        self.driver, self.id, self.since = driver, id, 0

    def do(self, what, **words):
        self.driver.do(what, id=self.id, **words)

    def next(self, wanted, timeout=20, since=0):
        return self.driver.next(lambda line: line.get("id") == self.id and wanted(line), since, timeout)[0]

    def up(self, since=0):
        return self.next(lambda line: line.get("up"), since=since)

    def down(self, reason, since=0):
        return self.next(lambda line: line.get("down") == reason, since=since)

    def reach(self, version):
        """Until it holds this version, or a newer one."""
        return self.next(lambda line: line.get("have", -1) >= version)

    def held(self):
        return self.ask("state", lambda line: "held" in line)

    def load(self, sequence, **words):
        return self.ask("load", lambda line: "counted" in line, sequence=sequence, **words)

    def ask(self, what, is_answer, **words):
        since = len(self.driver.lines)
        self.do(what, **words)
        return self.next(is_answer, since=since)

    def close(self):
        self.ask("close", lambda line: "closed" in line)


class Followers(Piped):
    def __init__(self, folder):
        super().__init__([BIN / "follower-driver"])
        self.folder, self.opened = folder, 0

    def open(self, name, *urls, key=None, **words):
        self.opened += 1
        id = f"{name}-{self.opened}"
        self.do("open", id=id, name=name, urls=list(urls), key=f"{self.folder}/{key or name}.pem", **words)
        return Follower(self, id)


class Site:
    """A database with tables, its control planes and its gateways."""

    def __init__(self, database, folder):
        done = database.control("migrate")
        assert done.returncode == 0, done.stderr
        self.database, self.folder = database, folder
        self.controls = []
        self.followers = Followers(folder)

    def start(self, **options):
        self.controls.append(Control(self.database, **options))
        return self.controls[-1]

    def close(self):
        self.followers.close()
        for control in self.controls:
            control.close()

    # What holds ---------------------------------------------------------------------------------------------

    def change(self, action, object=None, version=None, **given):
        """As the API does it. Gives what is shown, and the version."""
        said = self.database.sql(f"SELECT row_to_json(c) FROM qwen.admin_change({quoted(WHO)}, {quoted(action)}, {quoted(object)},"
                                 f" {quoted(version)}, {quoted(json.dumps(given))}) AS c", "qwen_control")
        row = json.loads(said)
        return json.loads(row["body"]), row["config_version"]

    def key(self, user="alice", name=None, **given):
        hash = hashlib.sha256(secrets.token_bytes(16)).hexdigest()
        return self.change("key_create", user=user, name=name or "k" + secrets.token_hex(6), hash=hash, create_user=True, **given)

    def keys(self, count):
        """Each a version of its own; much faster than one after the other."""
        self.database.sql(f"""
            SELECT count(*) FROM generate_series(1, {count}) AS n, LATERAL qwen.admin_change({quoted(WHO)}, 'key_create', NULL, NULL,
                jsonb_build_object('user', 'many', 'name', 'n' || gen_random_uuid(), 'create_user', true,
                                   'hash', encode(sha256(gen_random_uuid()::text::bytea), 'hex'), 'rpm', n)) AS c""", "qwen_control")
        return self.version()

    def heap(self, count):
        """Keys of ten kilobytes each, of the user `heap`; as if they had been there when the log began."""
        self.database.sql(f"""
            WITH u AS (INSERT INTO qwen.app_user (name) VALUES ('heap') RETURNING id)
            INSERT INTO qwen.api_key (user_id, name, hash, models)
            SELECT u.id, 'h' || n, sha256(n::text::bytea),
                   ARRAY(SELECT 'model-' || n || '-' || m || repeat('x', 200) FROM generate_series(1, 50) AS m)
            FROM u, generate_series(1, {count}) AS n""")

    def version(self):
        return int(self.database.sql("SELECT version FROM qwen.config_head"))

    def truth(self):
        """What every gateway is to hold."""
        return json.loads(self.database.sql("""
            SELECT coalesce(jsonb_object_agg(kind || '/' || id, body), '{}') FROM (
                SELECT 'key' AS kind, k.id::text, qwen.key_body(k) AS body FROM qwen.published_key AS k
                UNION ALL SELECT kind, id, body FROM qwen.published_other) AS a"""))

    # Gateways -----------------------------------------------------------------------------------------------

    def enrol(self, name, **given):
        """A secret that is good once."""
        secret = "qen_" + secrets.token_hex(20) + "abc"
        self.change("gateway_create", name=name, hash=hashlib.sha256(secret.encode()).hexdigest(), **given)
        return secret

    def gateway(self, name, *controls, **words):
        """One that has enrolled and is there."""
        follower = self.followers.open(name, *(control.url for control in controls or self.controls), secret=self.enrol(name), **words)
        follower.up()
        return follower

    def shown(self, name):
        return json.loads(self.database.sql(f"SELECT qwen.gateway_get({quoted(name)})"))

    def is_true_of(self, follower, version=None):
        """It holds what the database says, to the last object."""
        follower.reach(version or self.version())
        assert follower.held()["state"] == self.truth()
