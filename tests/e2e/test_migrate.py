"""`qwen-control migrate`: the tables, their history, who may do what with them, and states that cannot be."""

import signal

import pytest

from processes import ROOT
from wire import wait_for

NAMES = sorted(path.stem for path in (ROOT / "migrations").glob("*.sql"))
LAST = NAMES[-1]


@pytest.fixture
def migrated(database):
    done = database.control("migrate")
    assert done.returncode == 0, done.stderr
    return database


def test_a_new_database_gets_every_table_and_a_second_time_changes_nothing(database):
    before = database.control("migrate", "--status")
    assert before.returncode == 1 and before.stdout == "".join(f"{name} missing\n" for name in NAMES)
    assert before.stderr == f"qwen-control: the database is older than this program: {NAMES[0]} is missing; run qwen-control migrate\n"
    assert database.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'qwen'") == "0", "looking has changed something"

    done = database.control("migrate")
    assert (done.returncode, done.stdout, done.stderr) == (0, "".join(f"applied {name}\n" for name in NAMES), "")
    schema = database.sql("SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'qwen'::regnamespace")

    done = database.control("migrate")
    assert (done.returncode, done.stdout) == (0, f"nothing to do: the database is at {LAST}\n")
    assert database.sql("SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class"
                        " WHERE relnamespace = 'qwen'::regnamespace") == schema
    after = database.control("migrate", "--status")
    assert after.returncode == 0 and [line.split()[:2] for line in after.stdout.splitlines()] == [[name, "applied"] for name in NAMES]


def test_checksums_are_those_of_the_files(migrated):
    for name in NAMES:
        wanted = migrated.sql(f"SELECT encode(sha256(convert_to($text${(ROOT / 'migrations' / name).with_suffix('.sql').read_text()}"
                              "$text$, 'UTF8')), 'hex')")
        assert migrated.sql(f"SELECT encode(checksum, 'hex') FROM qwen.schema_migration WHERE name = '{name}'") == wanted


def test_several_at_once_apply_each_migration_once(database):
    running = [database.start_control("migrate") for _ in range(4)]
    said = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0] * 4, said
    lines = [line for out, _ in said for line in out.splitlines() if line.startswith("applied ")]
    assert sorted(lines) == [f"applied {name}" for name in NAMES]
    assert sum(f"nothing to do: the database is at {LAST}\n" in out for out, _ in said) == 3


@pytest.fixture
def halfway(database):
    """A database that has the first migration only, and where the second will wait for `other` at its last table."""
    text = (ROOT / "migrations" / f"{NAMES[0]}.sql").read_text()
    database.sql(f"BEGIN; {text}; INSERT INTO schema_migration (id, name, checksum)"
                 f" VALUES (1, '{NAMES[0]}', sha256(convert_to($text${text}$text$, 'UTF8'))); COMMIT")
    database.other = database.session()
    database.other.do("BEGIN")
    database.other.do("CREATE TABLE qwen.setting (one bool)")
    yield database
    database.other.close()


@pytest.mark.parametrize("kill", ["program", "its server process"])
def test_one_that_is_killed_in_the_middle_leaves_nothing(halfway, kill):
    process = halfway.start_control("migrate")
    wait_for(lambda: halfway.waiting() == 1)
    if kill == "program":
        process.kill()
    else:
        halfway.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                    f" AND datname = '{halfway.name}'")
    out, errors = process.communicate(timeout=30)
    if kill == "program":
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 1
        assert errors.startswith(f"qwen-control: {NAMES[1]} was not applied, nothing of it is left: the database says: "), errors
    assert out == ""

    second = halfway.start_control("migrate")  # while the server may still be at it for the first
    halfway.other.do("ROLLBACK")
    out, errors = second.communicate(timeout=60)
    assert second.returncode == 0 and out.splitlines()[-1] == f"applied {LAST}", (out, errors)
    assert halfway.control("migrate", "--status").returncode == 0


def test_whoever_waits_for_another_says_so(halfway):
    first = halfway.start_control("migrate")
    wait_for(lambda: halfway.waiting() == 1)
    second = halfway.start_control("migrate")
    assert second.stdout.readline() == "somebody else is migrating this database: waiting until that is done\n"
    halfway.other.do("ROLLBACK")
    assert first.communicate(timeout=60)[0] == "".join(f"applied {name}\n" for name in NAMES[1:])
    assert second.communicate(timeout=60)[0] == f"nothing to do: the database is at {LAST}\n"


