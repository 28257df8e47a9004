"""
deploy/quickstart, with the programs that are there already and a run folder of the test's own. That it also installs
and builds is shown on a bare machine; here stubs stand for apt and cmake, so that nothing is installed or built.
"""

import contextlib
import json
import os
import pathlib
import pty
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess

import pytest

from fake import last_line, line
from gateway import MODEL
from processes import BIN, ROOT, environment, free_port, run, spawn
from wire import Wire, wait_for

SCRIPT = ROOT / "deploy" / "quickstart"
PROGRAMS = ("qwen-gateway", "fake-ollama")
NO_OLLAMA = "127.0.0.1:1"


PAIR = ("qwen-gateway", "qwen-gateway2", "qwen-control", "postgres", "fake-ollama")
PAIR_PORTS = 13  # from the first gateway's to the link's


class Quickstart:
    def __init__(self, folder, claims):
        self.folder = pathlib.Path(folder)
        self.folder.chmod(0o711)  # PostgreSQL is somebody else's where we are root, and its folder is below
        self.run_folder = self.folder / "my run"
        self.script = SCRIPT
        self.shape = ["--standalone"]
        self.claims = claims
        self.port = self.adjacent_ports(2)
        self.settings = {"QUICKSTART_RUN": str(self.run_folder), "QG_BIN": str(BIN), "OLLAMA_HOST": NO_OLLAMA}
        self.told = []
        self.begun = []
        self.wrap = []

    def adjacent_ports(self, count):
        """The first of so many free ports in a row, claimed for this test as free_port() claims."""
        while True:
            first = free_port()
            with contextlib.ExitStack() as stack:
                try:
                    for port in range(first + 1, first + count):
                        claim = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
                        claim.bind(f"\0qwen-gateway-test-port-{port}")
                        with socket.socket() as probe:
                            probe.bind(("", port))
                except OSError:
                    continue
                self.claims.enter_context(stack.pop_all())
                return first

    def environment(self, **settings):
        env = environment({**self.settings, **settings})
        return {name: value for name, value in env.items() if value is not None}

    def __call__(self, *arguments, status=0, cwd=None, **settings):
        """Runs it to its end; gives all it said."""
        if not arguments:
            arguments = (*self.shape, "--port", self.port)
        done = run([*self.wrap, self.script, *arguments], timeout=60, env=self.environment(**settings), cwd=cwd or self.folder)
        assert done.returncode == status, f"status {done.returncode}: {done.stdout}\n{done.stderr}"
        self.note_processes()
        return done.stdout + done.stderr

    def begin(self, **options):
        """Starts it, in a group of its own as a shell does, and does not wait for its end."""
        self.begun.append(spawn([self.script, *self.shape, "--port", self.port], cwd=self.folder, env=self.environment(),
                                start_new_session=True, **options))
        return self.begun[-1]

    def end_begun(self):
        """Whatever begin() started and a failed test left: while it lives it holds the lock that --stop wants."""
        for process in self.begun:
            if process.poll() is None:
                process.kill()
                process.wait(10)

    def note_processes(self):
        self.told += [pid for pid in map(self.pid_of, PAIR) if pid]

    def pid_of(self, program):
        with contextlib.suppress(FileNotFoundError):
            return int((self.run_folder / f"{program}.pid").read_text().split()[0])

    def text_of(self, name):
        return (self.run_folder / name).read_text()

    def nothing_runs(self):
        """None of the processes that were ever written down lives, and nobody listens where the gateway did."""
        self.note_processes()
        with socket.socket() as probe:
            return not any(map(is_alive, self.told)) and probe.connect_ex(("127.0.0.1", self.port)) != 0


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


@pytest.fixture
def quickstart(folder):
    with contextlib.ExitStack() as claims:
        it = Quickstart(folder, claims)
        yield it
        it.end_begun()
        stopped = run([it.script, "--stop"], env=it.environment())
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr
        for pid in it.told:
            wait_for(lambda: not is_alive(pid), 15, f"the end of process {pid}")


@pytest.fixture
def pair(quickstart):
    """What a newcomer gets who asks for nothing else."""
    quickstart.shape = []
    quickstart.port = quickstart.adjacent_ports(PAIR_PORTS)
    return quickstart


