"""One HTTP/1.1 connection, byte by byte: sends what a test wants sent, however wrong, and reads answers strictly."""

import json
import socket
import struct
import time


class Answer:
    """One answer. `headers` keeps order and case; `pieces` are the chunks of a chunked body."""

    def __init__(self, status, reason, headers, request_method="POST"):
        self.status = status
        self.reason = reason
        self.headers = headers
        self.request_method = request_method
        self.body = b""
        self.pieces = []
        self.is_whole = False
        self.continued = False

    def __repr__(self):
        return f"<{self.status} {self.reason} {self.headers} {self.body[:600]!r}{'' if self.is_whole else ' (cut)'}>"

    def header(self, name):
        found = self.header_all(name)
        assert len(found) <= 1, f"{name} is there {len(found)} times"
        return found[0] if found else None

    def header_all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def text(self):
        return self.body.decode("utf-8")

    @property
    def json(self):
        return json.loads(self.text)

    @property
    def error(self):
        """The object of an OpenAI-shaped error; fails when the answer is none."""
        error = self.json["error"]
        assert isinstance(error, dict), f"not an error object: {self}"
        return error

    @property
    def code(self):
        return self.error["code"]

    # Server-sent events -----------------------------------------------------------------------------------

    @property
    def events(self):
        """Every event and comment in order, as text without its blank line. The last must be whole too."""
        text = self.text
        assert text == "" or text.endswith("\n\n"), f"half an event: {text[-200:]!r}"
        return text.split("\n\n")[:-1]

    @property
    def pings(self):
        return [event for event in self.events if event.startswith(":")]

    @property
    def data(self):
        found = []
        for event in self.events:
            if event.startswith(":"):
                continue
            assert event.startswith("data: ") and "\n" not in event, f"not one data line: {event!r}"
            found.append(event[len("data: "):])
        return found

    @property
    def is_done(self):
        return self.data[-1:] == ["[DONE]"]

    @property
    def chunks(self):
        return [json.loads(data) for data in self.data if data != "[DONE]"]

    @property
    def deltas(self):
        return [chunk["choices"][0]["delta"] for chunk in self.chunks if chunk.get("choices")]

    @property
    def content(self):
        """What was said, streamed or not."""
        if self.is_stream:
            return "".join(delta.get("content") or "" for delta in self.deltas)
        return self.json["choices"][0]["message"]["content"]

    @property
    def reasoning(self):
        if self.is_stream:
            return "".join(delta.get("reasoning") or "" for delta in self.deltas)
        return self.json["choices"][0]["message"].get("reasoning")

    @property
    def finish(self):
        if self.is_stream:
            said = [c["choices"][0]["finish_reason"] for c in self.chunks if c.get("choices")]
            said = [reason for reason in said if reason is not None]
            assert len(said) <= 1, f"finished {len(said)} times"
            return said[0] if said else None
        return self.json["choices"][0]["finish_reason"]

    @property
    def stream_error(self):
        """The error object that came in the stream, or None."""
        found = [chunk["error"] for chunk in self.chunks if "error" in chunk]
        assert len(found) <= 1
        return found[0] if found else None

    @property
    def is_stream(self):
        return (self.header("Content-Type") or "").startswith("text/event-stream")


class Cut(Exception):
    """The other side closed (or reset) before the answer was whole."""


