"""The measurements of tests/bench/pair/run, one function each. Each gives figures; what they mean is in the judge's help."""

import contextlib
import http.client
import json
import pathlib
import random
import statistics
import threading
import time

from processes import environment, resident_bytes, run
from wire import Cut, Wire, wait_for

PAGES = 500


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def spread(name, seconds):
    return {f"{name}_p50_ms": 1000 * percentile(seconds, 0.5), f"{name}_p99_ms": 1000 * percentile(seconds, 0.99),
            f"{name}_most_ms": 1000 * max(seconds)}


def ran_s(pid):
    """How long all threads of a process ran so far."""
    said = 0
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            said += int(path.read_text().split()[0]) / 1e9
    return said


class Caller:
    """The admin API on one connection that is kept."""

    def __init__(self, admin):
        self.connection = http.client.HTTPConnection("127.0.0.1", admin.port, timeout=60)
        self.headers = {"Authorization": f"Bearer {admin.token}", "Content-Type": "application/json"}

    def __call__(self, method, path, body=None):
        self.connection.request(method, f"/admin/v1{path}", None if body is None else json.dumps(body), self.headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {text[:500]}")
        return json.loads(text), int(answer.headers.get("Qwen-Config-Version") or 0)

    def close(self):
        self.connection.close()


# --- a thousand gateways ----------------------------------------------------------------------------------------------

def measure_changes(bench):
    """(c) and (r): keys made, each known everywhere before the next; then revoked, each confirmed by all before the next."""
    caller, chance = Caller(bench.admin), random.Random(bench.options.seed)
    known, answered, first, confirmed, revoked_known = [], [], [], [], []
    made = []
    for number in range(bench.options.changes):
        time.sleep(chance.uniform(0, 0.5))
        began = time.monotonic()
        key, version = caller("POST", "/keys", {"user": f"user-{number % 20}", "name": f"made-{number}", "create_user": True})
        answered.append(time.monotonic() - began)
        when = bench.simulated.when(version)
        known.append(when["all"] - began)
        first.append(when["first"] - began)
        made.append(key["id"])
    for id in made:
        time.sleep(chance.uniform(0, 0.5))
        began = time.monotonic()
        _, version = caller("POST", f"/keys/{id}/revoke", {})
        said, _ = caller("GET", f"/confirmations/{version}?wait=10s")
        confirmed.append(time.monotonic() - began)
        if said["pending"] or len(said["confirmed"]) != bench.simulated.count:
            raise SystemExit(f"not confirmed by all: {len(said['confirmed'])} of {bench.simulated.count}, {said['pending'][:3]}")
        revoked_known.append(bench.simulated.when(version)["all"] - began)
    caller.close()
    return {**spread("created_everywhere", known), **spread("created_first", first), **spread("create_answered", answered),
            **spread("revoked_confirmed", confirmed), **spread("revoked_everywhere", revoked_known), "changes": len(known)}


def measure_cost(bench):
    """(i): what the control plane takes while nothing changes, gateways without and with callers."""
    figures = {}
    for name, is_busy in (("idle", 0), ("busy", 1)):
        bench.simulated.ask(f"busy {is_busy}")
        time.sleep(bench.options.settle_s)
        pids = {"control": bench.control.process.pid}
        before, began = {who: ran_s(pid) for who, pid in pids.items()}, time.monotonic()
        database_before = bench.database_ran_s()
        time.sleep(bench.options.idle_s)
        took = time.monotonic() - began
        figures[f"{name}_percent"] = 100 * (ran_s(pids["control"]) - before["control"]) / took
        figures[f"{name}_database_percent"] = 100 * (bench.database_ran_s() - database_before) / took
        figures[f"{name}_mib"] = resident_bytes(pids["control"]) / 2**20
    bench.simulated.ask("busy 0")
    return figures


def measure_flood(bench):
    """(f): so many keys a minute, begun at times that are set beforehand, whatever the answers do."""
    rate, seconds, callers = bench.options.flood_rate / 60, bench.options.flood_s, 8
    due, lock = iter(range(int(rate * seconds))), threading.Lock()
    began, answered, versions, late = time.monotonic() + 0.2, [], [], []
    ran = ran_s(bench.control.process.pid)

    def make_keys(who):
        caller = Caller(bench.admin)
        while True:
            with lock:
                number = next(due, None)
            if number is None:
                break
            wait = began + number / rate - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            _, version = caller("POST", "/keys", {"user": f"user-{number % 20}", "name": f"flood-{number}", "create_user": True})
            with lock:
                answered.append(time.monotonic() - (began + number / rate))
                versions.append((version, began + number / rate))
        caller.close()

    threads = [threading.Thread(target=make_keys, args=(who,)) for who in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    ran = ran_s(bench.control.process.pid) - ran
    everywhere = [bench.simulated.when(version)["all"] - due for version, due in versions[::max(1, len(versions) // 1000)]]
    if different := bench.simulated.differences(bench.database):
        raise SystemExit(f"after the flood the gateways hold something else than the database: {different}")
    in_time = sum(late <= 1 for late in answered)
    return {"flood_per_minute": in_time * 60 / seconds, **spread("flood_answered", answered), **spread("flood_everywhere", everywhere),
            "flood_percent": 100 * ran / took}


# --- a million keys ---------------------------------------------------------------------------------------------------

SECRET = "million-{}"  # how the keys' secrets are made, so that the judge knows all of them


def fill(database, count):
    """Straight into the tables, as an import of years would have left them; gateways get them as a snapshot."""
    database.sql("INSERT INTO qwen.app_user (name) SELECT 'm-' || n FROM generate_series(0, 9999) n;"
                 "INSERT INTO qwen.api_key (user_id, name, hash, prefix)"
                 " SELECT u.id, 'k-' || n, sha256(convert_to('million-' || n, 'UTF8')), lpad(n::text, 10, '0')"
                 f" FROM generate_series(0, {count - 1}) n JOIN qwen.app_user u ON u.name = 'm-' || (n % 10000);"
                 "UPDATE qwen.config_head SET version = version + 1", timeout=600)
    database.sql("VACUUM ANALYZE", timeout=600)


def measure_pages(bench):
    """(l): pages of `key list`: the first ones, ones from the middle, and filtered ones, of 100 and of 1000."""
    caller = Caller(bench.admin)
    figures = {}
    for size in (100, 1000):
        took, cursor = [], ""
        for _ in range(PAGES):
            began = time.monotonic()
            page, _ = caller("GET", f"/keys?limit={size}{cursor}")
            took.append(time.monotonic() - began)
            if len(page["data"]) != size and page["next_cursor"]:
                raise SystemExit(f"a page of {len(page['data'])} keys instead of {size}")
            cursor = f"&cursor={page['next_cursor']}" if page["next_cursor"] else ""  # after the last one the first again
        figures.update(spread(f"page_{size}", took))
    took, chance = [], random.Random(bench.options.seed)
    for _ in range(PAGES):
        filter = chance.choice((f"user=m-{chance.randrange(10000)}", f"prefix={chance.randrange(bench.options.keys):010}"))
        began = time.monotonic()
        caller("GET", f"/keys?limit=100&{filter}")
        took.append(time.monotonic() - began)
    caller.close()
    return {**figures, **spread("page_filtered", took)}


def lets_in(gateway, secret):
    try:
        wire = Wire(("127.0.0.1", gateway.port), timeout=10)
        try:
            return wire.request("GET", "/v1/models", {"X-Api-Key": secret, "Connection": "close"}).answer("GET").status == 200
        finally:
            wire.close()
    except (OSError, Cut):
        return False


def start_and_wait(gateway, secret):
    """From the start of the program to the first time that it lets the key in; asked every millisecond or so."""
    began = time.monotonic()
    gateway.spawn()
    wait_for(lambda: gateway.process.poll() is not None or lets_in(gateway, secret), 120, "a gateway that knows the key")
    if gateway.process.poll() is not None:
        raise SystemExit(f"the gateway ended: {gateway.errors[-2000:]}")
    return time.monotonic() - began


def measure_gateway(bench):
    """(g): a gateway that has never been there before, and the same again from its disk while the control plane is away."""
    secret = SECRET.format(bench.options.keys - 1)
    empty = bench.gateway_of_file()
    wait_for(lambda: lets_in(empty, "one-key"), 30)
    base = resident_bytes(empty.process.pid)
    empty.stop()
    figures = {"complete_s": [], "restart_s": []}
    for number in range(bench.options.gateways_tried):
        gateway = bench.gateway_to_be()
        figures["complete_s"].append(start_and_wait(gateway, secret))
        figures.setdefault("bytes_a_key_after_snapshot", (resident_bytes(gateway.process.pid) - base) / bench.options.keys)
        wait_for(lambda: bench.is_on_disk(gateway), 60, "the snapshot on the gateway's disk")
        bench.control.stop()
        for _ in range(3):
            gateway.kill()
            figures["restart_s"].append(start_and_wait(gateway, secret))
        figures["bytes_a_key_after_restart"] = (resident_bytes(gateway.process.pid) - base) / bench.options.keys
        bench.start_control()
        bench.wait_spool()
        if number + 1 < bench.options.gateways_tried:
            gateway.kill()
    bench.gateway = gateway
    return {"complete_s": max(figures["complete_s"]), "complete_all_s": figures["complete_s"],
            "restart_s": max(figures["restart_s"]), "restart_all_s": figures["restart_s"],
            "bytes_a_key": max(figures["bytes_a_key_after_snapshot"], figures["bytes_a_key_after_restart"]),
            "bytes_a_key_after_snapshot": figures["bytes_a_key_after_snapshot"],
            "bytes_a_key_after_restart": figures["bytes_a_key_after_restart"]}


def measure_delay(bench):
    """(d): what callers notice of changes that are applied to a million keys: two runs of each kind, in turns."""
    wait_for(lambda: lets_in(bench.gateway, SECRET.format(0)), 30)
    runs = {"quiet": [], "changing": []}
    body = bench.folder / "body.json"
    body.write_text(json.dumps({"model": "qwen3:32b", "messages": [{"role": "user", "content": "hi"}]}))
    command = [bench.programs / "bench_load", "requests", "--port", bench.gateway.port, "--path", "/v1/chat/completions", "--body", body,
               "--key", SECRET.format(1), "--expects", 200, "--connections", 16, "--rate", 500, "--warm-ms", 500,
               "--run-ms", int(bench.options.delay_s * 1000)]
    for _ in range(bench.options.delay_rounds):
        for kind in runs:
            over = threading.Event()
            changer = threading.Thread(target=change_until, args=(bench, over))
            if kind == "changing":
                changer.start()
            done = run(command, timeout=300, env=environment())
            over.set()
            if kind == "changing":
                changer.join()
            if done.returncode != 0:
                raise SystemExit(f"bench_load: {done.stderr}")
            runs[kind].append(json.loads(done.stdout))
    figures = {}
    for kind, said in runs.items():
        for name in ("p50_us", "p99_us", "p999_us"):
            figures[f"{kind}_{name}"] = statistics.median(each[name] for each in said)
        figures[f"{kind}_wrong"] = sum(each["wrong"] + each["broken"] for each in said)
        figures[f"{kind}_most_us"] = max(value for each in said for value, _ in each["latencies"])
    figures["added_p999_ms"] = (figures["changing_p999_us"] - figures["quiet_p999_us"]) / 1000
    return figures


def change_until(bench, over):
    """A new key every 50 ms."""
    caller, number = Caller(bench.admin), 0
    while not over.wait(0.05):
        number += 1
        caller("POST", "/keys", {"user": "changer", "name": f"c-{time.monotonic_ns()}", "create_user": True})
    caller.close()
    bench.changed = getattr(bench, "changed", 0) + number
