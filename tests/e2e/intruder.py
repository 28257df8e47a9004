"""Makes a thread of another process do a system call, as somebody who has broken into it would. x86_64, as root."""

import ctypes
import os

PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 12, 13, 17, 0x4206, 0x4207
WALL = 0x40000000
SYSCALL = b"\x0f\x05"
REGISTERS = ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base"
             " ds es fs gs").split()

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulong) for name in REGISTERS]


def ptrace(what, thread, address=None, data=None):
    if _libc.ptrace(what, thread, address, data) < 0:
        raise OSError(ctypes.get_errno(), f"ptrace {what}: {os.strerror(ctypes.get_errno())}")


def inject(process, thread, call, *arguments):
    """The thread must stand in a system call (in epoll_wait, say): it does this one instead, and goes on."""
    registers = Registers()
    ptrace(PTRACE_SEIZE, thread)
    ptrace(PTRACE_INTERRUPT, thread)
    os.waitpid(thread, WALL)
    ptrace(PTRACE_GETREGS, thread, None, ctypes.byref(registers))
    with open(f"/proc/{process}/mem", "rb") as memory:
        memory.seek(registers.rip - len(SYSCALL))
        assert memory.read(len(SYSCALL)) == SYSCALL
    registers.rip -= len(SYSCALL)
    registers.rax = call
    registers.orig_rax = ctypes.c_ulong(-1).value  # nothing is to be started again
    for name, value in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), arguments):
        setattr(registers, name, value)
    ptrace(PTRACE_SETREGS, thread, None, ctypes.byref(registers))
    ptrace(PTRACE_DETACH, thread)