def stub(folder, **programs):
    """A folder of little programs, as a PATH that begins with it."""
    folder = pathlib.Path(folder) / "stubs"
    folder.mkdir()
    for name, body in programs.items():
        (folder / name.replace("_", "-")).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name.replace("_", "-")).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def one_sentence(said):
    """The last line of a run that failed."""
    final = said.rstrip().splitlines()[-1]
    assert final.startswith("deploy/quickstart: ") and final.endswith("."), said
    return final


# --- what a newcomer sees ---------------------------------------------------------------------------------------

def test_without_ollama_it_says_so_and_a_stand_in_answers(quickstart):
    said = quickstart()
    assert f"No Ollama answers at http://{NO_OLLAMA}" in said
    assert "ollama.com/install.sh" in said and "ollama pull qwen3:32b" in said
    assert re.search(r"^   thinking: Okay, the user", said, re.MULTILINE)
    assert re.search(r"^   answer: Answer : forty-two", said, re.MULTILINE)
    assert "\x1b" not in said


def test_the_configuration_is_shown_and_holds_no_key(quickstart):
    said = quickstart()
    config = quickstart.text_of("config.yaml")
    assert all(f"   {written}\n" in said for written in config.splitlines())
    key = quickstart.text_of("key").strip()
    assert re.fullmatch(r"qk_[0-9A-Za-z]{10}_[0-9A-Za-z]{33}", key)
    hashed = subprocess.run([BIN / "qwen-gateway", "--hash-key"], input=key, capture_output=True, text=True, check=True)
    assert hashed.stdout.strip().removeprefix("sha256:") in config
    assert key not in config + said
    for name in ("config.yaml", "key", "gateway.log"):
        assert stat.S_IMODE((quickstart.run_folder / name).stat().st_mode) == 0o600, name


def test_the_key_is_one_that_the_house_would_make(quickstart):
    """With one digit changed the check fails, and the configuration is refused."""
    quickstart()
    config = quickstart.folder / "plain.yaml"
    key = quickstart.text_of("key").strip()
    for digit, status in ((key[-1], 0), ("0" if key[-1] != "0" else "1", 2)):
        config.write_text(f'auth: {{ valid_keys: ["{key[:-1]}{digit}"] }}\n')
        config.chmod(0o600)
        assert run([BIN / "qwen-gateway", "--config", config, "--check"]).returncode == status


def test_the_answer_is_printed_as_it_streams(quickstart, fake):
    """Two words are there while the model is still silent about the third."""
    fake.script(tokens=3, stall_after_tokens=2)
    quickstart.settings["OLLAMA_HOST"] = f"127.0.0.1:{fake.port}"
    out = quickstart.folder / "out"
    with open(out, "w") as stdout:
        script = quickstart.begin(stdout=stdout, stderr=stdout)
    wait_for(lambda: "answer:  r0 r1" in out.read_text(), 30, "the first words")
    assert script.poll() is None
    os.killpg(script.pid, signal.SIGINT)
    assert script.wait(15) == 130
    assert "it works" not in out.read_text()
    wait_for(quickstart.nothing_runs, 5, "the end of what it had started")


