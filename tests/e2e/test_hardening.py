"""
What is installed, held against those who get further than they should: the binary, its memory, its rights. Runs against
the build that is installed (`tests/run hardened`), since sanitizers keep freed memory and need more rights.
"""

import json
import os
import pathlib
import platform
import re
import resource
import signal
import socket
import subprocess
import threading

import pytest

import intruder
import memory
from fake import call, last_line, line
from gateway import PROGRAM, chat_body
from processes import free_port
from wire import chunked, wait_for

BUILT_WITH = PROGRAM.read_bytes()
pytestmark = [pytest.mark.hardened,
              pytest.mark.skipif(b"__asan_init" in BUILT_WITH or b"__tsan_init" in BUILT_WITH, reason="tests/run hardened runs it")]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can look into another process")
is_x86 = platform.machine() == "x86_64"


# The binary ---------------------------------------------------------------------------------------------------

def tool(*arguments):
    return subprocess.run([*arguments, str(PROGRAM)], check=True, capture_output=True, text=True, timeout=60).stdout


def dynamic():
    return tool("readelf", "-dW")


def imported():
    return set(re.findall(r" UND (\w+)", tool("readelf", "--dyn-syms", "-W")))


def test_it_may_lie_anywhere_in_memory():
    assert re.search(r"Type:\s+DYN", tool("readelf", "-hW"))
    assert "PIE" in dynamic()


def test_what_the_linker_fills_in_is_filled_in_at_start_and_then_read_only():
    assert "BIND_NOW" in dynamic() and re.search(r"Flags:.*NOW", dynamic())
    assert "GNU_RELRO" in tool("readelf", "-lW")


def test_no_memory_is_both_written_and_executed():
    segments = re.findall(r"^  (\w+) +0x.* ([R ][W ][E ]) 0x", tool("readelf", "-lW"), re.MULTILINE)
    assert ("GNU_STACK", "RW ") in segments
    assert [name for name, rights in segments if "W" in rights and "E" in rights] == []


def test_libraries_come_from_the_systems_places_only():
    assert "RUNPATH" not in dynamic() and "RPATH" not in dynamic()


def test_what_overruns_is_noticed():
    names = imported()
    assert "__stack_chk_fail" in names
    assert {"__memcpy_chk", "__vsnprintf_chk", "__explicit_bzero_chk"} <= names


def test_large_frames_are_entered_page_by_page():
    """What -fstack-clash-protection leaves: a probe of each page, `orq $0x0,(%rsp)`, in main.c's 64 KiB and its like."""
    if not is_x86:
        pytest.skip("read for x86_64 only")
    assert re.search(r"\borq +\$0x0,", tool("objdump", "-d", "--no-show-raw-insn", "-j", ".text"))


@pytest.mark.parametrize("function", ["main", "worker_start", "on_metrics", "client_write"])
def test_functions_are_marked_as_targets_of_jumps(function):
    mark = {"x86_64": "endbr64", "aarch64": "(bti|paciasp)"}.get(platform.machine())
    if not mark:
        pytest.skip("this processor has no such marks")
    text = tool("objdump", "-d", "--no-show-raw-insn", f"--disassemble={function}")
    assert re.search(rf"<{function}>:\n +[0-9a-f]+:\t{mark}", text), text[:2000]


# The process --------------------------------------------------------------------------------------------------

def threads_of(gateway):
    """[{name: value}] of /proc/PID/task/*/status."""
    found = []
    for path in pathlib.Path(f"/proc/{gateway.process.pid}/task").glob("*/status"):
        found.append(dict(line.split(":", 1) for line in path.read_text().splitlines()))
    return [{name: value.strip() for name, value in thread.items()} for thread in found]


def test_every_thread_is_under_the_filter(start_gateway):
    gateway = start_gateway(workers=3)
    assert gateway.chat().status == 200
    threads = threads_of(gateway)
    assert len(threads) >= 5  # control, log, workers
    assert {thread["Seccomp"] for thread in threads} == {"2"}
    assert {thread["NoNewPrivs"] for thread in threads} == {"1"}


