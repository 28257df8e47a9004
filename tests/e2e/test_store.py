"""
The store (controlplane/store) behind a pipe, while PostgreSQL is slow, frozen, restarted, away. The driver itself counts:
it ends with an error when an answer comes twice or never.
"""

import json
import queue
import signal
import subprocess
import threading
import time

import pytest

from postgres import freeze, thaw
from processes import BIN, environment, spawn
from wire import wait_for

TABLE = "CREATE TABLE t (id int PRIMARY KEY, v text, b bytea)"
INSERT = "INSERT INTO t (id) VALUES ($1)"


class Store:
    def __init__(self, address, **options):
        self.process = spawn([BIN / "store-driver", address, *(f"{name}={value}" for name, value in options.items())],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
        self.answers, self.wakes, self.states = {}, queue.Queue(), queue.Queue()
        self.errors = []
        self.asked = 0
        self.came = threading.Condition()
        self.readers = [threading.Thread(target=self.listen, daemon=True), threading.Thread(target=self.overhear, daemon=True)]
        for reader in self.readers:
            reader.start()

    def listen(self):
        for line in self.process.stdout:
            line = json.loads(line)
            with self.came:
                if "wake" in line:
                    self.wakes.put((line["wake"], line["payload"]))
                elif "id" in line:
                    assert line["id"] not in self.answers
                    self.answers[line["id"]] = line
                else:
                    self.states.put(line)
                self.came.notify_all()

    def overhear(self):
        for line in self.process.stderr:
            self.errors.append(line)

    def do(self, what, **words):
        self.process.stdin.write(json.dumps({"do": what, **words}) + "\n")
        self.process.stdin.flush()

    def begin_ask(self, sql, *values, id=None, **words):
        self.asked += 1
        id = id or f"q{self.asked}"
        self.do("ask", id=id, sql=sql, values=values, **words)
        return id

    def answer(self, id, timeout=30):
        with self.came:
            assert self.came.wait_for(lambda: id in self.answers or self.process.poll() is not None, timeout), f"no answer to {id}"
            return self.answers[id]

    def ask(self, sql, *values, **words):
        return self.answer(self.begin_ask(sql, *values, **words))

    def value(self, sql, *values, **words):
        answer = self.ask(sql, *values, **words)
        assert answer["err"] == "OK", answer
        return answer["results"][-1]["rows"][0]

    def transaction(self):
        """A transaction that has begun; step() and commit() give the answers."""
        self.asked += 1
        id = f"t{self.asked}"
        self.do("begin", id=id)
        assert self.answer(id)["err"] == "OK"
        return id

    def step(self, transaction, sql, *values):
        return self.again("step", transaction, sql=sql, values=values)

    def commit(self, transaction):
        return self.again("commit", transaction)

    def again(self, what, transaction, **words):
        with self.came:
            del self.answers[transaction]
        self.do(what, id=transaction, **words)
        return self.answer(transaction)

    def is_up(self):
        self.do("state")
        return self.states.get(timeout=10)["is_up"]

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


@pytest.fixture
def database(database):
    """The store looks into the schema qwen only."""
    database.sql(f"CREATE SCHEMA qwen; ALTER DATABASE {database.name} SET search_path = qwen")
    return database


@pytest.fixture
def start_store(database):
    stores = []

    def start(**options):
        stores.append(Store(database.address(), **options))
        return stores[-1]
    yield start
    for store in stores:
        store.close()


@pytest.fixture
def store(start_store):
    return start_store()


def pid_of(store):
    return int(store.value("SELECT pg_backend_pid()", repeatable=True))


# Answers ----------------------------------------------------------------------------------------------------

def test_what_goes_in_comes_out(store, database):
    database.sql(TABLE)
    words = "Robert'); DROP TABLE t;-- \u202eright-to-left\u200f \\ % $1 \U0001f600"
    assert store.ask("INSERT INTO t VALUES ($1, $2, $3)", 1, words, {"bytes": "raw\u0000\\x"})["results"][0]["touched"] == 1
    assert store.value("SELECT v FROM t WHERE id = $1", 1) == words
    assert store.value("SELECT encode(b, 'hex') FROM t") == b"raw\0\\x".hex()
    assert store.value("SELECT $1::text", None) is None
    assert store.value("SELECT $1::bool AND NOT $2::bool", True, False) == "t"
    assert store.value("SELECT $1::bigint", -2**63) == str(-2**63)
    large = "x" * (1 << 20)
    assert store.value("SELECT $1::text", large) == large
    assert store.ask("SELECT $1::text", "a\u0000b") == {"id": "q8", "err": "BAD", "at_once": True}


def test_a_thousand_questions_at_once_are_each_answered_with_their_own(start_store):
    store = start_store(connections=2, pipeline=16)
    ids = [store.begin_ask("SELECT $1::int", number) for number in range(1000)]
    assert [store.answer(id)["results"][0]["rows"] for id in ids] == [[str(number)] for number in range(1000)]


def test_they_travel_together(start_store):
    """One connection, many questions, fewer round trips: while the first sleeps the others are there already."""
    store = start_store(connections=1)
    assert store.value("SELECT 1") == "1"
    first = store.begin_ask("SELECT pg_sleep(0.2)")
    ids = [store.begin_ask("SELECT 1") for _ in range(20)]
    assert {store.answer(id)["err"] for id in [first, *ids]} == {"OK"}
    assert store.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'store-driver'") == "1"


def test_statements_are_prepared_once_a_connection(start_store):
    store = start_store(connections=1)
    for _ in range(5):
        store.value("SELECT 1")
        store.value("SELECT 2")
    assert store.value("SELECT count(*) FROM pg_prepared_statements WHERE statement IN ('SELECT 1', 'SELECT 2')") == "2"


REFUSED = [
    ("INSERT INTO t (id) VALUES (1)", "REFUSED", "23505", "t_pkey"), ("SELECT * FROM nothing", "BAD", "42P01", ""),
    ("SELEC", "BAD", "42601", ""), ("SELECT 1/0", "REFUSED", "22012", ""), ("DROP TABLE pg_class", "REFUSED", "42501", ""),
]


@pytest.mark.parametrize("sql,err,state,constraint", REFUSED)
def test_a_refusal_is_told_with_its_state_and_hurts_nobody_else(start_store, database, sql, err, state, constraint):
    database.sql(f"{TABLE}; INSERT INTO t (id) VALUES (1)")
    store = start_store(connections=1)
    bad, good = store.begin_ask(sql), store.begin_ask("SELECT 1")
    answer = store.answer(bad)
    assert (answer["err"], answer["sqlstate"], answer["constraint"], answer["may_be_done"]) == (err, state, constraint, False)
    assert answer["message"] and answer["message"] in answer["sentence"]
    assert state in answer["sentence"] and "\n" not in answer["sentence"]
    assert store.answer(good)["err"] == "OK"
    assert store.is_up()


def test_what_the_database_says_to_people_comes_word_for_word(store):
    answer = store.ask(r"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'QW400', MESSAGE = E'no\n such: \x1b[31m100 %',"
                       " DETAIL = '/a~1b'; END $$")
    assert (answer["err"], answer["sqlstate"], answer["message"], answer["detail"]) == ("REFUSED", "QW400", "no such: ?[31m100 %", "/a~1b")
    answer = store.ask("SELECT 1")
    assert (answer["message"], answer["detail"]) == ("", "")


def test_a_statement_that_could_not_be_prepared_is_tried_again(store, database):
    """All who wait for it are told why, not that it is not there."""
    ids = [store.begin_ask("SELECT count(*) FROM later") for _ in range(5)]
    assert {(store.answer(id)["sqlstate"], store.answer(id)["err"]) for id in ids} == {("42P01", "BAD")}
    database.sql("CREATE TABLE later (i int)")
    assert store.value("SELECT count(*) FROM later") == "0"


def test_a_failure_keeps_no_later_statement_from_being_prepared(start_store, database):
    """What a question needs is prepared outside of it, so what fails before it is used does not undo that."""
    database.sql(TABLE)
    store = start_store(connections=1)
    first = store.begin_ask(["SELECT 1/0", "SELECT 'later'"])
    second = store.begin_ask("SELECT 'later'")
    assert store.answer(first)["sqlstate"] == "22012"
    assert store.answer(second)["results"][0]["rows"] == ["later"]


def test_a_table_that_changes_under_a_prepared_statement_is_not_noticed(start_store, database):
    database.sql(f"{TABLE}; INSERT INTO t VALUES (1, 'a')")
    store = start_store(connections=1)
    assert store.value("SELECT * FROM t") == "1"
    database.sql("ALTER TABLE t ADD COLUMN more int")
    assert store.value("SELECT * FROM t") == "1"
    database.sql("ALTER TABLE t DROP COLUMN more")
    assert store.value("SELECT * FROM t") == "1"
    assert not any("does not answer" in line for line in store.errors)


# Transactions -----------------------------------------------------------------------------------------------

def test_several_statements_of_one_question_are_one_transaction(store, database):
    database.sql(TABLE)
    both = ["INSERT INTO t (id) VALUES (1)", "INSERT INTO t (id) VALUES (2) RETURNING id"]
    assert [result["rows"] for result in store.ask(both)["results"]] == [[], ["2"]]
    answer = store.ask(["INSERT INTO t (id) VALUES (3)", *both])
    assert (answer["sqlstate"], answer["may_be_done"], answer["results"]) == ("23505", False, [])
    assert store.value("SELECT count(*) FROM t") == "2"


def test_what_fails_at_the_commit_itself_is_a_failure(start_store, database):
    database.sql(f"{TABLE}; CREATE TABLE u (t int REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
    store = start_store(connections=1)
    answer = store.ask("INSERT INTO u VALUES (7)")
    assert (answer["err"], answer["sqlstate"], answer["may_be_done"]) == ("REFUSED", "23503", False)
    transaction = store.transaction()
    assert store.step(transaction, "INSERT INTO u VALUES (8)")["err"] == "OK"
    answer = store.commit(transaction)
    assert (answer["err"], answer["sqlstate"], answer["may_be_done"]) == ("REFUSED", "23503", False)
    assert store.value("SELECT count(*) FROM u") == "0"


def test_a_transaction_goes_step_by_step_and_others_pass_it(start_store, database):
    database.sql(TABLE)
    store = start_store(connections=2)
    transaction = store.transaction()
    assert store.step(transaction, "INSERT INTO t (id) VALUES (1) RETURNING id")["results"][0]["rows"] == ["1"]
    assert store.value("SELECT count(*) FROM t") == "0"
    assert store.step(transaction, "SELECT count(*) FROM t")["results"][0]["rows"] == ["1"]
    assert store.commit(transaction)["err"] == "OK"
    assert store.value("SELECT count(*) FROM t") == "1"


def test_a_failed_step_ends_a_transaction_and_nothing_of_it_is_left(start_store, database):
    database.sql(TABLE)
    store = start_store(connections=1)
    transaction = store.transaction()
    assert store.step(transaction, "INSERT INTO t (id) VALUES (1)")["err"] == "OK"
    assert store.step(transaction, "INSERT INTO t (id) VALUES (1)")["sqlstate"] == "23505"
    assert store.value("SELECT count(*) FROM t") == "0"


@pytest.mark.parametrize("is_open", [False, True], ids=["between its steps", "within one"])
def test_a_transaction_that_is_given_up_gives_its_connection_back(start_store, database, is_open):
    database.sql(TABLE)
    store = start_store(connections=1)
    transaction = store.transaction()
    assert store.step(transaction, INSERT, 1)["err"] == "OK"
    if is_open:
        with store.came:
            del store.answers[transaction]
        store.do("step", id=transaction, sql="SELECT pg_sleep(0.1)")
    store.do("rollback", id=transaction)
    assert store.value("SELECT count(*) FROM t") == "0"
    assert transaction not in store.answers or not is_open


def test_a_transaction_that_asks_nothing_is_ended(start_store, database):
    database.sql(TABLE)
    store = start_store(connections=1, statement_timeout=300)
    transaction = store.transaction()
    assert store.step(transaction, INSERT, 1)["err"] == "OK"
    wait_for(lambda: database.sql("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in tr%'") == "0")
    answer = store.step(transaction, INSERT, 2)
    assert answer["err"] == "GONE" and not answer["may_be_done"]
    assert store.value("SELECT count(*) FROM t") == "0"


def test_nobody_is_told_what_was_forgotten(start_store):
    store = start_store(connections=1)
    slow = store.begin_ask("SELECT pg_sleep(0.1)")
    store.do("forget", id=slow)
    assert store.value("SELECT 1") == "1"
    assert slow not in store.answers


# Slow, frozen, restarted, away --------------------------------------------------------------------------------

def test_a_slow_statement_is_ended_and_the_next_is_not(start_store):
    store = start_store(connections=1, statement_timeout=200)
    answer = store.ask("SELECT pg_sleep(30)")
    assert (answer["err"], answer["sqlstate"], answer["may_be_done"]) == ("TIMEOUT", "57014", False)
    assert store.value("SELECT 1") == "1"


def test_a_frozen_server_is_given_up_and_another_connection_made(start_store, database):
    database.sql(TABLE)
    store = start_store(connections=1, statement_timeout=200, connect_timeout=300)
    pid = pid_of(store)
    freeze(pid)
    try:
        answer = store.ask(INSERT, 1)
        assert (answer["err"], answer["may_be_done"]) == ("TIMEOUT", True)
        assert "has not said a word for" in answer["sentence"]
        assert pid_of(store) != pid
    finally:
        thaw(pid)


def test_a_server_that_lets_nobody_in_is_asked_again(start_store, cluster):
    freeze(cluster.process.pid)
    try:
        store = start_store(connect_timeout=100, wait_timeout=700)
        answer = store.ask("SELECT 1", repeatable=True)
        assert (answer["err"], answer["may_be_done"]) == ("TIMEOUT", False)
        assert "did not let us in within 100 ms" in answer["sentence"]
    finally:
        thaw(cluster.process.pid)
    wait_for(lambda: store.ask("SELECT 1")["err"] == "OK", 30)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
def test_a_restart_in_the_middle_loses_no_question_and_does_none_twice(start_store, cluster, database, how):
    database.sql(TABLE)
    store = start_store()
    ids, is_enough = [], threading.Event()

    def flood():
        while not is_enough.is_set():
            with store.came:
                assert store.came.wait_for(lambda: len(ids) - len(store.answers) < 100, 60)
            ids.append(store.begin_ask([INSERT.replace("$1", "nextval('s')"), "SELECT currval('s')"]))
            ids.append(store.begin_ask("SELECT 'read'", repeatable=True))
    database.sql("CREATE SEQUENCE s")
    flooding = threading.Thread(target=flood)  # not the restart: the server would die with its thread
    flooding.start()
    try:
        wait_for(lambda: len(store.answers) > 400)
        cluster.restart(how)
        answered = len(store.answers)
        wait_for(lambda: len(store.answers) > answered + 400, 30)
    finally:
        is_enough.set()
        flooding.join()
    answers = [store.answer(id) for id in ids]
    assert {answer["err"] for answer in answers} <= {"OK", "GONE"}
    writes, reads = answers[::2], answers[1::2]
    assert {answer["err"] for answer in reads} == {"OK"}
    rows = [int(line) for line in database.sql("SELECT id FROM t ORDER BY id").split()]
    done = [int(answer["results"][1]["rows"][0]) for answer in writes if answer["err"] == "OK"]
    unsure = [answer for answer in writes if answer["may_be_done"]]
    assert set(done) <= set(rows), "an answer was OK, and the row is not there"
    assert len(done) == len(set(done))
    assert len(rows) - len(done) <= len(unsure), "a row is there that nobody was told of"
    assert len(done) > 200


def test_while_the_database_is_away_questions_wait_and_then_are_told(start_store, cluster):
    store = start_store(wait_timeout=300)
    wait_for(store.is_up)
    assert store.value("SELECT 1") == "1"
    cluster.stop()
    answer = store.ask("SELECT 1", repeatable=True)
    assert (answer["err"], answer["may_be_done"]) == ("TIMEOUT", False)
    assert answer["sentence"].startswith("no connection to the database within 300 ms: ")
    assert not store.is_up()
    cluster.start()
    wait_for(store.is_up)
    assert store.value("SELECT 1") == "1"
    wait_for(lambda: any("the database answers again" in line for line in store.errors))
    away = [line for line in store.errors if "the database does not answer" in line]
    assert len(away) == 1, store.errors  # said once, not once a connection and attempt


def test_a_connection_that_is_killed_is_nobodys_loss(start_store, database):
    """What was read there is read again; of what was written it is said that nothing has happened."""
    database.sql(TABLE)
    store = start_store(connections=1)
    pid = pid_of(store)
    read = store.begin_ask("SELECT pg_sleep(0.3)", repeatable=True)
    wait_for(lambda: database.sql(f"SELECT state FROM pg_stat_activity WHERE pid = {pid}") == "active")
    database.sql(f"SELECT pg_terminate_backend({pid})")
    assert store.answer(read)["err"] == "OK"
    assert pid_of(store) != pid


def test_too_many_connections_are_not_an_outage(start_store, database):
    database.sql(f"ALTER DATABASE {database.name} CONNECTION LIMIT 1; CREATE ROLE {database.name}_modest LOGIN")
    store = Store(f"{database.address()} user={database.name}_modest", connections=3)
    try:
        assert [store.value("SELECT $1::int", number) for number in range(50)] == [str(number) for number in range(50)]
        assert store.is_up()
    finally:
        store.close()
        database.sql(f"DROP ROLE {database.name}_modest")


def test_a_database_that_may_only_be_read_says_so(store, database):
    database.sql(TABLE)
    database.sql(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    pid = pid_of(store)
    database.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'store-driver'")
    wait_for(lambda: pid_of(store) != pid)
    answer = store.ask(INSERT, 1)
    assert (answer["err"], answer["sqlstate"]) == ("REFUSED", "25006")
    assert store.value("SELECT count(*) FROM t") == "0"


def test_every_connection_becomes_the_role(start_store, cluster, database):
    cluster.psql("CREATE ROLE qwen_control LOGIN", "postgres")
    assert start_store(role="qwen_control").value("SELECT current_user") == "qwen_control"
    answer = start_store(role="nobody_at_all", wait_timeout=1000).ask("SELECT 1")
    assert answer["err"] == "TIMEOUT" and 'role "nobody_at_all" does not exist' in answer["sentence"]


def test_settings_of_each_connection(start_store):
    store = start_store(statement_timeout=7000)
    assert store.value("SELECT current_setting('statement_timeout')") == "7s"
    assert store.value("SELECT current_setting('idle_in_transaction_session_timeout')") == "7s"
    assert store.value("SELECT current_setting('search_path')") == "qwen, pg_temp"


# Waking -----------------------------------------------------------------------------------------------------

def test_notifications_wake_and_a_reconnection_does_too(store, cluster, database):
    store.do("listen", channel="change")
    assert store.wakes.get(timeout=10) == ("change", None)
    database.sql("NOTIFY change, '42'; NOTIFY other, 'x'")
    assert store.wakes.get(timeout=10) == ("change", "42")
    cluster.restart()
    assert store.wakes.get(timeout=10) == ("change", None)
    database.sql("NOTIFY change, '43'")
    assert store.wakes.get(timeout=10) == ("change", "43")


def test_a_listener_whose_server_is_frozen_listens_elsewhere(start_store, database):
    store = start_store(connections=1, statement_timeout=150, connect_timeout=300)
    store.do("listen", channel="change")
    assert store.wakes.get(timeout=10) == ("change", None)
    pid = int(database.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'store-driver' AND query LIKE 'LISTEN%'"
                           " OR query = 'SELECT 1' AND application_name = 'store-driver'"))
    freeze(pid)
    try:
        assert store.wakes.get(timeout=10) == ("change", None)
        database.sql("NOTIFY change, '44'")
        wait_for(lambda: store.wakes.get(timeout=10) == ("change", "44"))
    finally:
        thaw(pid)


def test_closing_in_the_middle_answers_everything(start_store):
    store = start_store(connections=1)
    store.value("SELECT 1")
    ids = [store.begin_ask("SELECT pg_sleep(5)") for _ in range(10)]
    begun = time.monotonic()
    store.close()
    assert {store.answers[id]["err"] for id in ids} == {"GONE"}
    assert time.monotonic() - begun < 4