HISTORIES = [
    ("INSERT INTO qwen.schema_migration VALUES ({next}, '0099_from_the_future', sha256('x'))",
     f"the database is newer than this program: it has 0099_from_the_future, the last one here is {LAST}; start a newer program"),
    ("UPDATE qwen.schema_migration SET checksum = sha256('x') WHERE id = 2",
     f"the database's history is not this program's: {NAMES[1]} was applied with another text (its checksum differs)"),
    ("UPDATE qwen.schema_migration SET name = '0002_other' WHERE id = 2",
     f"the database's history is not this program's: its migration 2 is 0002_other, here it is {NAMES[1]}"),
    ("DELETE FROM qwen.schema_migration WHERE id = 1",
     f"the database's history is not this program's: its migration 1 is {NAMES[1]}, here it is {NAMES[0]}"),
]


@pytest.mark.parametrize("change,why", HISTORIES, ids=["newer", "checksum", "name", "gap"])
def test_a_history_that_is_not_this_programs_is_refused(migrated, change, why):
    migrated.sql(change.format(next=len(NAMES) + 1))
    history = migrated.sql("SELECT * FROM qwen.schema_migration ORDER BY id")
    for command in (["migrate"], ["migrate", "--status"], ["check"]):
        done = migrated.control(*command)
        assert (done.returncode, done.stderr) == (1, f"qwen-control: {why}\n"), command
    assert migrated.sql("SELECT * FROM qwen.schema_migration ORDER BY id") == history


def test_somebody_elses_schema_is_left_alone(database):
    database.sql("CREATE SCHEMA qwen; CREATE TABLE qwen.team (mine int)")
    done = database.control("migrate")
    assert done.returncode == 1
    assert done.stderr == (f"qwen-control: {NAMES[0]} was not applied, nothing of it is left: the database says: "
                           'schema "qwen" already exists (SQLSTATE 42P06)\n')
    assert database.sql("SELECT relname FROM pg_class WHERE relnamespace = 'qwen'::regnamespace") == "team"


def test_a_database_of_another_encoding_is_refused(cluster):
    database = cluster.database("TEMPLATE template0 ENCODING 'SQL_ASCII'")
    done = database.control("migrate")
    assert done.returncode == 1 and "the database is encoded as SQL_ASCII, but UTF8 is needed" in done.stderr
    assert "CREATE DATABASE qwen ENCODING 'UTF8' TEMPLATE template0." in done.stderr
    database.drop()


def test_who_may_not_make_roles_is_told_what_to_ask_for(cluster, database):
    cluster.sql("DROP ROLE IF EXISTS modest; CREATE ROLE modest LOGIN", "postgres")
    cluster.sql(f"GRANT CREATE ON DATABASE {database.name} TO modest", "postgres")
    has_roles = cluster.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'qwen_owner'", "postgres") == "1"
    renames = ("ALTER ROLE qwen_owner RENAME TO qwen_owner_kept", "ALTER ROLE qwen_owner_kept RENAME TO qwen_owner")
    if has_roles:  # of the databases of other tests
        cluster.sql(renames[0], "postgres")
    try:
        done = database.control("migrate", user="modest")
    finally:
        if has_roles:
            cluster.sql(renames[1], "postgres")
    assert done.returncode == 1
    assert "the role qwen_owner does not exist and modest may not create roles" in done.stderr
    assert "CREATE ROLE qwen_owner NOLOGIN; CREATE ROLE qwen_control LOGIN; GRANT qwen_owner TO modest; then migrate again." in done.stderr

    for role in ("qwen_owner NOLOGIN", "qwen_control LOGIN"):  # the administrator does it
        cluster.psql(f"CREATE ROLE {role}", "postgres")
    done = database.control("migrate", user="modest")
    assert "modest is not a member of qwen_owner" in done.stderr and "GRANT qwen_owner TO modest" in done.stderr
    cluster.sql("GRANT qwen_owner TO modest", "postgres")
    done = database.control("migrate", user="modest")
    assert done.returncode == 0, done.stderr
    assert database.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'qwen'") == "qwen_owner"
    assert database.control("check", user="qwen_control").returncode == 0
    database.drop()
    cluster.sql("DROP ROLE modest", "postgres")