def test_calls_may_be_watched_or_free(start_gateway):
    watched = start_gateway(seccomp="log")
    watched.wait_log("seccomp is log")
    assert watched.chat().status == 200
    assert {thread["Seccomp"] for thread in threads_of(watched)} == {"2"}
    free = start_gateway(seccomp="none")
    assert {thread["Seccomp"] for thread in threads_of(free)} == {"0"}
    assert {thread["NoNewPrivs"] for thread in threads_of(free)} == {"1"}


SYSTEM_CALLS = {"execve": 59, "ptrace": 101, "setuid": 105}  # of x86_64


@needs_root
@pytest.mark.skipif(not is_x86, reason="registers are named for x86_64 only")
@pytest.mark.parametrize("call_name", SYSTEM_CALLS)
@pytest.mark.parametrize("who", ["control", "worker"])
def test_whoever_has_broken_in_ends_the_process(start_gateway, who, call_name):
    """A thread is made to do what only an attack does."""
    gateway = start_gateway(workers=1)
    gateway.ends_well = False
    process = gateway.process.pid
    newest = max(int(thread["Pid"]) for thread in threads_of(gateway))
    intruder.inject(process, process if who == "control" else newest, SYSTEM_CALLS[call_name], 0, 0, 0)
    assert gateway.wait_exit() == -signal.SIGSYS


def test_nothing_is_dumped(start_gateway):
    gateway = start_gateway(core_dumps=None)
    soft, hard = resource.prlimit(gateway.process.pid, resource.RLIMIT_CORE)
    assert (soft, hard) == (0, 0)
    assert os.stat(f"/proc/{gateway.process.pid}/mem").st_uid == 0  # whose it is says that it cannot be dumped
    gateway.ends_well = False
    gateway.signal(signal.SIGABRT)
    assert gateway.wait_exit() == -signal.SIGABRT
    assert not list(gateway.folder.glob("core*"))


@needs_root
def test_root_gives_up_everything_for_the_user(start_gateway, folder):
    os.chmod(folder, 0o777)
    gateway = start_gateway(user="nobody", log_file=f"{folder}/access.log", operator_listen=f"127.0.0.1:{free_port()}")
    assert gateway.line_of(gateway.chat())["status"] == "200"
    for thread in threads_of(gateway):
        assert set(thread["Uid"].split()) == {"65534"} and set(thread["Gid"].split()) == {"65534"}
        assert set(thread["Groups"].split()) <= {"65534"}
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(thread[name], 16) == 0, name
    assert os.stat(gateway.log_path).st_uid == 65534
    assert os.stat(f"/proc/{gateway.process.pid}/mem").st_uid == 0


@needs_root
def test_the_user_can_open_its_log_again(start_gateway, folder):
    os.chmod(folder, 0o777)
    gateway = start_gateway(user="nobody", log_file=f"{folder}/access.log", operator_listen=f"127.0.0.1:{free_port()}")
    first = gateway.chat()
    gateway.line_of(first)
    moved = gateway.log_path.rename(gateway.log_path.with_suffix(".1"))
    gateway.signal(signal.SIGUSR1)
    wait_for(gateway.log_path.exists)
    gateway.line_of(gateway.chat())
    gateway.log_path.write_text(moved.read_text() + gateway.log_path.read_text())  # so that the books balance


# Under the filter a reload may still name hosts ---------------------------------------------------------------

def test_a_reload_may_name_a_new_backend(start_gateway, start_fake):
    gateway = start_gateway()
    for host in ("127.0.0.1", "localhost"):
        other = start_fake()
        other.script_lines(last_line(f"from {host}"))
        gateway.write_config(ollama_api=f"http://{host}:{other.port}")
        gateway.signal(signal.SIGHUP)
        wait_for(lambda: gateway.chat().content == f"from {host}", what=host)  # the first may come before the reload does


