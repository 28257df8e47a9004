"""
Callers who vanish without a word, as when a cable is pulled: the model must not work for them for ever. A namespace of our own
stands for their machine; its link goes down while one of them reads a stream and another waits. Needs root, ip and nsenter.

    vanish.py
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time

from fake import Fake
from gateway import KEY, Gateway, chat_body
from processes import free_port, spawn
from wire import Wire, wait_for

HERE, THERE = "10.231.0.1", "10.231.0.2"
AT_MOST_S = 45  # three probes of ten seconds, or TCP_USER_TIMEOUT of thirty, and a timer of the kernel


def run(*words):
    subprocess.run([str(word) for word in words], check=True, stdin=subprocess.DEVNULL)


def other_machine(stack):
    """The process whose network is the other machine's, with a link between here and there."""
    holder = spawn(["unshare", "-n", "sleep", "600"])
    stack.callback(holder.kill)
    wait_for(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != os.readlink("/proc/self/ns/net"), 5, "the namespace")
    run("ip", "link", "add", "here", "type", "veth", "peer", "name", "there", "netns", holder.pid)
    run("ip", "address", "add", f"{HERE}/24", "dev", "here")
    run("ip", "link", "set", "here", "up")
    for words in (["address", "add", f"{THERE}/24", "dev", "there"], ["link", "set", "there", "up"]):
        run("nsenter", "-t", holder.pid, "-n", "ip", *words)
    return holder


def call(port, *content):
    """What runs on the other machine: asks, says when the answer has begun or the request is out, and stays."""
    wires = []
    for text in content:
        wire = Wire((HERE, port))
        wire.request("POST", "/v1/chat/completions", {"X-Api-Key": KEY}, chat_body(text, stream=True))
        wires.append(wire)
    wires[0].wait_until_bytes()
    print("asked", flush=True)
    time.sleep(600)


def main():
    if len(sys.argv) > 1:
        call(int(sys.argv[1]), "tokens:100000@50", "say:nothing")
    if os.environ.get("QG_VANISH") is None:  # in a network of our own, where nobody minds
        os.environ["QG_VANISH"] = "1"
        os.execvp("unshare", ["unshare", "-n", sys.executable, *sys.argv])
    run("ip", "link", "set", "lo", "up")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="qg-"))
        fake = Fake(folder, 0, "--num-ctx", "100000000")
        stack.callback(fake.stop)
        holder = other_machine(stack)
        gateway = Gateway(folder, fake.url, listen=f"{HERE}:{free_port()}", heartbeat_interval="1h", commit_after="1h")
        stack.callback(gateway.stop)
        fake.script(times=1, path="/api/chat").script(times=1, path="/api/chat", silent=True)
        callers = spawn(["nsenter", "-t", str(holder.pid), "-n", sys.executable, __file__, str(gateway.port)], stdout=subprocess.PIPE)
        stack.callback(callers.kill)
        assert callers.stdout.readline() == b"asked\n"
        fake.wait_chats(2)
        began = time.monotonic()
        run("nsenter", "-t", holder.pid, "-n", "ip", "link", "set", "there", "down")
        for count in (1, 2):
            fake.wait_chats(count, "aborted", AT_MOST_S)
            print(f"passed: {count} of 2 given up {time.monotonic() - began:.1f} s after the cable was pulled", flush=True)
        wait_for(lambda: gateway.metric("in_flight") == 0, 5)
    print("2 passed, 0 failed")


if __name__ == "__main__":
    main()