def test_the_owner_is_nobody_who_logs_in(migrated):
    assert migrated.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'qwen'") == "qwen_owner"
    assert migrated.sql("SELECT rolcanlogin, rolsuper, rolcreaterole FROM pg_roles WHERE rolname = 'qwen_owner'") == "f|f|f"
    assert migrated.sql("SELECT rolcanlogin, rolsuper, rolcreaterole FROM pg_roles WHERE rolname = 'qwen_control'") == "t|f|f"


# Who may what -----------------------------------------------------------------------------------------------

AUDIT = "INSERT INTO audit_log (actor, action, noun, object_id) VALUES ('me', 'create', 'key', 'x')"
DENIED = [
    "UPDATE audit_log SET actor = 'nobody'", "DELETE FROM audit_log", "TRUNCATE audit_log", "ALTER TABLE audit_log DROP COLUMN actor",
    "DROP TABLE audit_log", "CREATE TABLE mine (i int)", "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER TABLE audit_log DISABLE TRIGGER ALL", "CREATE RULE silent AS ON INSERT TO audit_log DO INSTEAD NOTHING",
    "INSERT INTO audit_log (at, actor, action, noun, object_id) VALUES ('2000-01-01', 'me', 'create', 'key', 'x')",
    "INSERT INTO audit_log (id, actor, action, noun, object_id) OVERRIDING SYSTEM VALUE VALUES (1, 'me', 'create', 'key', 'x')",
    "UPDATE change_log SET body = NULL", "DELETE FROM change_log", "TRUNCATE change_log",
    "INSERT INTO config_head VALUES (true, 7)", "DELETE FROM config_head", "UPDATE config_head SET one = true",
    "DELETE FROM api_key", "UPDATE api_key SET hash = sha256('x')", "UPDATE api_key SET user_id = gen_random_uuid()",
    "UPDATE admin_token SET role = 'owner'", "UPDATE admin_token SET expires_at = 'infinity'", "DELETE FROM admin_token",
    "DELETE FROM gateway", "DELETE FROM leader", "INSERT INTO schema_migration VALUES (99, 'x', sha256('x'))", "SET ROLE qwen_owner",
]


def test_the_running_control_plane_can_alter_no_table_and_no_history(migrated):
    migrated.sql(f"SET search_path = qwen; {AUDIT}", "qwen_control")
    states = migrated.refusals(DENIED, "qwen_control")
    assert [(text, state) for text, state in zip(DENIED, states) if state != "42501"] == []
    assert migrated.sql("SELECT actor FROM qwen.audit_log") == "me"


# States that cannot be --------------------------------------------------------------------------------------

SETUP = """
INSERT INTO team (id, name) VALUES ('00000000-0000-0000-0000-000000000001', 'research');
INSERT INTO app_user (id, name, team_id) VALUES ('00000000-0000-0000-0000-000000000002', 'alice', '00000000-0000-0000-0000-000000000001');
INSERT INTO api_key (id, user_id, name, hash, prefix) VALUES
    ('00000000-0000-0000-0000-000000000003', '00000000-0000-0000-0000-000000000002', 'laptop', sha256('a'), 'abcdefgh'),
    ('00000000-0000-0000-0000-000000000004', '00000000-0000-0000-0000-000000000002', 'phone', sha256('b'), NULL);
UPDATE api_key SET state = 'revoked', revoked_at = now() WHERE name = 'phone';
INSERT INTO model (name) VALUES ('qwen3:32b');
INSERT INTO model (name, alias_of) VALUES ('fast', 'qwen3:32b');
INSERT INTO backend (name, url) VALUES ('gpu1', 'http://10.0.0.5:11434');
INSERT INTO admin_token (name, hash, role, expires_at) VALUES ('root', sha256('t'), 'owner', now() + interval '1 day');
INSERT INTO gateway (name, public_key) VALUES ('edge1', sha256('k'));
INSERT INTO gateway (name, public_key, removed_at) VALUES ('edge0', sha256('l'), now());
UPDATE leader SET holder = 'one', epoch = 5, expires_at = now() + interval '10 s';
"""
KEY = "INSERT INTO api_key (user_id, name, hash{more}) VALUES ('00000000-0000-0000-0000-000000000002', 'new', sha256('new'){values})"
CHECK, UNIQUE, FOREIGN, NULL, BAD, INTEGRITY = "23514", "23505", "23503", "23502", "22P02", "23000"


def key(more, values):
    return KEY.format(more=", " + more, values=", " + values)


