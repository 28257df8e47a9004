"""
The database is put back to a backup. What came after it is lost there, but gateways hold it still: a key that was made and
revoked in the new history may not live on.
"""

import json
import re

import pytest

from admin import command
from pair import freeze, pair_of, thaw
from wire import wait_for


@pytest.fixture
def pair(folder, database, fake):
    with pair_of(folder, database, fake) as pair:
        yield pair


def copy(database, source, target):
    """As pg_dump and pg_restore would, byte for byte; nobody may be connected."""
    database.cluster.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{source}'", "postgres")
    database.cluster.sql(f"CREATE DATABASE {target} TEMPLATE {source}", "postgres")


def start(control):
    control.start()
    wait_for(lambda: control.admin("GET", "/status").json["leader"]["state"] == "leads", 20, "that it leads")


def go_back(pair, changes):
    """
    Before the backup: "kept". After it, in what is lost: "stale", which gateways know. Then the backup is put back, and
    `changes` are made, while no gateway hears; gateways come when that is over.
    """
    database, control = pair.database, pair.control
    kept, version = pair.create_key("kept")
    pair.wait_applied(version)
    # The backup knows that it has told them: whoever a database never told anything gets everything anew by itself.
    wait_for(lambda: database.sql(f"SELECT count(*) FROM qwen.gateway WHERE applied_version >= {version}") == "2", 20)
    control.stop()
    copy(database, database.name, f"{database.name}_backup")
    start(control)
    stale, version = pair.create_key("stale")
    pair.wait_applied(version)
    assert pair.statuses(stale["secret"]) == [200, 200]
    held = version
    control.stop()
    database.cluster.sql(f"DROP DATABASE {database.name} WITH (FORCE)", "postgres")
    copy(database, f"{database.name}_backup", database.name)
    database.cluster.sql(f"DROP DATABASE {database.name}_backup", "postgres")
    for gateway in pair.gateways:
        freeze(gateway.process)
    start(control)
    made = [pair.create_key(f"made-{number}")[0] for number in range(changes)]
    for gateway in pair.gateways:
        thaw(gateway.process)
    return kept, stale, held, made


def qwadm(pair, *arguments):
    return command(f"http://127.0.0.1:{pair.control.admin_port}", *arguments, token=pair.admin.token, folder=str(pair.folder))


def test_gateways_that_are_ahead_of_the_restored_database_notice_it(pair):
    kept, stale, held, _ = go_back(pair, 0)
    assert pair.head() < held
    pair.wait_statuses(stale["secret"], 401, 20)
    assert pair.statuses(kept["secret"]) == [200, 200]


def test_a_key_of_the_lost_history_lives_on_until_gateways_take_everything_anew(pair):
    """The versions have passed each other: to both sides it looks as if gateways were behind, and so they hear the rest only."""
    kept, stale, held, made = go_back(pair, 3)
    assert pair.head() > held
    pair.wait_statuses(made[-1]["secret"], 200)
    pair.wait_applied()
    assert pair.statuses(stale["secret"]) == [200, 200] == pair.statuses(kept["secret"])
    assert json.dumps(pair.truth()["keys"]).count("null") == len(pair.truth()["keys"]) == 4, "the database has no such key"

    done = qwadm(pair, "gateway", "resync", "g1")
    assert re.fullmatch(r"1 gateway has taken everything anew after \d+ ms: g1\n", done.stderr) and done.returncode == 0, done.stderr
    assert pair.statuses(stale["secret"]) == [401, 200]

    freeze(pair.gateways[1].process)
    done = qwadm(pair, "gateway", "resync", "--all", "--wait", "12s", "-o", "json")
    assert done.returncode == 4 and re.search(r"^qwadm: g2 has not taken everything anew yet, last heard 2\S+Z$", done.stderr, re.M), done
    said = json.loads(done.stdout)
    assert (said["done"], said["pending"]) == (["g1"], ["g2"])
    thaw(pair.gateways[1].process)
    wait_for(lambda: not pair.admin("GET", "/gateways/g2").json["resyncing"], 20, "that g2 does it when it is back")
    assert pair.statuses(stale["secret"]) == [401, 401]
    for key in (kept, *made):
        assert pair.statuses(key["secret"]) == [200, 200]

    gateway = pair.gateways[1]  # and so it is after a new start from its disk, with nobody to ask
    gateway.kill()
    pair.control.stop()
    gateway.spawn()
    wait_for(lambda: pair.status_of(gateway, kept["secret"]) == 200, 20)
    assert pair.status_of(gateway, stale["secret"]) == 401


def test_the_same_version_with_another_content_is_replaced(pair):
    kept, stale, held, made = go_back(pair, 1)
    assert pair.head() == held
    pair.wait_applied()
    assert pair.statuses(stale["secret"]) == [200, 200] and pair.statuses(made[0]["secret"]) == [401, 401]
    done = qwadm(pair, "gateway", "resync", "--all")
    assert re.fullmatch(r"2 gateways have taken everything anew after \d+ ms: g1, g2\n", done.stderr) and done.returncode == 0, done.stderr
    assert pair.statuses(stale["secret"]) == [401, 401]
    assert pair.statuses(kept["secret"]) == [200, 200] == pair.statuses(made[0]["secret"])
