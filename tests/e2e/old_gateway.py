"""
A gateway of an older minor version, by what its build once sent: its frames are kept in tests/e2e/recorded, and with them
its qw.proto, which says what it can read. Only its Proof is made anew, since it signs a fresh nonce.

relay() is how they are recorded: a follower of that build comes through it, and each sort of question is kept once.
"""

import contextlib
import json
import pathlib
import re
import socket
import struct
import subprocess
import threading

RECORDED = pathlib.Path(__file__).parent / "recorded"
HINTS_FROM = 1000  # fields that may be overlooked wherever they stand
RESTRICTS = ("Changes", "Change", "Key", "Names", "Number", "Range", "Model", "Backend", "Setting", "Removed", "Envelope")


class Unreadable(Exception):
    """Its reader would have refused this."""


def read_schema(path):
    """{message: {tag: (name, type, repeated)}}, and the enums' values, of a qw.proto."""
    text = re.sub(r"//[^\n]*", "", path.read_text())
    messages, enums = {}, {}
    for name, body in re.findall(r"message (\w+) \{((?:[^{}]|\{[^{}]*\})*)\}", text):
        fields = re.findall(r"(repeated )?(\w+) (\w+) = (\d+);", body)
        messages[name] = {int(tag): (field, kind, bool(repeated)) for repeated, kind, field, tag in fields}
    for name, body in re.findall(r"enum (\w+) \{([^}]*)\}", text):
        enums[name] = {int(value) for value in re.findall(r"= (\d+);", body)}
    return messages, enums


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7f) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


class OldGateway:
    def __init__(self, port, version, folder):
        self.frames = {name: bytes.fromhex(frame) for name, frame in json.loads((RECORDED / f"{version}.json").read_text()).items()}
        self.messages, self.enums = read_schema(RECORDED / f"{version}.proto")
        self.version = tuple(int(part) for part in version.split("."))
        self.key = pathlib.Path(folder) / "old.pem"
        if not self.key.exists():
            self.openssl("genpkey", "-algorithm", "ed25519", "-out", self.key)
        public = self.openssl("pkey", "-in", self.key, "-pubout", "-outform", "DER")[-32:]
        self.frames["enrol"] = self.frames["enrol"][:-32] + public  # its private key was not recorded
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.sendall(b"\0SP\0\0\x30\0\0")
        assert self.exactly(8) == b"\0SP\0\0\x31\0\0"
        self.asked = 0

    @staticmethod
    def openssl(*arguments):
        return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True).stdout

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            assert more, "the connection was closed"
            data += more
        return data

    def ask(self, frame):
        """What its own reader makes of the answer."""
        self.asked += 1
        head = struct.pack(">I", 0x80000000 | self.asked)
        self.socket.sendall(struct.pack(">Q", 4 + len(frame)) + head + frame)
        length, = struct.unpack(">Q", self.exactly(8))
        answer = self.exactly(length)
        assert answer[:4] == head
        return self.read("Envelope", answer[4:])

    def send(self, name):
        return self.ask(self.frames[name])

    def read(self, message, data):
        """As strictly as the codec of that version: a restriction that it does not know is refused."""
        found, at = {}, 0
        while at < len(data):
            head, at = varint(data, at)
            tag, wire = head >> 3, head & 7
            if wire == 0:
                value, at = varint(data, at)
            else:
                assert wire == 2
                length, at = varint(data, at)
                value, at = data[at:at + length], at + length
            known = self.messages[message].get(tag)
            if known is None:
                if message in RESTRICTS and tag < HINTS_FROM:
                    raise Unreadable(f"field {tag} of a {message}")
                continue
            name, kind, repeated = known
            if kind in self.enums and value not in self.enums[kind]:
                raise Unreadable(f"{kind} {value} in a {message}")
            value = self.read(kind, value) if kind in self.messages else value
            if repeated:
                found.setdefault(name, []).append(value)
            else:
                found[name] = value
        return found

    def changes(self, update):
        return self.read("Changes", update.get("changes", b"")).get("change", [])

    def greet(self, how="hello"):
        challenge = self.send(how)["challenge"]
        control = challenge.get("version", {})
        numbers = (*self.version, *(control.get(part, 0) for part in ("major", "minor", "patch")))
        claim = b"qwen-link-1\0" + challenge["nonce"] + struct.pack(">6I", *numbers) + b"old"
        claim_file = self.key.with_suffix(".claim")
        claim_file.write_bytes(claim)
        signature = self.openssl("pkeyutl", "-sign", "-inkey", self.key, "-rawin", "-in", claim_file)
        return self.ask(b"\x1a" + bytes([len(signature) + 2]) + b"\x0a" + bytes([len(signature)]) + signature)

    def close(self):
        self.socket.close()


def relay(port, on_frame):
    """A port before that one; on_frame gets every question that passes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, sink, tells):
        data = b""
        with contextlib.suppress(OSError):
            while more := source.recv(65536):
                sink.sendall(more)
                data += more
                while tells and len(data) >= 16 and len(data) >= 16 + struct.unpack(">Q", data[8:16])[0]:
                    length, = struct.unpack(">Q", data[8:16])
                    on_frame(data[20:16 + length])
                    data = data[:8] + data[16 + length:]
        sink.close()

    def serve():
        while True:
            caller, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=pump, args=(caller, server, True), daemon=True).start()
            threading.Thread(target=pump, args=(server, caller, False), daemon=True).start()
    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]
