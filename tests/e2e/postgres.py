"""
A PostgreSQL of the tests' own: a cluster in a temporary folder, on a unix socket only, as another user where we are root
(PostgreSQL refuses to run as root). One a worker; each test gets a database, and may stop, freeze or kill the server.
"""

import contextlib
import glob
import os
import pathlib
import pwd
import shutil
import signal
import subprocess

from processes import BIN, die_with_parent, environment, run, spawn
from wire import wait_for

CONTROL = BIN / "qwen-control"
SUPERUSER = "tests"
SETTINGS = {
    "listen_addresses": "''", "unix_socket_permissions": "0700", "max_connections": 100, "shared_buffers": "'16MB'",
    "fsync": "off", "full_page_writes": "off", "wal_level": "minimal", "max_wal_senders": 0,
    "autovacuum": "off", "jit": "off", "log_min_messages": "warning", "shared_memory_type": "mmap",
}


def programs():
    """The folder of initdb and postgres; Debian keeps it off the path. QG_POSTGRES names another: another version."""
    if os.environ.get("QG_POSTGRES"):
        return pathlib.Path(os.environ["QG_POSTGRES"])
    found = glob.glob("/usr/lib/postgresql/*/bin/initdb")
    if found:
        return pathlib.Path(max(found, key=lambda path: float(path.split("/")[4]))).parent
    return pathlib.Path(os.path.realpath(shutil.which("initdb"))).parent


def someone_else():
    """Whom to run as; None: as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError("no user to run PostgreSQL as")


class Cluster:
    def __init__(self, folder, **settings):
        self.settings = {**SETTINGS, **settings}
        self.folder = pathlib.Path(folder)
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.user = someone_else()
        self.process = None
        self.databases = 0
        if self.user:
            os.chown(folder, self.user.pw_uid, self.user.pw_gid)
        done = subprocess.run([programs() / "initdb", "--no-sync", "-A", "trust", "-U", SUPERUSER, "-E", "UTF8", "--no-locale",
                               "-D", self.data], preexec_fn=self.become, capture_output=True, text=True, cwd="/",
                              env={**os.environ, "LC_ALL": "C"})
        assert done.returncode == 0, done.stderr
        self.start()

    def become(self):
        if self.user:
            os.setgroups([])
            os.setgid(self.user.pw_gid)
            os.setuid(self.user.pw_uid)
            die_with_parent()  # becoming somebody else undoes it

    # The server -------------------------------------------------------------------------------------------

    def start(self):
        """Returns once it answers."""
        settings = [f"-c{name}={value}".replace("'", "") for name, value in self.settings.items()]
        with open(self.log, "ab") as log:
            self.process = spawn([programs() / "postgres", "-D", self.data, f"-cunix_socket_directories={self.folder}", *settings],
                                 stdout=log, stderr=log, preexec_fn=self.become, cwd="/", env={**os.environ, "LC_ALL": "C"})
        wait_for(lambda: self.process.poll() is not None or self.answers(), 60)
        assert self.process.poll() is None, self.log.read_text()

    def answers(self):
        return subprocess.run([programs() / "pg_isready", "-q", "-h", self.folder, "-d", "postgres"], cwd="/").returncode == 0

    def stop(self, how=signal.SIGINT):
        """SIGINT: fast; SIGQUIT: at once, as after a crash."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(60)

    def restart(self, how=signal.SIGINT):
        self.stop(how)
        self.start()

    def pids(self):
        """Of the server and all that it has started."""
        below = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [self.process.pid, *(int(pid) for pid in (below.read_text().split() if below.exists() else []))]

    def crash(self):
        """kill -9 of all of it, as when the machine goes; but what it has written is there."""
        pids = self.pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(60)
        wait_for(lambda: not any(map(is_alive, pids)), 20, "the end of PostgreSQL's processes")

    @contextlib.contextmanager
    def frozen(self):
        pids = self.pids()
        try:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    freeze(pid)
            yield
        finally:
            for pid in reversed(pids):
                with contextlib.suppress(ProcessLookupError):
                    thaw(pid)

    # Databases --------------------------------------------------------------------------------------------

    def database(self, options="TEMPLATE template0"):
        """A new one, empty."""
        self.databases += 1
        name = f"test{self.databases}"
        self.sql(f"CREATE DATABASE {name} {options}", "postgres")
        return Database(self, name)

    def sql(self, text, database, user=SUPERUSER, timeout=60):
        done = self.psql(text, database, user, timeout)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def psql(self, text, database, user=SUPERUSER, timeout=60):
        return subprocess.run([programs() / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose",
                               "-h", self.folder, "-U", user, "-d", database], input=text, capture_output=True, text=True,
                              cwd="/", timeout=timeout)


class Database:
    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name

    def address(self, user=SUPERUSER):
        return f"host={self.cluster.folder} dbname={self.name} user={user}"

    def sql(self, text, user=SUPERUSER, timeout=60):
        return self.cluster.sql(text, self.name, user, timeout)

    def refusals(self, texts, user=SUPERUSER):
        """With which SQLSTATE each is refused; "ok" when it is not. Nothing of it stays."""
        script = "\\set ON_ERROR_STOP off\n" + "".join(
            f"BEGIN;\nSET LOCAL search_path = qwen, pg_temp;\n{text};\n\\if :ERROR\n\\echo state= :LAST_ERROR_SQLSTATE\n"
            "\\else\n\\echo state= ok\n\\endif\nROLLBACK;\n" for text in texts)
        done = self.cluster.psql(script, self.name, user)
        states = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("state=")]
        assert len(states) == len(texts), done.stderr
        return states

    def drop(self):
        self.cluster.sql(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)", "postgres")

    def session(self):
        """psql that stays, so that it can hold locks."""
        return Session(self)

    # qwen-control -----------------------------------------------------------------------------------------

    def config(self, user=SUPERUSER, **settings):
        path = self.cluster.folder / f"{self.name}.yaml"
        lines = {"database": f'"{self.address(user)}"', **settings}
        fresh = path.with_suffix(".new")  # whole under its name at every moment: programs of this test may be reading it
        fresh.write_text("".join(f"{name}: {value}\n" for name, value in lines.items()))
        fresh.chmod(0o600)
        fresh.rename(path)
        return path

    def control(self, *arguments, user=SUPERUSER, **settings):
        return run([CONTROL, "--config", self.config(user, **settings), *arguments], timeout=60)

    def start_control(self, *arguments):
        return spawn([CONTROL, "--config", self.config(), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                     env=environment())

    def waiting(self):
        """How many backends of this database wait for a lock."""
        return int(self.cluster.sql(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{self.name}' AND wait_event_type = 'Lock'",
                                    "postgres"))


class Session:
    def __init__(self, database):
        cluster = database.cluster
        self.process = spawn([programs() / "psql", "-X", "-q", "-A", "-t", "-h", cluster.folder, "-U", SUPERUSER, "-d", database.name],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")

    def do(self, text):
        """Returns once it is done."""
        self.process.stdin.write(f"{text};\n\\echo done\n")
        self.process.stdin.flush()
        said = []
        while (line := self.process.stdout.readline()) != "done\n":
            assert line, "psql ended"
            said.append(line)
        return "".join(said).strip()

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def freeze(pid):
    os.kill(pid, signal.SIGSTOP)


def thaw(pid):
    os.kill(pid, signal.SIGCONT)
