"""What a process has in its memory. Needs root, or a process that may be traced."""

import re

MAP = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)$")
MAX_BYTES = 512 << 20


def writable_ranges(pid):
    """[(start, bytes, name)] of all memory that may be written."""
    found = []
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        for line in maps:
            start, end, rights, name = MAP.match(line).groups()
            if rights.startswith("rw"):
                found.append((int(start, 16), int(end, 16) - int(start, 16), name))
    return found


def find(pid, marks):
    """[(mark, where, surroundings)] of every mark that stands in the process's writable memory."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, size, name in writable_ranges(pid):
            assert size < MAX_BYTES, f"{name}: {size} bytes are too much to be looked through"
            memory.seek(start)
            content = b""
            while len(content) < size:
                piece = memory.read(size - len(content))
                if not piece:
                    break
                content += piece
            for mark in marks:
                for match in re.finditer(re.escape(mark), content):
                    at = match.start()
                    found.append((mark.decode(), f"{name or 'anonymous'}+{at:#x}", content[max(0, at - 60):at + 80]))
    return found