class NameServer:
    """Answers every question for an address with 127.0.0.1, at port 53 of a loopback address of its own."""

    def __init__(self):
        self.asked = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for attempt in range(50):
            self.address = f"127.{os.getpid() % 250 + 1}.{os.getpid() // 250 % 250}.{attempt + 2}"
            try:
                self.socket.bind((self.address, 53))
                break
            except OSError:
                continue
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            question, who = self.socket.recvfrom(4096)
            if not question:
                return
            end = question.index(b"\0", 12) + 5
            kind = int.from_bytes(question[end - 4:end - 2], "big")
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4\x7f\0\0\1" if kind == 1 else b""
            self.asked.append(question[12:end - 5])
            self.socket.sendto(question[:2] + b"\x81\x80\0\1" + (b"\0\1" if answer else b"\0\0") + b"\0\0\0\0"
                               + question[12:end] + answer, who)

    def stop(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", (self.address, 53))
        self.thread.join()
        self.socket.close()


def can_have_mounts_of_its_own():
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


MODULE = """
#include <errno.h>
#include <nss.h>
#include <stdint.h>
#include <string.h>

/* As in the C library's nss.h of 2.34, which older ones keep to themselves. */
struct tuple { struct tuple *next; char *name; int family; uint32_t addr[4]; uint32_t scopeid; };

enum nss_status _nss_qgtest_gethostbyname4_r(const char *name, struct tuple **ret, char *buffer, size_t bytes, int *error,
                                             int *h_error, int32_t *ttl)
{
    struct tuple *tuple = (struct tuple *)(((uintptr_t)buffer + 15) & ~(uintptr_t)15);
    static char shown[] = "ollama.qg-module";

    (void)ttl;
    if (strcmp(name, shown) != 0 || bytes < sizeof *tuple + 16)
        return *error = ENOENT, *h_error = 1, NSS_STATUS_NOTFOUND;
    if (*ret)
        tuple = *ret;
    *tuple = (struct tuple){ .name = shown, .family = 2, .addr = { 0x0100007f } };
    *ret = tuple;
    return NSS_STATUS_SUCCESS;
}
"""


@needs_root
@pytest.mark.parametrize("host", ["ollama.qg-dns.example", "ollama.qg-module"])
def test_a_reload_may_name_a_backend_that_dns_or_a_module_of_the_resolver_knows(start_gateway, start_fake, folder, host):
    """The module is code: it is there before the filter, which lets none be loaded."""
    if not can_have_mounts_of_its_own():
        pytest.skip("no mount namespaces here")
    server = NameServer()
    try:
        resolver, order, module = (pathlib.Path(folder) / name for name in ("resolv.conf", "nsswitch.conf", "module.c"))
        resolver.write_text(f"nameserver {server.address}\noptions timeout:1 attempts:1\n")
        order.write_text("passwd: files\n  hosts:\tfiles qgtest [!SUCCESS=continue TRYAGAIN=continue] dns\n")
        module.write_text(MODULE)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", f"{folder}/libnss_qgtest.so.2", module], check=True)
        mounts = f"mount --bind {resolver} /etc/resolv.conf && mount --bind {order} /etc/nsswitch.conf"
        gateway = start_gateway(shell_wrap=f'exec unshare -m /bin/bash -c \'{mounts} && exec "$0" "$@"\' "$0" "$@"',
                                environment_extra={"LD_LIBRARY_PATH": folder})
        other = start_fake()
        other.script_lines(last_line("from afar"), times=0)
        gateway.write_config(ollama_api=f"http://{host}:{other.port}")
        gateway.signal(signal.SIGHUP)
        wait_for(lambda: gateway.chat().content == "from afar")
        assert any(host.split(".")[1].encode() in question for question in server.asked) == ("dns" in host)
        assert {thread["Seccomp"] for thread in threads_of(gateway)} == {"2"}
    finally:
        server.stop()


# Keys, prompts and answers ------------------------------------------------------------------------------------

KEY, WRONG_KEY = "right-key-hK7wPz2rTq", "wrong-key-Lm3vQx8sYd"
PROMPT, ANSWER = "prompt mark jR9tYcWz", "answer mark bN5sWdKp"
MARKS = [mark[-10:].encode() for mark in (KEY, WRONG_KEY, PROMPT, ANSWER)]
CHAT = "/v1/chat/completions"


def body_of(content=PROMPT, **fields):
    return json.dumps(chat_body(content, **fields)).encode()


def ask(gateway, content=PROMPT, **fields):
    return gateway.call("POST", CHAT, body_of(content, **fields), key=KEY, may_be_cut=True)


def stream_lines(content=ANSWER, **more):
    return [line(content), line(content * 2, thinking=content), last_line(content, **more)]


def in_one_piece(gateway, fake):
    fake.script_lines(last_line(ANSWER))
    assert ANSWER in ask(gateway).content


def key_in_its_own_header(gateway, fake):
    fake.script_lines(last_line(ANSWER))
    assert gateway.call("POST", CHAT, body_of(), {"X-Api-Key": KEY}, key=None).status == 200


def in_many_pieces(gateway, fake):
    fake.script_lines(last_line(ANSWER * 2000), split=3000)
    wire = gateway.wire()
    body = body_of(PROMPT * 1500)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {KEY}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    wire.send(head[:-20])
    for at in range(0, len(body), 5000):
        wire.send((head[-20:] if at == 0 else b"") + body[at:at + 5000])
    assert wire.answer().status == 200


def large(gateway, fake):
    fake.script_lines(last_line(ANSWER * 40000))
    assert ask(gateway, messages=[{"role": "system", "content": PROMPT * 6000}]).status == 200


def in_chunks(gateway, fake):
    fake.script_lines(last_line(ANSWER))
    body = body_of(PROMPT * 1500)
    pieces = [body[at:at + 700] for at in range(0, len(body), 700)]
    answer = gateway.call("POST", CHAT, chunked(*pieces), {"Transfer-Encoding": "chunked"}, key=KEY)
    assert answer.status == 200


def with_escapes(gateway, fake):
    fake.script_lines(last_line(f'\n"{ANSWER}\u20ac\U0001f600\\'))
    assert ask(gateway, f'\n"\u20ac\U0001f600{PROMPT}\\\t').status == 200


def streamed(gateway, fake):
    fake.script_lines(*stream_lines())
    assert ask(gateway, stream=True).is_done


def streamed_in_splinters(gateway, fake):
    fake.script_lines(*stream_lines(ANSWER * 300), split=997)
    assert ask(gateway, stream=True).is_done


def head_and_answer_in_splinters(gateway, fake):
    body = b'{"message":{"content":"%s","role":"assistant"},"done":true}\n' % ANSWER.encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n" % len(body)
    for stream in (True, None):
        fake.script_raw(head + body, split=len(head) - 10, split_ms=30)
        assert ANSWER in ask(gateway, stream=stream).text


def with_tools(gateway, fake):
    tool = {"type": "function", "function": {"name": "get", "description": PROMPT, "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": PROMPT}}}}}
    for stream in (True, None):
        fake.script_lines(line("", tool_calls=[call("get", {"city": ANSWER})]) if stream else last_line(
            "", tool_calls=[call("get", {"city": ANSWER})]), *([last_line()] if stream else []))
        assert ask(gateway, tools=[tool], stream=stream).status == 200


