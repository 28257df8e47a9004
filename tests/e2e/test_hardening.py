"""
What is installed, held against those who get further than they should: the binary, its memory, its rights. Runs against
the build that is installed (`tests/run hardened`), since sanitizers keep freed memory and need more rights.
"""

import os
import platform
import re
import subprocess

import pytest

from gateway import PROGRAM

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