def test_a_plain_kill_leaves_nothing_behind(quickstart, fake):
    fake.script(tokens=3, stall_after_tokens=2)
    quickstart.settings["OLLAMA_HOST"] = f"127.0.0.1:{fake.port}"
    script = quickstart.begin(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    fake.wait_running(1, 30)
    quickstart.note_processes()
    script.terminate()
    assert script.wait(15) == 143
    wait_for(quickstart.nothing_runs, 5, "the end of what it had started")


def test_on_a_terminal_thinking_is_dim(quickstart):
    ours, theirs = pty.openpty()
    quickstart.settings |= {"TERM": "xterm", "NO_COLOR": None}
    script = quickstart.begin(stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # what reading a terminal gives when its last user is gone
        while piece := os.read(ours, 65536):
            said += piece
    os.close(ours)
    assert script.wait(30) == 0
    quickstart.note_processes()
    assert b"\x1b[2m   thinking: Okay" in said
    assert b"\x1b[0m   answer: Answer" in said


def test_an_answer_cannot_take_over_the_terminal(quickstart, fake):
    fake.script_lines(line('a\x1b[31m\x07 <b>\t"q" \\ é 😀 \u2028'), last_line())
    said = quickstart(OLLAMA_HOST=f"127.0.0.1:{fake.port}")
    assert '   answer: a[31m <b>\t"q" \\ é 😀 \u2028\n' in said


def test_the_three_commands_work_from_where_they_are_shown(quickstart):
    for cwd in (quickstart.folder, pathlib.Path("/")):
        said = quickstart(cwd=cwd)
        commands = re.findall(r"^curl .*", said, re.MULTILINE)
        assert len(commands) == 3
        chat, models, metrics = (run(["bash", "-c", command], cwd=cwd).stdout for command in commands)
        assert chat.startswith("data: {") and chat.rstrip().endswith("data: [DONE]")
        assert MODEL in [model["id"] for model in json.loads(models)["data"]]
        assert "qwen_gateway_requests_total" in metrics
        [end] = re.findall(r"^== to end it: (.*)", said, re.MULTILINE)
        run(["bash", "-c", end], cwd=cwd)
        assert quickstart.nothing_runs()


def test_it_runs_in_a_clone_whose_path_has_spaces(quickstart):
    clone = quickstart.folder / "new comer" / "the clone"
    (clone / "deploy").mkdir(parents=True)
    quickstart.script = shutil.copy(SCRIPT, clone / "deploy")
    quickstart.run_folder = clone / "run"
    quickstart.settings["QUICKSTART_RUN"] = None
    said = quickstart(cwd="/")
    shown = str(clone).replace(" ", "\\ ")
    assert f"$(cat {shown}/run/key)" in said
    assert f"== to end it: {shown}/deploy/quickstart --stop\n" in said


# --- Ollama -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("form", ["127.0.0.1:{}", "localhost:{}", ":{}", "0.0.0.0:{}", "http://127.0.0.1:{}/", ' "127.0.0.1:{}" '])
def test_ollama_is_found_in_whatever_form_ollama_host_names_it(quickstart, fake, form):
    said = quickstart(OLLAMA_HOST=form.format(fake.port))
    assert re.search(rf"found Ollama at http://(127\.0\.0\.1|localhost):{fake.port} with {MODEL}$", said, re.MULTILINE)
    assert "stand-in" not in said and quickstart.pid_of("fake-ollama") is None
    assert len(fake.seen()) == 1


@pytest.mark.parametrize("value,url", [
    (None, "http://127.0.0.1:11434"), ("gpu1", "http://gpu1:11434"), ("http://gpu1", "http://gpu1:80"),
    ("gpu1:99999", "http://gpu1:11434"), ("::1", "http://[::1]:11434"), ("[::1]:99", "http://[::1]:99"),
    ("[::]", "http://127.0.0.1:11434"), ("https://gpu1", "https://gpu1:443"), ("http://gpu1:1/a/", "http://gpu1:1/a"),
])
def test_ollama_host_is_read_as_ollama_reads_it(folder, value, url):
    """The function alone: these places need not exist."""
    function = re.search(r"^ollama_url\(\) \{.*?^\}", SCRIPT.read_text(), re.MULTILINE | re.DOTALL)[0]
    env = {name: setting for name, setting in os.environ.items() if name != "OLLAMA_HOST"}
    done = run(["bash", "-euo", "pipefail", "-c", f"{function}\nollama_url"],
               env=env if value is None else {**env, "OLLAMA_HOST": value})
    assert done.stdout == f"{url}\n" and not done.stderr


CHAT, EMBED = ["completion"], ["embedding"]


@pytest.mark.parametrize("models,wanted", [
    ([("loop", CHAT), ("qwen3:4b", CHAT), ("qwen3:32b", CHAT)], "qwen3:32b"),
    ([("loop", CHAT), ("qwen3-embedding:8b", EMBED), ("qwen3:4b", CHAT)], "qwen3:4b"),
    ([("nomic-embed-text", EMBED), ("qwen3:480b-cloud", CHAT), ("mistral:7b", CHAT)], "mistral:7b"),
])
def test_it_asks_a_model_that_is_there_and_prefers_qwen3(quickstart, start_fake, models, wanted):
    fake = start_fake()
    fake.set(models=[{"name": name, "capabilities": capabilities} for name, capabilities in models])
    said = quickstart(OLLAMA_HOST=fake.url)
    assert f"found Ollama at {fake.url} with {wanted}\n" in said
    assert fake.body["model"] == wanted


def test_an_ollama_without_a_model_to_chat_with_is_said_to_be_one(quickstart, start_fake):
    fake = start_fake()
    fake.set(models=[{"name": "nomic-embed-text", "capabilities": EMBED}, {"name": "big:cloud", "capabilities": CHAT}])
    said = quickstart(OLLAMA_HOST=fake.url)
    assert f"Ollama at {fake.url} has no model of its own to chat with." in said
    assert "answer: Answer" in said and not fake.seen()


@pytest.mark.parametrize("value", ["https://127.0.0.1:1", "http://127.0.0.1:1/ollama"])
def test_an_ollama_that_the_gateway_cannot_reach_is_not_asked(quickstart, value):
    said = quickstart(OLLAMA_HOST=value)
    assert f"OLLAMA_HOST says {value}, but the gateway speaks plain http without a path" in said
    assert "answer: Answer" in said


# --- again, and the end -----------------------------------------------------------------------------------------

def test_a_second_run_begins_anew_and_keeps_the_key(quickstart):
    quickstart()
    key = quickstart.text_of("key")
    first = [quickstart.pid_of(program) for program in PROGRAMS]
    said = quickstart()
    assert f"ending qwen-gateway (process {first[0]})" in said and "is taken" not in said
    assert not any(map(is_alive, first))
    assert all(is_alive(quickstart.pid_of(program)) for program in PROGRAMS)
    assert quickstart.text_of("key") == key
    assert "answer: Answer" in said


def test_stop_ends_what_it_started_and_nothing_else(quickstart):
    quickstart()
    pids = [quickstart.pid_of(program) for program in PROGRAMS]
    said = quickstart("--stop")
    assert [f"ending {program} (process {pid})" in said for program, pid in zip(PROGRAMS, pids)] == [True, True]
    assert quickstart.nothing_runs()
    assert "nothing was running" in quickstart("--stop")


def test_a_process_that_only_has_the_number_is_left_alone(quickstart):
    stranger = spawn(["sleep", "60"])
    begun = pathlib.Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(") ")[2].split()[19]
    quickstart.run_folder.mkdir()
    for start_time in (begun, "1"):
        (quickstart.run_folder / "qwen-gateway.pid").write_text(f"{stranger.pid} {start_time}\n")
        assert "nothing was running" in quickstart("--stop")
        assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


@pytest.mark.parametrize("written", ["{} 1", "{}", "", "nonsense"])
def test_a_file_left_from_before_a_restart_of_the_machine_is_in_nobodys_way(quickstart, written):
    gone = spawn(["true"])
    gone.wait()
    quickstart.run_folder.mkdir()
    for program in PROGRAMS:
        (quickstart.run_folder / f"{program}.pid").write_text(written.format(gone.pid) + "\n")
    assert "answer: Answer" in quickstart()


def test_two_runs_at_once_do_not_meet(quickstart, fake):
    fake.script(tokens=3, stall_after_tokens=2)
    quickstart.settings["OLLAMA_HOST"] = f"127.0.0.1:{fake.port}"
    first = quickstart.begin(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    fake.wait_running(1, 30)
    quickstart.note_processes()
    assert "another deploy/quickstart is at work" in one_sentence(quickstart(status=1))
    first.terminate()
    first.wait(15)


def test_a_taken_port_is_named_with_its_owner_and_the_next_is_used(quickstart):
    port = quickstart.port = quickstart.adjacent_ports(4)
    with socket.create_server(("127.0.0.1", port)), socket.create_server(("", port + 2)):
        said = quickstart()
        for taken in (port, port + 2):
            assert re.search(rf"Port {taken} is taken by \S+ \(process {os.getpid()}\); trying the next one\.", said), said
        config = quickstart.text_of("config.yaml")
        assert f'\nlisten: "127.0.0.1:{port + 1}"' in config and f'\noperator_listen: "127.0.0.1:{port + 3}"' in config
        assert "answer: Answer" in said


# --- the pair ---------------------------------------------------------------------------------------------------

def status_with(port, key):
    wire = Wire(("127.0.0.1", port))
    try:
        return wire.request("GET", "/v1/models", {"X-Api-Key": key, "Connection": "close"}).answer("GET").status
    finally:
        wire.close()


def test_the_pair_shows_a_key_from_its_first_to_its_last_moment(pair):
    said = pair()
    made, asked, revoked, kept = (said.index(words) for words in (
        "qwadm key create --user newcomer --create-user --name first-", "answer: Answer : forty-two", "qwadm key revoke newcomer/first-",
        "qwadm key create --user newcomer --create-user --name quickstart-"))
    assert made < asked < revoked < kept
    for port in (pair.port, pair.port + 2):
        assert re.search(rf"the gateway on port {port} now says: .*invalid api key", said[revoked:kept])
    key = pair.text_of("key").strip()
    assert [status_with(port, key) for port in (pair.port, pair.port + 2)] == [200, 200]
    assert not re.search(r"qk_\w{10}_|qat_|qen_", said)
    for name in ("config.yaml", "config2.yaml", "control.yaml", "key", "token", "gateway.log", "gateway2.log", "control.log"):
        assert stat.S_IMODE((pair.run_folder / name).stat().st_mode) == 0o600, name
    end = re.search(r"^== it works.*", said, re.MULTILINE | re.DOTALL)[0]
    chat, models, metrics, *others = re.findall(r"^(?:curl|.*/qwadm) .*", end, re.MULTILINE)
    assert run(["bash", "-c", chat], cwd=pair.folder).stdout.rstrip().endswith("data: [DONE]")
    status, keys = (run(["bash", "-c", command], cwd=pair.folder) for command in others[:2])
    assert status.returncode == 0 and "quickstart-" in keys.stdout, (status, keys)


def test_the_pair_again_keeps_database_and_key_and_stop_ends_all(pair):
    pair()
    first = [pair.pid_of(program) for program in PAIR]
    key, token = pair.text_of("key"), pair.text_of("token")
    pair.run_folder.joinpath("qwadm").unlink()
    said = pair()
    assert "the key that you keep is in" in said and "making a PostgreSQL cluster" not in said and "is taken" not in said
    assert not any(map(is_alive, first)) and all(is_alive(pair.pid_of(program)) for program in PAIR)
    assert (pair.text_of("key"), pair.text_of("token")) == (key, token)
    assert status_with(pair.port + 2, key.strip()) == 200
    ended = pair("--stop")
    assert re.findall(r"ending (\S+) \(process", ended) == list(PAIR)
    assert pair.nothing_runs() and "nothing was running" in pair("--stop")


def test_a_pair_that_is_interrupted_leaves_nothing_running(pair, fake):
    fake.script(tokens=3, stall_after_tokens=2)
    pair.settings["OLLAMA_HOST"] = f"127.0.0.1:{fake.port}"
    script = pair.begin(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    fake.wait_running(1, 30)
    pair.note_processes()
    assert len(pair.told) == 4
    script.terminate()
    assert script.wait(30) == 143
    wait_for(pair.nothing_runs, 15, "the end of what it had started")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's PostgreSQL must be somebody else")
def test_where_the_user_of_postgresql_may_not_enter_its_cluster_lies_elsewhere(pair):
    pair.folder.chmod(0o700)
    said = pair()
    cluster = pathlib.Path(re.search(r"PostgreSQL's files lie in (/var/tmp/qwen-quickstart-[0-9]+):", said)[1])
    try:
        assert status_with(pair.port, pair.text_of("key").strip()) == 200
        assert stat.S_IMODE(cluster.stat().st_mode) == 0o700 and not (pair.run_folder / "postgres").exists()
        assert pair("--stop") and pair.nothing_runs()
    finally:
        shutil.rmtree(cluster)


# --- what can go wrong ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments", [("--port",), ("--port", "0"), ("--port", "65535"), ("--port=x",), ("--fast",)])
def test_wrong_options_are_refused_in_one_sentence(quickstart, arguments):
    assert arguments[0].partition("=")[0] in one_sentence(quickstart(*arguments, status=1))
    assert not quickstart.run_folder.exists()


def test_help_names_the_options(quickstart):
    said = quickstart("--help")
    assert "--stop" in said and "--port N" in said and "OLLAMA_HOST" in said and "--standalone" in said


def test_packages_that_cannot_be_installed_end_it_with_the_log(quickstart):
    path = stub(quickstart.folder, dpkg_query="exit 1", sudo='[[ $1 == -n ]] && shift; exec "$@"',
                apt_get='echo "apt-get $*"; echo "E: Unable to locate package"; exit 100')
    said = quickstart(status=1, QG_BIN=None, PATH=path)
    assert re.search(r"^== packages: installing build-essential cmake ", said, re.MULTILINE)
    assert "E: Unable to locate package" in said
    assert "installing packages failed (log: my\\ run/packages.log)" in one_sentence(said)
    assert quickstart.nothing_runs()


def test_a_build_that_fails_ends_it_with_the_log(quickstart):
    path = stub(quickstart.folder, dpkg_query="echo install ok installed", apt_get="exit 1",
                cmake="echo 'CMake Error: the compiler is broken'; exit 1")
    said = quickstart(status=1, QG_BIN=None, PATH=path)
    assert "CMake Error: the compiler is broken" in said and "packages:" not in said
    assert "building failed (log: my\\ run/build.log)" in one_sentence(said)
    assert quickstart.nothing_runs()


def test_a_missing_program_is_named(quickstart):
    said = quickstart(status=1, QG_BIN=str(quickstart.folder))
    assert "fake-ollama is not there" in one_sentence(said)


def test_a_gateway_that_does_not_start_takes_the_stand_in_with_it(quickstart):
    programs = quickstart.folder / "programs"
    programs.mkdir()
    (programs / "fake-ollama").symlink_to(BIN / "fake-ollama")
    gateway = programs / "qwen-gateway"
    gateway.write_text(f'#!/bin/bash\n[[ $1 == --hash-key ]] && exec {shlex.quote(str(BIN))}/qwen-gateway "$@"\n'
                       "echo 'config.yaml:7: no such thing'; exit 2\n")
    gateway.chmod(0o755)
    said = quickstart(status=1, QG_BIN=str(programs))
    assert "starting the stand-in" in said and "config.yaml:7: no such thing" in said
    assert "the gateway did not become ready (log: my\\ run/gateway.log)" in one_sentence(said)
    assert quickstart.nothing_runs()


def test_a_model_that_fails_ends_it_with_what_the_gateway_says(quickstart, fake):
    fake.script(status=500, body={"error": "model failed to load"})
    said = quickstart(status=1, OLLAMA_HOST=f"127.0.0.1:{fake.port}")
    assert re.search(r"^   the gateway says: \S", said, re.MULTILINE)
    assert "no whole answer came (log: my\\ run/gateway.log)" in one_sentence(said)
    assert quickstart.nothing_runs()


def test_an_answer_that_breaks_off_is_not_taken_for_whole(quickstart, fake):
    fake.script(tokens=3, error_after_tokens={"n": 2, "text": "the runner died"})
    said = quickstart(status=1, OLLAMA_HOST=f"127.0.0.1:{fake.port}")
    assert "answer:  r0 r1\n" in said and "the gateway says: " in said and "no whole answer came" in one_sentence(said)
    assert quickstart.nothing_runs()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; who is not root is that already")
def test_somebody_who_is_not_root_starts_and_stops_it(quickstart, folder):
    """A gateway does not let itself be looked into, not even by its own user."""
    quickstart.wrap = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if run([*quickstart.wrap, "test", "-x", BIN / "qwen-gateway", "-a", "-x", SCRIPT]).returncode:
        pytest.skip("others may not come in here")
    os.chown(folder, 65534, 65534)
    said = quickstart()
    assert is_alive(quickstart.pid_of("qwen-gateway")) and "18789" not in said
    assert quickstart("--stop") and quickstart.nothing_runs()
