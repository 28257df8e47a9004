"""The stand-in Ollama, as the tests hold it: scripts its answers, asks what it received, waits for what happens."""

import base64
import http.client
import json
import os
import pathlib
import select
import signal

from processes import BIN, ROOT, environment, spawn
from wire import wait_for

PROGRAM = BIN / "fake-ollama"
TRANSCRIPTS = ROOT / "tests" / "fakes" / "ollama-transcripts"


class Fake:
    def __init__(self, folder, port=0, *arguments):
        self.errors_path = pathlib.Path(folder) / "fake-ollama.err"
        self.arguments = arguments
        self.process = None
        self.port = port
        self.start()

    def start(self):
        """Starts it, on the same port when it ran before."""
        with open(self.errors_path, "ab") as errors:
            self.process = spawn([PROGRAM, "--listen", f"127.0.0.1:{self.port}", "--control", "127.0.0.1:0", "--quiet",
                                  "--transcripts", TRANSCRIPTS, *self.arguments], stdout=-1, stderr=errors, env=environment())
        ready, _, _ = select.select([self.process.stdout], [], [], 20)
        line = self.process.stdout.readline().decode().split() if ready else []
        assert line[:1] == ["listening"], f"fake-ollama did not start: {line} {self.errors_path.read_text()}"
        self.port = int(line[1].rpartition(":")[2])
        self.control_port = int(line[3].rpartition(":")[2])

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method, path, body=None, timeout=30):
        connection = http.client.HTTPConnection("127.0.0.1", self.control_port, timeout=timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        finally:
            connection.close()
        assert answer.status == 200, f"{method} {path} {body}: {answer.status} {text}"
        return json.loads(text) if text.strip() else None

    # What it shall do -------------------------------------------------------------------------------------

    def script(self, times=1, path="/api/chat", **do):
        """The next `times` requests on that path are answered so (0: until reset)."""
        self.ask("POST", "/script", {"path": path, "times": times, "do": do})
        return self

    def script_raw(self, answer, keep=False, **more):
        """The next chat gets these very bytes."""
        return self.script(raw=base64.b64encode(answer).decode(), keep=keep, **more)

    def script_lines(self, *lines, **more):
        """The next chat gets these lines of NDJSON: text goes out as it is, anything else as JSON."""
        return self.script(lines=[line if isinstance(line, str) else compact(line) for line in lines], **more)

    def set(self, **what):
        self.ask("POST", "/set", what)
        return self

    def reset(self):
        self.ask("POST", "/reset", {})

    # What it saw ------------------------------------------------------------------------------------------

    def seen(self, path="/api/chat"):
        return [request for request in self.ask("GET", "/seen")["requests"] if path is None or request["path"] == path]

    @property
    def body(self):
        """The JSON of the last chat request that came."""
        seen = self.seen()
        assert seen, "no chat request came"
        return seen[-1]["body_json"]

    def stats(self):
        return self.ask("GET", "/stats")

    def wait_chats(self, count=1, outcome=None, timeout=10):
        """Returns the chats once there are `count` of them (with that outcome)."""
        def there():
            chats = [chat for chat in self.seen() if outcome is None or chat["outcome"] == outcome]
            return chats if len(chats) >= count else None
        return wait_for(there, timeout, f"{count} chats {outcome or 'received'}")

    def wait_running(self, count, timeout=10):
        return wait_for(lambda: self.stats()["running"] == count, timeout, f"{count} running")

    # Its end ----------------------------------------------------------------------------------------------

    def kill(self):
        """Dies at once, as a crashed Ollama does: its port refuses connections."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def freeze(self):
        """Stopped for sure: the signal takes effect a moment after it is sent."""
        os.kill(self.process.pid, signal.SIGSTOP)
        tasks = f"/proc/{self.process.pid}/task"
        wait_for(lambda: all(open(f"{tasks}/{task}/stat").read().rpartition(")")[2].split()[0] == "T"
                             for task in os.listdir(tasks)), 5, "the stand-in's stop")

    def thaw(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self):
        if self.process.poll() is None:
            self.thaw()
            self.process.terminate()
            self.process.wait(10)
        if not self.process.stdout.closed:
            self.process.stdout.close()
        said = self.errors_path.read_text(errors="replace")
        assert "Sanitizer" not in said and "runtime error:" not in said, said


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def line(content="", done=False, **more):
    """One line as Ollama streams it: extra message fields (thinking, tool_calls) and top ones go where they belong."""
    message = {"role": "assistant", "content": content}
    for field in ("thinking", "tool_calls", "images"):
        if field in more:
            message[field] = more.pop(field)
    return {"model": "qwen3:32b", "created_at": "2026-11-22T14:17:11.721074599Z", "message": message, "done": done, **more}


def last_line(content="", reason="stop", prompt=22, produced=17, **more):
    return line(content, True, done_reason=reason, total_duration=274636817, load_duration=992511,
                prompt_eval_count=prompt, prompt_eval_duration=8394000, eval_count=produced, eval_duration=260531999,
                **more)


def call(name="get_weather", arguments=None, index=0, id="call_0a5ztg28"):
    return {"id": id, "function": {"index": index, "name": name, "arguments": arguments or {"city": "Paris"}}}