NEXT = "UPDATE config_head SET version = version + 1; INSERT INTO change_log (version, seq, kind, id, body)"
HEAD = "(SELECT version FROM config_head)"
WRONG = [
    ("INSERT INTO team (name) VALUES ('Research')", CHECK), ("INSERT INTO team (name) VALUES ('research')", UNIQUE),
    ("INSERT INTO team (name) VALUES ('')", CHECK), ("INSERT INTO team (name) VALUES (E'a\\nb')", CHECK),
    ("INSERT INTO team (name) VALUES (E'a\\n')", CHECK), ("INSERT INTO team (name) VALUES (U&'a\\202Eb')", CHECK),
    ("INSERT INTO team (name, note) VALUES ('b', U&'a\\202Eb')", CHECK), ("INSERT INTO team (name, note) VALUES ('b', E'a\\nb')", CHECK),
    ("INSERT INTO team (name, note) VALUES ('b', repeat('x', 1001))", CHECK),
    ("INSERT INTO app_user (name, weight) VALUES ('bob', 0)", CHECK), ("INSERT INTO app_user (name, class) VALUES ('bob', 'vip')", CHECK),
    ("INSERT INTO app_user (name, team_id) VALUES ('bob', gen_random_uuid())", FOREIGN),
    ("DELETE FROM team", FOREIGN), ("DELETE FROM app_user", FOREIGN),
    (key("models", "'{}'"), CHECK), (key("models", "'{NULL}'"), CHECK), (key("models", "'{\"a b\"}'"), CHECK),
    (key("allow", "'{}'"), CHECK), (key("allow", "'{10.0.0.1/8}'"), BAD), (key("rpm", "0"), CHECK), (key("max_concurrent", "0"), CHECK),
    (key("state", "'revoked'"), CHECK), (key("revoked_at", "now()"), CHECK), (key("state", "'paused'"), CHECK),
    (key("prefix", "'qk_'"), CHECK), (key("replaced_by", "gen_random_uuid()"), FOREIGN),
    (KEY.format(more="", values="").replace("'new',", "'laptop',"), UNIQUE),
    (KEY.format(more="", values="").replace("sha256('new')", "sha256('a')"), UNIQUE),
    (KEY.format(more="", values="").replace("sha256('new')", "'short'"), CHECK),
    ("UPDATE api_key SET state = 'active', revoked_at = NULL WHERE name = 'phone'", INTEGRITY),
    ("UPDATE api_key SET hash = sha256('z') WHERE name = 'laptop'", INTEGRITY),
    ("UPDATE api_key SET replaced_by = id", CHECK),
    ("INSERT INTO whitelist (cidr) VALUES ('10.0.0.1/8')", BAD),
    ("INSERT INTO model (name, alias_of) VALUES ('faster', 'fast')", FOREIGN),
    ("INSERT INTO model (name, alias_of) VALUES ('loop', 'loop')", CHECK),
    ("INSERT INTO model (name, alias_of) VALUES ('slow', 'nothing')", FOREIGN), ("DELETE FROM model WHERE name = 'qwen3:32b'", FOREIGN),
    ("UPDATE model SET alias_of = 'fast' WHERE name = 'qwen3:32b'", FOREIGN),
    ("INSERT INTO model (name, keep_alive) VALUES ('m', 'soon')", CHECK), ("INSERT INTO model (name, num_ctx) VALUES ('m', 1)", CHECK),
    ("INSERT INTO backend (name, url) VALUES ('gpu2', 'ftp://x')", CHECK),
    ("INSERT INTO backend (name, url) VALUES ('g', 'http://u@h')", CHECK),
    ("INSERT INTO backend (name, url, slots) VALUES ('gpu2', 'http://x', -1)", CHECK),
    ("INSERT INTO backend (name, url) VALUES ('gpu2', 'http://10.0.0.5:11434')", UNIQUE),
    ("INSERT INTO gateway (name) VALUES ('edge1')", UNIQUE), ("INSERT INTO gateway (name, public_key) VALUES ('e', sha256('l'))", UNIQUE),
    ("INSERT INTO gateway (name, enrol_hash) VALUES ('e', sha256('s'))", CHECK),
    ("UPDATE gateway SET removed_at = NULL WHERE name = 'edge0'", INTEGRITY),
    ("UPDATE gateway SET enrol_hash = sha256('s'), enrol_expires = now() WHERE name = 'edge0'", CHECK),
    ("INSERT INTO admin_token (name, hash, role) VALUES ('b', sha256('u'), 'viewer')", NULL),
    ("INSERT INTO admin_token (name, hash, role, expires_at) VALUES ('b', sha256('u'), 'viewer', now() - interval '1 s')", CHECK),
    ("INSERT INTO admin_token (name, hash, role, expires_at) VALUES ('b', sha256('u'), 'god', 'infinity')", CHECK),
    ("INSERT INTO config_head (one, version) VALUES (false, 1)", CHECK), ("INSERT INTO config_head (version) VALUES (1)", UNIQUE),
    ("UPDATE config_head SET version = version + 2", INTEGRITY), ("UPDATE config_head SET version = version", INTEGRITY),
    ("INSERT INTO change_log (version, seq, kind, id, body) VALUES (1, 0, 'key', 'x', '{}')", INTEGRITY),
    ("UPDATE config_head SET version = version + 1; INSERT INTO change_log (version, seq, kind, id) VALUES (7, 0, 'key', 'x')", INTEGRITY),
    (f"{NEXT} VALUES ({HEAD}, 0, 'key', 'x', '[]')", CHECK),
    ("UPDATE leader SET holder = 'two'", INTEGRITY), ("UPDATE leader SET epoch = 4", INTEGRITY),
    ("INSERT INTO leader VALUES (true, 'two', 9, now())", UNIQUE),
    ("INSERT INTO idempotency (token_id, key, request_hash, status, body) VALUES (gen_random_uuid(), 'k', sha256('x'), 201, '')", FOREIGN),
]
RIGHT = [
    f"{NEXT} VALUES ({HEAD}, 0, 'key', 'x', '{{}}'), ({HEAD}, 1, 'key', 'y', NULL)",
    KEY.format(more="", values="").replace("'new',", "'phone',"),  # the name of a revoked key is free
    key("models, allow, rpm", "'{qwen3:32b,hf.co/org/model:Q4_K_M}', '{10.0.0.0/16,::1/128}', 30"),
    "INSERT INTO gateway (name) VALUES ('edge0')", "UPDATE leader SET holder = 'two', epoch = 6", "UPDATE leader SET holder = NULL",
    "UPDATE api_key SET state = 'revoked', revoked_at = now() WHERE name = 'laptop'", "SELECT change_log_prune(0)",
    "INSERT INTO model (name, keep_alive) VALUES ('m', '1h30m')", "INSERT INTO team (name, note) VALUES ('b', 'für alle, 模型')",
]


