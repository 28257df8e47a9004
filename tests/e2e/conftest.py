"""
Fixtures. `fake` and `gateway` live as long as the worker and serve most tests; what needs a configuration or a
backend of its own asks `start_gateway` and `start_fake`. Each gateway ends with its books checked and without a
sanitizer's report, or the test fails.
"""

import contextlib
import shutil
import signal
import tempfile

import pytest

import fake as stand_in
from control import Control
from gateway import Gateway
from postgres import Cluster


def pytest_configure(config):
    """A plain kill ends the session as Ctrl-C does: fixtures are torn down."""
    def interrupt(*_):
        raise KeyboardInterrupt
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, interrupt)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """The line that tests/run counts by."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput"):
        return
    count = {name: len(reporter.stats.get(name, ())) for name in ("passed", "failed", "error", "skipped")}
    print(f"\n{count['passed']} passed, {count['failed'] + count['error']} failed, {count['skipped']} skipped", flush=True)


@contextlib.contextmanager
def short_folder():
    """A folder whose name leaves room for the path of a unix socket."""
    folder = tempfile.mkdtemp(prefix="qg-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def folder():
    with short_folder() as path:
        yield path


@pytest.fixture(scope="session")
def session_fake():
    with short_folder() as path:
        fake = stand_in.Fake(path)
        yield fake
        fake.stop()


@pytest.fixture
def fake(session_fake):
    """The worker's stand-in Ollama, with clean books. Tests that change what `set` changes start their own."""
    session_fake.reset()
    return session_fake


@pytest.fixture
def start_fake():
    """start_fake(*arguments) gives a stand-in Ollama of this test's own."""
    with contextlib.ExitStack() as stack:
        def start(*arguments):
            fake = stand_in.Fake(stack.enter_context(short_folder()), 0, *arguments)
            stack.callback(fake.stop)
            return fake
        yield start


@pytest.fixture(scope="session")
def session_gateways(session_fake):
    """The worker's gateways: one, and another each time that the one before crashed (which fails the test it was in)."""
    with contextlib.ExitStack() as stack:
        gateways = []

        def current():
            if not gateways or gateways[-1].process.poll() is not None:
                gateways.append(Gateway(stack.enter_context(short_folder()), session_fake.url))
                stack.callback(stop_unless_gone, gateways[-1])
            return gateways[-1]
        yield current


def stop_unless_gone(gateway):
    if gateway.process.poll() is None:
        gateway.stop()


@pytest.fixture
def gateway(session_gateways, fake):
    """The worker's gateway: default settings, one key, no rate limit. Its backend is `fake`."""
    gateway = session_gateways()
    yield gateway
    gateway.close_wires()
    assert gateway.process.poll() is None, f"the gateway crashed: {gateway.errors[-4000:]}"


@pytest.fixture
def start_gateway(fake, folder):  # the folder outlives the gateways: their logs may be in it
    """start_gateway(**settings) gives a gateway of this test's own, before `fake` unless `ollama` says otherwise."""
    with contextlib.ExitStack() as stack:
        def start(ollama=None, **options):
            gateway = Gateway(stack.enter_context(short_folder()), (ollama or fake).url, **options)
            stack.callback(gateway.stop)
            return gateway
        yield start


@pytest.fixture(scope="session")
def session_cluster():
    with short_folder() as path:
        cluster = Cluster(path)
        yield cluster
        cluster.stop()


@pytest.fixture
def cluster(session_cluster):
    """The worker's PostgreSQL. Who stops it need not start it again."""
    if session_cluster.process.poll() is not None:
        session_cluster.start()
    return session_cluster


@pytest.fixture
def database(cluster):
    """An empty database of this test's own."""
    database = cluster.database()
    yield database
    if cluster.process.poll() is None:
        database.drop()


@pytest.fixture
def start_control(database, folder):
    """start_control(**options) gives a control plane of this test's own, before `database` (see control.py)."""
    with contextlib.ExitStack() as stack:
        def start(**options):
            control = Control(database, stack.enter_context(short_folder()), **options)
            stack.callback(control.stop)
            return control
        yield start


@pytest.fixture
def control(start_control):
    """A control plane of this test's own, with default settings."""
    return start_control()
