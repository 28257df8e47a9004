"""bench_gateways, asked: gateways without callers, of which one process holds a thousand."""

import json
import queue
import subprocess
import sys
import threading

from processes import environment, spawn

MODULUS = 1 << 64


class Simulated:
    def __init__(self, program, port, count, errors, prefix="sim-"):
        self.count = count
        self.process = spawn([program, f"tcp://127.0.0.1:{port}", count, prefix], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=errors, text=True, env=environment())
        self.keys = {}
        for line in self.process.stdout:
            if line == "ready\n":
                break
            _, name, key = line.split()
            self.keys[name] = key
        assert len(self.keys) == count, "bench_gateways did not begin"
        self.answers = queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            self.answers.put(json.loads(line))

    def register(self, database):
        """As if each had enrolled."""
        rows = ",".join(f"('{name}', decode('{key}', 'hex'))" for name, key in self.keys.items())
        database.sql(f"INSERT INTO qwen.gateway (name, public_key) VALUES {rows}")

    def ask(self, line, timeout=60):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answers.get(timeout=timeout)

    def open(self, timeout_s=60):
        self.ask("open")
        said = self.ask(f"up {self.count} {timeout_s * 1000}", timeout_s + 10)
        assert said["up"] == self.count, f"only {said['up']} of {self.count} are connected"

    def when(self, version, timeout_s=20):
        """When it had reached the first of them, half, 99 of 100 and all, in seconds of the monotonic clock."""
        said = self.ask(f"when {version} {int(timeout_s * 1000)}", timeout_s + 10)
        assert said["all_us"], f"only {said['reached']} of {self.count} have version {version}: {self.state()}"
        return {name[:-3]: value / 1e6 for name, value in said.items() if name.endswith("_us")}

    def state(self):
        return self.ask("state")

    def differences(self, database):
        """What they hold beside what the database says."""
        version = int(database.sql("SELECT version FROM qwen.config_head"))
        words = database.sql("SELECT count(*), coalesce(sum(('x' || encode(substr(hash, 1, 8), 'hex'))::bit(64)::bigint::numeric), 0)"
                             " FROM qwen.published_key").split("|")
        expected = {"version": version, "keys": int(words[0]), "sum": int(words[1]) % MODULUS, "gateways": self.count}
        state = self.state()
        return None if state["groups"] == [expected] and not state["faults"] else f"{state}, but expected {expected}"

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                print("bench_gateways does not end", file=sys.stderr)
                self.process.kill()
                self.process.wait()
