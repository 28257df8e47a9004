"""
qwadm, and a server that answers it as a test says: not qwen-control, but what may stand where that should be. It is slow, it
hangs up, it redirects, it sends what nobody asked for. What it is asked is kept for the test to look at.
"""

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import socketserver
import struct
import subprocess
import termios
import threading
from http.server import BaseHTTPRequestHandler

from processes import BIN, environment, run, spawn
from wire import wait_for

QWADM = BIN / "qwadm"
TOKEN = "qat_" + "0" * 43


def command(server, *arguments, token=TOKEN, folder=None, environ=None, timeout=30, **options):
    """Runs qwadm to its end, with no settings but these."""
    env = environment({"QWADM_SERVER": server, "HOME": str(folder or "/nonexistent"), "TERM": "xterm"})
    for name in ("XDG_CONFIG_HOME", "NO_COLOR", "QWADM_TOKEN", "QWADM_OUTPUT", "http_proxy", "https_proxy"):
        env.pop(name, None)
    if token:
        env["QWADM_TOKEN"] = token
    env.update(environ or {})
    stdin = options.pop("stdin", None)
    if stdin is None:
        return run([QWADM, *arguments], env=env, timeout=timeout, **options)
    return subprocess.run([str(QWADM), *map(str, arguments)], input=stdin, env=env, timeout=timeout, capture_output=True, text=True,
                          **options)


class Answer:
    """What a rule gives: JSON with a status, or bytes as they are."""
    def __init__(self, status=200, body=None, raw=None, headers=(), before=None, kind="application/json"):
        self.status, self.body, self.raw, self.headers, self.before, self.kind = status, body, raw, dict(headers), before, kind


def problem(status, code, detail, errors=()):
    return Answer(status, {"type": "about:blank", "title": "refused", "status": status, "detail": detail, "code": code,
                           "request_id": "abc", "errors": list(errors)}, kind="application/problem+json")


class Server:
    def __init__(self, socket=None):
        self.asked, self.rules, self.hold = [], {}, threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def address_string(self):
                return "local"

            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                outer.asked.append({"method": self.command, "path": self.path, "headers": dict(self.headers),
                                    "body": json.loads(body) if body else None})
                answer = outer.find(self.command, self.path)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.send(answer)

            def send(self, answer):
                if answer.before:
                    answer.before()
                if answer.raw is not None:
                    self.wfile.write(answer.raw)
                    self.close_connection = True
                    return
                body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.kind)
                self.send_header("Content-Length", str(len(body)))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = answer

        class Tcp(socketserver.ThreadingTCPServer):
            daemon_threads, block_on_close = True, False

            def handle_error(self, *_):
                pass

        class Unix(socketserver.ThreadingUnixStreamServer):
            daemon_threads, block_on_close = True, False

            def handle_error(self, *_):
                pass

        self.server = Unix(socket, Handler) if socket else Tcp(("127.0.0.1", 0), Handler)
        self.url = f"unix:{socket}" if socket else f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def on(self, method, path, *answers):
        """What is answered to this path (without its query), one after the other, the last again and again."""
        self.rules[method, path] = list(answers)

    def find(self, method, path):
        answers = self.rules.get((method, path.partition("?")[0]))
        if not answers:
            return problem(404, "not_found", "there is nothing at this path")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return answer() if callable(answer) else answer

    def command(self, *arguments, **options):
        return command(self.url, *arguments, **options)

    def close(self):
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


class Terminal:
    """A program with a terminal of its own, of so many columns and lines."""
    def __init__(self, arguments, env, columns=80, lines=24, cwd=None):
        self.master, slave = pty.openpty()
        self.resize(columns, lines)
        self.before = termios.tcgetattr(slave)
        self.output = b""

        def take():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        self.process = spawn(arguments, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=cwd, preexec_fn=take)
        self.slave = slave

    def resize(self, columns, lines):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self, timeout=0.05):
        while select.select([self.master], [], [], timeout)[0]:
            try:
                more = os.read(self.master, 65536)
            except OSError:
                return
            if not more:
                return
            self.output += more
            timeout = 0

    def wait_for(self, text, timeout=20):
        """Until it has written that; gives everything since the start."""
        text = text.encode() if isinstance(text, str) else text

        def has_come():
            self.read()
            return text in self.output
        wait_for(has_come, timeout)
        return self.output

    def type(self, text):
        os.write(self.master, text.encode())

    def end(self, timeout=20):
        """Waits for its end; the status."""
        def has_ended():
            self.read()
            return self.process.poll() is not None
        wait_for(has_ended, timeout)
        self.read()
        return self.process.returncode

    def settings(self):
        return termios.tcgetattr(self.slave)

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
        os.close(self.master)
        os.close(self.slave)


def screen_of(output, columns=80, lines=24):
    """What a terminal shows after these bytes: as much of one as qwadm uses, and nothing else is allowed."""
    cells, row, column, at = [[" "] * columns for _ in range(lines)], 0, 0, 0
    text = output.decode()
    while at < len(text):
        c = text[at]
        if c == "\x1b":
            end = at + 2
            while not text[end].isalpha():
                end += 1
            code, arguments = text[end], text[at + 2:end]
            assert text[at + 1] == "[", repr(text[at:end + 1])
            if code == "H":
                row = column = 0
            elif code == "K":
                cells[row][column:] = [" "] * (columns - column)
            elif code == "J":
                cells[row][column:] = [" "] * (columns - column)
                for below in range(0 if arguments == "2" else row + 1, lines):
                    cells[below] = [" "] * columns
            else:
                assert code in "mhl", repr(text[at:end + 1])
            at = end + 1
            continue
        if c == "\r":
            column = 0
        elif c == "\n":
            row += 1
            assert row < lines, "it scrolls"
        else:
            assert column < columns, f"a line is longer than the screen: {''.join(cells[row])}"
            cells[row][column] = c
            column += 1
        at += 1
    return ["".join(line).rstrip() for line in cells]