def with_a_schema(gateway, fake):
    fake.script_lines(last_line(json.dumps({"a": ANSWER})))
    schema = {"type": "object", "properties": {"a": {"type": "string", "description": PROMPT}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert ask(gateway, response_format=wanted).status == 200


def with_logprobs(gateway, fake):
    said = [{"token": ANSWER, "logprob": -0.1, "bytes": list(ANSWER.encode()), "top_logprobs": [
        {"token": ANSWER, "logprob": -0.1, "bytes": list(ANSWER.encode())}]}]
    fake.script_lines(last_line(ANSWER, logprobs=said))
    assert ask(gateway, logprobs=True, top_logprobs=1).status == 200


def one_behind_the_other(gateway, fake):
    fake.script_lines(last_line(ANSWER), times=2)
    body = body_of()
    one = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    wire = gateway.wire().send(one + one)
    assert [wire.answer().status for _ in range(2)] == [200, 200]


def to_a_slow_reader(gateway, fake):
    fake.script_lines(*[line(ANSWER * 500) for _ in range(60)], last_line(ANSWER))
    wire = gateway.open_chat(PROMPT, key=KEY, stream=True, receive_buffer=4096)
    fake.wait_chats(1, "answered")
    assert wire.answer().is_done


def a_wrong_key(gateway, fake):
    del fake
    for headers, key in (({}, WRONG_KEY), ({"X-Api-Key": WRONG_KEY}, None)):
        assert gateway.call("POST", CHAT, body_of(), headers, key).status == 401


def a_model_that_is_not_there(gateway, fake):
    del fake
    assert ask(gateway, model="no-such-model").status == 404


def too_long(gateway, fake):
    del fake
    assert ask(gateway, PROMPT * 2000).code == "context_length_exceeded"


def broken_json(gateway, fake):
    del fake
    for body in (body_of()[:-2], b'{"model": "%s", "messages": "%s"}' % (PROMPT.encode(), PROMPT.encode()),
                 b'{"%s": 1}' % PROMPT.encode(), body_of(temperature=PROMPT), body_of(messages=[{"role": PROMPT}])):
        assert gateway.call("POST", CHAT, body, key=KEY).status in (400, 404)


def broken_http(gateway, fake):
    del fake
    wire = gateway.wire().send(f"POST {CHAT} HTTP/1.1\r\nX-Api-Key: {KEY}\r\n{PROMPT}\r\n\r\n")
    assert wire.answer().status == 400


def a_backend_that_fails(gateway, fake):
    fake.script(status=500, body={"error": ANSWER})
    assert ask(gateway).status >= 400
    fake.script(error_after_tokens={"n": 1, "text": ANSWER}, tokens=3)
    ask(gateway, stream=True)
    fake.script_lines(*stream_lines(), hangup_after_bytes=400)
    ask(gateway, stream=True)
    fake.script_lines(ANSWER, ANSWER)
    ask(gateway, stream=True)


def left_in_the_midst_of_asking(gateway, fake):
    del fake
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {KEY}\r\n"
    for how in ("close", "reset"):
        for sent in (head, f"{head}Content-Length: 100000\r\n\r\n{PROMPT}",
                     f"{head}Transfer-Encoding: chunked\r\n\r\n14\r\n{PROMPT}\r\n"):
            wire = gateway.wire().send(sent)
            wait_for(lambda: gateway.metric("connections_open") == 1)
            getattr(wire, how)()
            wait_for(lambda: gateway.metric("connections_open") == 0)


def left_in_the_midst_of_an_answer(gateway, fake):
    for how in ("close", "reset"):
        fake.script_lines(*[line(ANSWER) for _ in range(1000)], token_ms=5)
        wire = gateway.open_chat(PROMPT, key=KEY, stream=True)
        wire.head()
        wire.chunk()
        getattr(wire, how)()


SCENES = [in_one_piece, key_in_its_own_header, in_many_pieces, large, in_chunks, with_escapes, streamed, streamed_in_splinters,
          head_and_answer_in_splinters,
          with_tools, with_a_schema, with_logprobs, one_behind_the_other, to_a_slow_reader, a_wrong_key,
          a_model_that_is_not_there, too_long, broken_json, broken_http, a_backend_that_fails, left_in_the_midst_of_asking,
          left_in_the_midst_of_an_answer]


@needs_root
@pytest.mark.parametrize("scene", SCENES, ids=[scene.__name__ for scene in SCENES])
def test_nothing_that_was_said_stays_in_memory(start_gateway, fake, scene):
    """Not even while the connection to the backend is kept. What the kernel holds is the kernel's affair."""
    gateway = start_gateway(workers=1, auth={"valid_keys": [KEY]}, log_level="debug")
    scene(gateway, fake)
    gateway.close_wires()
    wait_for(lambda: gateway.metric("connections_open") == 0 and gateway.metric("in_flight") == 0)
    assert memory.find(gateway.process.pid, MARKS) == []
