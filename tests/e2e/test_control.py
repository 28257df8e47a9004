"""`qwen-control`: its options, its file, and what `check` says."""

import pytest

from postgres import CONTROL
from processes import ROOT, environment, run

SAMPLE = ROOT / "deploy" / "config" / "control.yaml"


@pytest.fixture
def migrated(database):
    done = database.control("migrate")
    assert done.returncode == 0, done.stderr
    return database


def test_check_says_that_all_is_well(migrated):
    done = migrated.control("check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "good; the database is at 0" in done.stdout
    assert migrated.control("check", user="qwen_control").returncode == 0


def test_check_says_what_is_missing(database):
    done = database.control("check", database_role='""')
    assert done.returncode == 1
    assert done.stderr == "qwen-control: the database is older than this program: 0001_ground is missing; run qwen-control migrate\n"


def test_check_says_that_the_database_is_away(cluster, folder):
    path = f"{folder}/control.yaml"
    with open(path, "w") as file:
        file.write(f'database: "host={folder} dbname=none user=me password=hunter2"\ndatabase_wait_timeout: 100ms\nlog_level: error\n')
    done = run([CONTROL, "--config", path, "check"])
    assert done.returncode == 1
    assert f"no connection to the database within 100 ms: connection to server on socket \"{folder}/" in done.stderr
    assert f"{path}: holds a password and others may read it: chmod 600 it" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
    done = run([CONTROL, "--config", path, "migrate"])
    assert done.returncode == 1 and "the database cannot be reached: connection to server on socket" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


def test_a_wrong_password_is_not_repeated(cluster, migrated):
    """PostgreSQL here trusts everybody on the socket, so a user that is not there stands for one that is refused."""
    done = migrated.control("migrate", user="nobody_at_all password=hunter2")
    assert done.returncode == 1 and 'role "nobody_at_all" does not exist' in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


def test_the_environment_names_the_database(migrated, folder):
    path = f"{folder}/control.yaml"
    with open(path, "w") as file:
        file.write('database: ""\n')
    done = run([CONTROL, "--config", path, "check"],
               env=environment({"PGHOST": str(migrated.cluster.folder), "PGDATABASE": migrated.name, "PGUSER": "qwen_control"}))
    assert done.returncode == 0, done.stderr


WRONG = [
    ([], "which command? try --help"),
    (["dance"], 'there is no command "dance"; try --help'),
    (["migrate", "now"], 'unexpected argument "now"; try --help'),
    (["check", "--status"], "--status belongs to migrate"),
    (["run", "--name", "x"], "--name belongs to init"),
    (["migrate", "--expires", "1d"], "--expires belongs to init"),
    (["--config", "/nonexistent/control.yaml", "check"], "/nonexistent/control.yaml: cannot be read: No such file or directory"),
]


@pytest.mark.parametrize("arguments,why", WRONG)
def test_a_wrong_command_line_is_one_sentence_and_status_2(arguments, why):
    done = run([CONTROL, *arguments])
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"qwen-control: {why}\n")


def test_a_wrong_file_is_one_sentence_and_status_2(folder):
    path = f"{folder}/control.yaml"
    with open(path, "w") as file:
        file.write("# comment\ndatabase_conections: 3\n")
    done = run([CONTROL, "--config", path, "migrate"])
    assert done.returncode == 2
    assert done.stderr == f"qwen-control: {path}:2: database_conections is not a known setting: did you mean database_connections?\n"


def test_help_names_what_there_is():
    done = run([CONTROL, "--help"])
    assert done.returncode == 0 and "migrate" in done.stdout and "check" in done.stdout
    assert run([CONTROL, "--version"]).stdout.startswith("qwen-control ")
    assert "database_wait_timeout (default 5s)" in run([CONTROL, "--settings"]).stdout


def test_the_sample_file_is_good():
    """Whatever the database that it names may say, if there is one: looking changes nothing."""
    done = run([CONTROL, "--config", SAMPLE, "migrate", "--status"])
    assert done.returncode != 2, done.stderr
