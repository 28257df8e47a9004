"""The rounds of tests/chaos/run."""

import contextlib
import hashlib
import http.client
import pathlib
import queue
import random
import shutil
import subprocess
import tempfile
import threading
import time

import cuts
from fake import Fake
from operators import Ledger, Operator
from pair import HOME, Pair, freeze, thaw
from postgres import Cluster
from processes import REPORTS
from wire import Cut, Wire, wait_for

CATCH_UP_S, HEAL_S, BACK_S, END_S = 10, 2, 15, 20
SOURCES = [f"127.0.1.{number}" for number in range(1, 21)]
OLD_KEYS = 300  # of earlier rounds, looked at again in each


def ask(gateway, secret, timeout=5, source=None):
    """The status that a caller with that key gets, or why there is none."""
    try:
        wire = Wire(("127.0.0.1", gateway.port), source, timeout=timeout)
    except OSError:
        return "away"
    try:
        wire.request("GET", "/v1/models", {"Authorization": f"Bearer {secret}", "Connection": "close"})
        return wire.answer("GET").status
    except (OSError, Cut):
        return "silent"
    finally:
        wire.close()


def threads_of(process):
    """Where its threads stand, as far as somebody is there who can tell."""
    if shutil.which("gdb"):
        told = subprocess.run(["gdb", "-p", str(process.pid), "-batch", "-ex", "thread apply all bt 12"], capture_output=True, text=True)
        return "\n".join(line for line in told.stdout.splitlines() if line[:1] == "#" or line.startswith("Thread"))
    tasks = pathlib.Path(f"/proc/{process.pid}/task")
    return " ".join(f"{task.name}:{(task / 'wchan').read_text()}" for task in tasks.iterdir())


class Caller(threading.Thread):
    """Asks gateways with keys of all kinds, above all with those that must be shut out."""

    def __init__(self, chaos, seed):
        super().__init__(daemon=True)
        self.chaos, self.random = chaos, random.Random(seed)

    def run(self):
        while not self.chaos.is_over.is_set():
            gateway = self.random.choice(self.chaos.pair.gateways)
            self.random.choice((self.ask_steady, self.ask_any, self.ask_any, self.ask_any))(gateway)
            time.sleep(0.002)

    def ask_steady(self, gateway):
        """Who holds the key that nobody touches is served by a gateway that is up, whatever happens to the others."""
        before = self.chaos.upset[gateway.name]
        status = ask(gateway, self.chaos.steady, timeout=10)
        if before % 2 == 0 and self.chaos.upset[gateway.name] == before and status != 200:
            self.chaos.ledger.blame(f"{gateway.name} is up and says {status} to a key that is good")

    def ask_any(self, gateway):
        ledger = self.chaos.ledger
        with ledger.lock:
            shut = [secret for name, secret in list(ledger.shut)[-100:] if name == gateway.name]
            others = list(ledger.secrets)[-100:]
        secret = self.random.choice(shut if shut and self.random.random() < 0.6 else [*others, "nobody"])
        since, began = ledger.shut.get((gateway.name, secret)), time.monotonic()
        status = ask(gateway, secret)
        ledger.count(f"callers told {status}")
        if status == 200 and secret == "nobody":
            ledger.blame(f"{gateway.name} accepts a key that nobody was given")
        if status == 200 and since is not None and since < began:
            ledger.count("seconds after which the revoked key was accepted", round(began - since, 3))
            ledger.blame(f"{gateway.name} accepts a key {secret[:13]} that it has confirmed to be revoked")