def test_wrong_states_are_refused_and_right_ones_are_not(migrated):
    migrated.sql(f"SET search_path = qwen, pg_temp; {SETUP}")
    cases = [*WRONG, *((text, "ok") for text in RIGHT)]
    states = migrated.refusals([text for text, _ in cases])
    assert [(text, state, wanted) for (text, wanted), state in zip(cases, states) if state != wanted] == []


def test_an_objects_version_rises_by_itself_and_not_by_use(migrated):
    migrated.sql(f"SET search_path = qwen, pg_temp; {SETUP}")
    version = "SELECT version FROM qwen.api_key WHERE name = 'laptop'"
    assert migrated.sql(version) == "1"
    migrated.sql("UPDATE qwen.api_key SET last_used_at = now() WHERE name = 'laptop'", "qwen_control")
    assert migrated.sql(version) == "1"
    migrated.sql("UPDATE qwen.api_key SET rpm = 5 WHERE name = 'laptop'", "qwen_control")
    assert migrated.sql(version) == "2"
    migrated.sql("UPDATE qwen.api_key SET rpm = 6, version = version + 1 WHERE name = 'laptop'", "qwen_control")
    assert migrated.sql(version) == "3"


def test_changes_are_pruned_but_never_the_last_hundred_thousand_versions(migrated):
    migrated.sql("""ALTER TABLE qwen.config_head DISABLE TRIGGER ALL; ALTER TABLE qwen.change_log DISABLE TRIGGER ALL;
                    UPDATE qwen.config_head SET version = 100010;
                    INSERT INTO qwen.change_log (version, seq, kind, id) SELECT v, 0, 'key', 'x' FROM generate_series(1, 100010, 1) v""")
    assert migrated.sql("SELECT qwen.change_log_prune(0)", "qwen_control") == "10"
    assert migrated.sql("SELECT min(version), count(*) FROM qwen.change_log") == "11|100000"
