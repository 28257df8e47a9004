"""What a request that waits for a slot holds in memory: thousands of them, of many users, before a backend that is busy."""

import contextlib
import json
import socket

from contenders import KEY
from processes import resident_bytes
from sites import DELEGATE, GatewayFleet, stand_in

WAITING, USERS, WORKERS = 5000, 1000, 2
SETTINGS = {**DELEGATE, "workers": WORKERS, "head_timeout": "1h", "idle_timeout": "1h"}


def request_of(user, says, stream):
    """Its bytes, and how many of them are its body."""
    body = json.dumps({"model": "qwen3:32b", "messages": [{"role": "user", "content": says}], "stream": stream}).encode()
    return (f"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\nAuthorization: Bearer {KEY}\r\n"
            f"X-User-Id: user-{user}\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body, len(body)


def connect(stack, port, count):
    return [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(count)]


def fill(gateway, port, pid, prompt_bytes, count, users):
    """Bytes a caller, first connected only, then waiting; the body's own are told apart."""
    with contextlib.ExitStack() as stack:
        holder, = connect(stack, port, 1)
        holder.sendall(request_of("holder", "tokens:1000000@50", True)[0])
        holder.recv(1)
        before = resident_bytes(pid)
        wires = connect(stack, port, count)
        gateway.wait_until("connections_open", count + 1)
        connected = resident_bytes(pid)
        for number, wire in enumerate(wires):
            asked, body_bytes = request_of(number % users, "x" * prompt_bytes, number % 2 == 0)
            wire.sendall(asked)
        gateway.wait_until("queue_waiting", count)
        gateway.wait_until("queue_users_waiting", users)
        waiting = resident_bytes(pid)
    return {"connection": (connected - before) / count, "waiting": (waiting - connected) / count, "body": body_bytes}


def measure_waiting(bench, program, prompt_bytes, count=WAITING, users=USERS):
    """Each time with a gateway that has not served anybody else."""
    gateway = GatewayFleet("gateway", program, 1, **SETTINGS)
    with stand_in(bench, 1) as (backend_port, _), gateway.running(bench, gateway, [backend_port]) as (port, pid):
        return fill(gateway, port, pid, prompt_bytes, count, users)