class Chaos:
    def __init__(self, stack, options):
        self.options, self.ledger = options, Ledger()
        self.is_over = threading.Event()
        self.starts = queue.Queue()
        self.upset = {}  # by gateway: odd while something is done to it
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qg-")))
        folder.chmod(0o711)
        fake, cluster, pair = (folder / name for name in ("fake", "cluster", "pair"))
        for each in (fake, cluster, pair):
            each.mkdir()
        if options.cut == "nft":
            cuts.own_network()
        self.fake = Fake(fake)
        stack.callback(self.fake.stop)
        self.cluster = Cluster(cluster)
        stack.callback(self.cluster.stop)
        self.pair = Pair(stack, pair, self.cluster.database(), self.fake, gateways=0)
        self.cut = (cuts.Nft if options.cut == "nft" else cuts.Relays)(self.pair.control.link_port)
        stack.callback(self.cut.close)
        for number in range(1, options.gateways + 1):
            gateway = self.pair.add_gateway(control={"url": self.cut.url(number)})
            self.upset[gateway.name] = 0
            gateway.ends_well = False  # its books end with kill -9
        self.pair.control.ends_well = True
        self.pair.admin("POST", "/whitelist", {"cidr": HOME})
        self.steady = self.pair.create_key("steady", "steady")[0]["secret"]
        self.pair.wait_applied()
        self.random = random.Random(options.seed)
        self.operators = [Operator(f"op{number}", self.pair.admin, self.ledger, threading.Event(), options.seed + number)
                          for number in range(1, 4)]

    # Starting ---------------------------------------------------------------------------------------------

    def start(self, how):
        """Whoever is started ends with the thread that starts him; so it is the main thread that does. Returns when it is done."""
        done = queue.Queue()
        self.starts.put((how, done))
        if error := done.get():
            raise error

    def start_what_is_wanted(self, threads):
        """For as long as one of them goes on."""
        while any(thread.is_alive() for thread in threads):
            with contextlib.suppress(queue.Empty):
                how, done = self.starts.get(timeout=0.05)
                try:
                    how()
                    done.put(None)
                except (AssertionError, OSError) as error:
                    done.put(error)

    def end(self, name, process):
        """As an operator does; it must go well."""
        process.terminate()
        try:
            if status := process.wait(END_S):
                self.ledger.blame(f"{name} ended with {status} on SIGTERM")
        except subprocess.TimeoutExpired:
            self.ledger.blame(f"{name} does not end within {END_S} s of SIGTERM: {threads_of(process)}")
            process.kill()
            process.wait()

    # Faults of gateways, one at a time --------------------------------------------------------------------

    @contextlib.contextmanager
    def upsetting(self, gateway):
        """What it says meanwhile is not counted against it; but afterwards it must be there again, by itself."""
        self.upset[gateway.name] += 1
        try:
            yield
            try:
                wait_for(lambda: ask(gateway, self.steady) == 200, BACK_S)
            except AssertionError:
                self.ledger.blame(f"{gateway.name} does not serve {BACK_S} s after its start: {gateway.errors[-2000:]}")
        finally:
            self.upset[gateway.name] += 1

    def kill_gateway(self, chance):
        gateway = chance.choice(self.pair.gateways)
        with self.upsetting(gateway):
            gateway.kill()
            time.sleep(chance.uniform(0, 0.5))
            self.start(gateway.spawn)

    def restart_gateway(self, chance):
        gateway = chance.choice(self.pair.gateways)
        with self.upsetting(gateway):
            self.end(gateway.name, gateway.process)
            self.start(gateway.spawn)

    def freeze_gateway(self, chance):
        gateway = chance.choice(self.pair.gateways)
        with self.upsetting(gateway):
            freeze(gateway.process)
            time.sleep(chance.uniform(0.1, self.options.seconds / 3))
            thaw(gateway.process)

    def part_gateways(self, chance):
        numbers = range(1, len(self.pair.gateways) + 1)
        self.cut.cut(chance.sample(numbers, chance.randint(1, len(numbers))), chance.choice(cuts.HOW))
        time.sleep(chance.uniform(0.2, self.options.seconds / 2))
        self.cut.heal()

    # Faults of the control plane and its database, one at a time ------------------------------------------

    def kill_control(self, chance):
        self.pair.control.kill()
        time.sleep(chance.uniform(0, 0.8))
        self.start(self.pair.control.start)

    def restart_control(self, chance):
        self.end("qwen-control", self.pair.control.process)
        self.start(self.pair.control.start)

    def freeze_control(self, chance):
        freeze(self.pair.control.process)
        time.sleep(chance.uniform(0.1, self.options.seconds / 3))
        thaw(self.pair.control.process)

    def kill_postgres(self, chance):
        self.cluster.crash()
        time.sleep(chance.uniform(0, 0.8))
        self.start(self.cluster.start)

    def restart_postgres(self, chance):
        self.cluster.stop()
        self.start(self.cluster.start)

    def freeze_postgres(self, chance):
        with self.cluster.frozen():
            time.sleep(chance.uniform(0.1, self.options.seconds / 3))

    def lanes(self):
        return ((self.kill_gateway, self.restart_gateway, self.freeze_gateway, self.part_gateways),
                (self.kill_control, self.restart_control, self.freeze_control, self.kill_postgres, self.restart_postgres,
                 self.freeze_postgres))

    def upset_all(self, faults, seed, until):
        chance = random.Random(seed)
        while time.monotonic() < until:
            fault = chance.choice(faults)
            self.ledger.count(fault.__name__.replace("_", " "))
            try:
                fault(chance)
            except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
                self.ledger.blame(f"{fault.__name__}: {error!r}")
            time.sleep(chance.uniform(0, 0.4))

    # A round ----------------------------------------------------------------------------------------------

    def play(self, number):
        faults_before = len(self.ledger.blames)
        healed_s = self.part_all() if number == 1 or not self.options.short else None
        over = threading.Event()
        operators = [Operator(each.who, each.admin, each.ledger, over, self.random.random()) for each in self.operators]
        for old, new in zip(self.operators, operators):
            new.keys, new.made = old.keys, old.made
        self.operators = operators
        until = time.monotonic() + self.options.seconds
        lanes = [threading.Thread(target=self.upset_all, args=(faults, self.random.random(), until)) for faults in self.lanes()]
        for thread in (*operators, *lanes):
            thread.start()
        self.start_what_is_wanted(lanes)
        over.set()
        for operator in operators:
            operator.join()
        began = time.monotonic()
        self.settle()
        settled_s = time.monotonic() - began
        self.check_words()
        looked_at = self.compare(began - self.options.seconds - BACK_S)
        healed = f", partition caught up after {healed_s:.2f} s" if healed_s is not None else ""
        print(f"round {number}: version {self.pair.head()}, {looked_at} keys looked at on each gateway, all there after {settled_s:.2f} s"
              f"{healed}; {len(self.ledger.blames) - faults_before} broken promises", flush=True)

    def part_all(self):
        """Everybody is cut off while things change. Gives how long after healing all have caught up."""
        self.cut.cut(range(1, len(self.pair.gateways) + 1))
        time.sleep(self.random.uniform(1.6, 3))
        made = [self.pair.create_key(f"parted-{self.random.random():.9f}", "parted")[0]["secret"] for _ in range(3)]
        for gateway in self.pair.gateways:
            if (status := ask(gateway, self.steady)) != 200:
                self.ledger.blame(f"{gateway.name} is cut off and says {status} to a key that is good")
            if (status := ask(gateway, made[-1])) != 401:
                self.ledger.blame(f"{gateway.name} is cut off and yet says {status} to a key that is new")
        self.cut.heal()
        began = time.monotonic()
        with contextlib.suppress(AssertionError):
            wait_for(lambda: all(ask(gateway, made[-1]) == 200 for gateway in self.pair.gateways), CATCH_UP_S)
        took_s = time.monotonic() - began
        if took_s > HEAL_S * self.options.patience:
            self.ledger.blame(f"caught up only {took_s:.2f} s after the partition was healed")
        return took_s

    def settle(self):
        try:
            self.pair.wait_applied(timeout=CATCH_UP_S * self.options.patience)
        except AssertionError as error:
            said = "no answer"
            with contextlib.suppress(OSError, http.client.HTTPException):
                said = self.pair.admin.ask("GET", f"/admin/v1/confirmations/{self.pair.head()}?wait=0s")
            self.ledger.blame(f"not settled: {error}: {said}")

    # The comparison ---------------------------------------------------------------------------------------

    def compare(self, since):
        truth = self.pair.truth()
        with self.ledger.lock:
            recent = [secret for secret, heard in self.ledger.secrets.items() if heard >= since]
            old = [secret for secret, heard in self.ledger.secrets.items() if heard < since]
        looked_at = [*recent, *self.random.sample(old, min(OLD_KEYS, len(old))), self.steady]
        for gateway in self.pair.gateways:
            for what in self.differences(gateway, truth, looked_at):
                self.ledger.blame(f"{gateway.name} differs from the database: {what}")
        self.check_acknowledged()
        return len(looked_at)

    def differences(self, gateway, truth, secrets):
        found, shown = [], {}
        wire = Wire(("127.0.0.1", gateway.port))
        try:
            for secret in secrets:
                answer = wire.request("GET", "/v1/models", {"Authorization": f"Bearer {secret}"}).answer("GET")
                shown[secret] = sorted(model["id"] for model in answer.json["data"]) if answer.status == 200 else answer.status
        finally:
            wire.close()
        all_models = shown[self.steady]
        for secret, seen in shown.items():
            name, digest = secret[:13], hashlib.sha256(secret.encode()).hexdigest()
            if (digest in truth["keys"]) != isinstance(seen, list):
                found.append(f"key {name} is {'' if digest in truth['keys'] else 'not '}good, but is told {seen}")
            elif isinstance(seen, list) and truth["keys"][digest] is not None:
                may = sorted(set(truth["keys"][digest]) & set(all_models))
                if seen != may:
                    found.append(f"key {name} may use {may}, but is shown {seen}")
        wanted = [model for model in truth["models"] if model not in all_models]
        if wanted:
            found.append(f"models {wanted} are not there, only {all_models}")
        stale = [model for model in all_models if model[:1] == "m" and model[1:2] in "123" and model not in truth["models"]]
        if stale:
            found.append(f"models {stale} are there no more, but shown")
        for source in SOURCES:
            seen = ask(gateway, self.steady, source=source)
            if (f"{source}/32" in truth["ranges"]) != (seen == 200):
                found.append(f"whitelist {truth['ranges']}, but {source} meets {seen}")
        return found

    def check_acknowledged(self):
        """What the API has said is so in the database."""
        states = dict(line.split("|") for line in
                      self.pair.database.sql("SELECT encode(hash, 'hex'), state FROM qwen.api_key").splitlines())
        with self.ledger.lock:
            wrong = [(secret[:13], said, states.get(hashlib.sha256(secret.encode()).hexdigest()))
                     for secret, said in self.ledger.acknowledged.items()
                     if states.get(hashlib.sha256(secret.encode()).hexdigest()) != said]
        for name, said, there in wrong:
            self.ledger.blame(f"the API said that key {name} is {said}, the database that it is {there}")

    def check_words(self):
        for name, part in [("qwen-control", self.pair.control), *((gateway.name, gateway) for gateway in self.pair.gateways)]:
            if part.process.poll() is not None:
                self.ledger.blame(f"{name} has ended by itself with {part.process.returncode}: {part.errors[-2000:]}")
            if any(report in part.errors for report in REPORTS):
                self.ledger.blame(f"{name}: {part.errors[-6000:]}")


def play(options):
    print(f"seed {options.seed}, {options.rounds} rounds of {options.seconds:g} s, {options.gateways} gateways, "
          f"partitions by {options.cut}", flush=True)
    with contextlib.ExitStack() as stack:
        chaos = Chaos(stack, options)
        callers = [Caller(chaos, options.seed + number) for number in range(2)]
        for caller in callers:
            caller.start()
        try:
            for number in range(1, options.rounds + 1):
                try:
                    chaos.play(number)
                except (AssertionError, OSError, http.client.HTTPException) as error:
                    chaos.ledger.blame(f"round {number} came to no end: {error!r}")
                    chaos.check_words()
                if len(chaos.ledger.blames) > 20:
                    break
        finally:
            chaos.is_over.set()
            for caller in callers:
                caller.join(20)
    for what, number in sorted(chaos.ledger.counts.items()):
        print(f"  {number:6} {what}")
    for blame, number in list(chaos.ledger.blames.items())[:50]:
        print(f"BROKEN{f' {number} times' if number > 1 else ''}: {blame}")
    print(f"{options.rounds if not chaos.ledger.blames else 0} passed, {len(chaos.ledger.blames)} failed")
    return 1 if chaos.ledger.blames else 0