class Wire:
    """A connection. `address` is (host, port) or the path of a unix socket; `source` an address to come from."""

    def __init__(self, address, source=None, timeout=15, receive_buffer=None, patience=60):
        self.ends_at = time.monotonic() + patience
        self.is_unix = isinstance(address, str)
        if self.is_unix:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            self.socket = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect(address)
        if not self.is_unix:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.read_ahead = b""
        self.sent_at = None

    # Writing ----------------------------------------------------------------------------------------------

    def send(self, *parts):
        for part in parts:
            self.socket.sendall(part.encode() if isinstance(part, str) else part)
        return self

    def send_as_far_as_possible(self, data):
        """True when all went out; False when the other side stopped reading for good."""
        try:
            self.socket.sendall(data)
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False

    def request(self, method, path, headers=(), body=None, host="gateway"):
        """Sends one well formed request. `body`: bytes, text, or anything else as JSON."""
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
        names = [name.lower() for name, _ in pairs(headers)]
        if body is not None:
            if "content-type" not in names:
                lines.append("Content-Type: application/json")
            if "content-length" not in names and "transfer-encoding" not in names:
                lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in pairs(headers)]
        self.send("\r\n".join(lines) + "\r\n\r\n" if body is None else
                  ("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        return self

    # Reading ----------------------------------------------------------------------------------------------

    def more(self):
        """Whatever comes next; b"" at the end. Heartbeats do not keep us waiting for ever."""
        if time.monotonic() > self.ends_at:
            raise TimeoutError("no end came")
        try:
            return self.socket.recv(65536)
        except ConnectionResetError:
            return b""

    def line(self):
        while b"\r\n" not in self.read_ahead:
            got = self.more()
            if not got:
                raise Cut(f"closed within a line: {self.read_ahead!r}")
            self.read_ahead += got
        line, _, self.read_ahead = self.read_ahead.partition(b"\r\n")
        return line

    def exactly(self, count, answer=None):
        taken = []
        have = 0
        while have < count:
            if not self.read_ahead:
                self.read_ahead = self.more()
                if not self.read_ahead:
                    if answer is not None:
                        answer.body += b"".join(taken)
                    raise Cut(f"closed {count - have} bytes too early")
            piece, self.read_ahead = self.read_ahead[:count - have], self.read_ahead[count - have:]
            taken.append(piece)
            have += len(piece)
        return b"".join(taken)

    def head(self, method="POST"):
        version, _, rest = self.line().partition(b" ")
        assert version == b"HTTP/1.1", version
        status, _, reason = rest.partition(b" ")
        headers = []
        while line := self.line():
            name, colon, value = line.partition(b":")
            assert colon and name.strip() == name, line
            headers.append((name.decode("latin-1"), value.strip().decode("latin-1")))
        return Answer(int(status), reason.decode(), headers, method)

    def answer(self, method="POST", may_be_cut=False):
        """Reads one answer whole, stepping over 100 Continue."""
        continued = False
        answer = self.head(method)
        while answer.status == 100:
            continued = True
            answer = self.head(method)
        answer.continued = continued
        try:
            self.body_of(answer)
            answer.is_whole = True
        except Cut:
            if not may_be_cut:
                raise
        return answer

    def body_of(self, answer):
        if answer.request_method == "HEAD" or answer.status in (204, 304):
            return
        if (answer.header("Transfer-Encoding") or "").lower() == "chunked":
            assert answer.header("Content-Length") is None
            while piece := self.chunk(answer):
                answer.pieces.append(piece)
                answer.body += piece
            return
        length = answer.header("Content-Length")
        if length is not None:
            answer.body = self.exactly(int(length), answer)
            return
        answer.body = self.until_closed()

    def chunk(self, answer=None):
        """The next chunk; b"" after the last (its trailers are read too)."""
        size = int(self.line(), 16)
        if size == 0:
            while self.line():
                pass
            return b""
        piece = self.exactly(size, answer)
        assert self.line() == b""
        return piece

    def until_closed(self):
        taken = [self.read_ahead]
        self.read_ahead = b""
        while got := self.more():
            taken.append(got)
        return b"".join(taken)

    def is_closed(self):
        """Waits for the other side's end; True when nothing more came before it."""
        return self.until_closed() == b""

    def wait_until_bytes(self):
        """Returns once something has come (it is kept)."""
        while not self.read_ahead:
            got = self.more()
            if not got:
                raise Cut("closed")
            self.read_ahead += got
        return self

    # Leaving ----------------------------------------------------------------------------------------------

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def close(self):
        self.socket.close()

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def pairs(headers):
    return list(headers.items()) if isinstance(headers, dict) else list(headers)


def chunked(*pieces):
    """A chunked body of these pieces."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def wait_for(fact, timeout=10, what="the fact"):
    """Returns the first true value of fact(), asked again and again."""
    deadline = time.monotonic() + timeout
    while True:
        found = fact()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come within {timeout} s")
        time.sleep(0.005)
