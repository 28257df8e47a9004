"""The build draws the arrows between rooms: a header of a room that is not named is not found."""

import json
import shlex
import subprocess

import pytest

from processes import BIN, ROOT

LISTS = """\
cmake_minimum_required(VERSION 3.22)
project(arrows LANGUAGES C)
include("{root}/cmake/room.cmake")
room(rooms/deep)
room(rooms/known KNOWS deep)
room(rooms/other)
room(rooms/story KNOWS {knows})
"""
DOOR = "#pragma once\nint {name}_answer(void);\n"
ROOM = "#include \"{name}.h\"\n{more}int {name}_answer(void)\n{{\n    return 1;\n}}\n"


def build(folder, includes, knows):
    """Builds four rooms, of which `story` includes these headers and names those rooms."""
    for name in ("deep", "known", "other", "story"):
        room = folder / "rooms" / name
        room.mkdir(parents=True)
        more = "".join(f'#include "{header}.h"\n' for header in includes) if name == "story" else ""
        (room / f"{name}.h").write_text(DOOR.format(name=name))
        (room / f"{name}.c").write_text(ROOM.format(name=name, more=more))
    (folder / "CMakeLists.txt").write_text(LISTS.format(root=ROOT, knows=" ".join(knows)))
    subprocess.run(["cmake", "-S", folder, "-B", folder / "build", "-G", "Ninja"], check=True, capture_output=True)
    return subprocess.run(["cmake", "--build", folder / "build"], capture_output=True, text=True)


def test_a_named_room_is_seen(tmp_path):
    done = build(tmp_path, ["known", "other"], ["known", "other"])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("header", ["other", "deep"])
def test_a_room_that_is_not_named_is_no_such_file(tmp_path, header):
    """Not even when a named room knows it."""
    done = build(tmp_path, ["known", header], ["known"])
    assert done.returncode != 0
    assert f"{header}.h: No such file" in done.stdout


RULES = [
    ("common/text/text.c", "snapshot.h", "common has never heard of a key"),
    ("dataplane/http/http.c", "dialect.h", "HTTP has never heard of a chat"),
    ("dataplane/dialect/dialect.c", "kind.h", "a dialect has never heard of an engine"),
    ("dataplane/limit/limit.c", "snapshot.h", "limits know numbers, not files"),
    ("controlplane/migrate/migrate.c", "snapshot.h", "the planes never include each other"),
    ("controlplane/store/store.c", "migrate.h", "the store has never heard of a table"),
    ("controlplane/migrate/migrate.c", "conf.h", "what migrates has never heard of a file of settings"),
    ("proto/codec/codec.c", "snapshot.h", "messages have never heard of a gateway"),
]


@pytest.mark.parametrize("source,header,_", RULES, ids=[why for _, _, why in RULES])
def test_a_wrong_arrow_in_this_house_does_not_compile(tmp_path, source, header, _):
    """Takes the very compile command of that room and adds the include."""
    commands = json.loads((BIN.parent / "compile_commands.json").read_text())
    room = source.rpartition("/")[0]
    entry = next(entry for entry in commands if entry["file"].startswith(f"{ROOT}/{room}/"))
    command = shlex.split(entry["command"])
    command = command[:command.index("-o")] + ["-fsyntax-only"]

    def compiled(included):
        source_file = tmp_path / "tried.c"
        source_file.write_text(f'#include "{included}"\n')
        return subprocess.run([*command, source_file], cwd=entry["directory"], capture_output=True, text=True)
    done = compiled(header)
    assert done.returncode != 0 and f"{header}: No such file" in done.stderr
    done = compiled(f"{room.rpartition('/')[2]}.h")
    assert done.returncode == 0, done.stderr
