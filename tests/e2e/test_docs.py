"""
What is written for people is held against the code: docs/api.md and README.md say every refusal, every field, every
limit and every default as the code has it, and every command and path that they name is there.
"""

import re
import shutil

import pytest

from gateway import PROGRAM
from processes import ROOT, run

API = (ROOT / "docs" / "api.md").read_text()
README = (ROOT / "README.md").read_text()
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text()
         for path in [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]}
SOURCES = {path.name: path.read_text() for path in (ROOT / "dataplane" / "dialect").glob("*.[ch]")}
BUILTINS = {"cd", "export"}


def cells(page):
    """Every row of every table of a page, as a list of cells."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")]
            for line in page.splitlines() if re.match(r"\|(?![-|]+$)", line)]


def without_fences(page):
    return re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)


def in_backticks(text):
    return re.findall(r"`(\S[^`\n]*)`", without_fences(text))


# Refusals -------------------------------------------------------------------------------------------------

def causes():
    """(status, type, code, heals) of every row of the table of causes."""
    table = (ROOT / "dataplane" / "refusal" / "refusal.h").read_text()
    found = re.findall(r'^    X\((\w+), (\d+), "(\w+)", "(\w+)", (true|false),', table, re.MULTILINE)
    assert len(found) == len(re.findall(r"^    X\(", table, re.MULTILINE)) > 20
    return {name: row for name, *row in found}


CAUSES = causes()


@pytest.mark.parametrize("cause", CAUSES)
def test_every_refusal_is_in_the_api_as_it_is(cause):
    status, kind, code, heals = CAUSES[cause]
    wanted = [status, f"`{code}`", f"`{kind}`", "yes" if heals == "true" else "no"]
    assert wanted in [row[:4] for row in cells(API)], f"docs/api.md has no row {wanted}"


@pytest.mark.parametrize("cause", CAUSES)
def test_every_refusal_is_in_the_readme(cause):
    status, _, code, _ = CAUSES[cause]
    assert any(status in row[0].split(", ") and code in in_backticks(row[1]) for row in cells(README) if len(row) > 2), \
        f"README's table has no {status} {code}"


def test_no_refusal_is_told_that_does_not_exist():
    known = {(status, code) for status, _, code, _ in CAUSES.values()}
    for row in cells(API):
        if len(row) == 5 and re.fullmatch(r"\d{3}", row[0]):
            assert (row[0], row[1].strip("`")) in known, row
    for row in cells(README):
        if re.match(r"\d{3}", row[0]):
            for code in in_backticks(row[1]):
                assert any((status, code) in known for status in row[0].split(", ")), row


# Fields ---------------------------------------------------------------------------------------------------

def fields():
    """{name: what the code says that it wants, or None} of every row of the dialect's tables of fields."""
    found = {}
    for name, source in SOURCES.items():
        if not name.endswith(".c"):
            continue
        for match in re.finditer(r'\bFIELD\("(\w+)",((?:[^()"]|\([^()]*\)|"[^"]*")*)\)', source):
            wanted = re.search(r'\.wanted = "([^"]*)"', match[2])
            found.setdefault(match[1], wanted and wanted[1])
        for match in re.finditer(r'\bNUMBER\((\w+), [^,]+, [^,]+, "([^"]*)"\)', source):
            found[match[1]] = f"a number {match[2]}"
    assert {"model", "messages", "role", "effort", "top_p", "arguments"} <= set(found)
    return found


FIELDS = fields()


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_that_is_read_is_in_the_api(field):
    assert any(field in re.findall(r"\w+", said) for said in in_backticks(API)), f"docs/api.md does not name `{field}`"


@pytest.mark.parametrize("field", [name for name, wanted in FIELDS.items() if wanted])
def test_what_a_field_takes_is_told_in_the_words_of_its_refusal(field):
    rows = [row for row in cells(API) if row[0] == f"`{field}`"]
    assert [row[1] for row in rows] == [FIELDS[field]]


def test_every_row_about_a_field_is_about_one_that_is_read():
    page = API.partition("## Asking a model")[2].partition("\n## ")[0]
    rows = [row for row in cells(page) if row[0].startswith("`") and not row[0].startswith("`{")]
    named = {name for row in rows for said in in_backticks(row[0]) for name in said.split(".")}
    words = {"file", "input_audio", "auto", "none", "required"} | {word for words in SOURCES.values()
                                                                   for word in re.findall(r'json_string_is\(\S+ "(\w+)"\)', words)}
    assert named - set(FIELDS) - words == set()


# Limits ---------------------------------------------------------------------------------------------------

LIMITS = {
    "CHAT_MAX_MESSAGES": ("dataplane/dialect/chat.h", "messages"), "CHAT_MAX_PARTS": ("dataplane/dialect/chat.h", "parts"),
    "CHAT_MAX_CALLS": ("dataplane/dialect/chat.h", "calls"), "CHAT_MAX_TOOLS": ("dataplane/dialect/chat.h", "tools"),
    "CHAT_MAX_STOPS": ("dataplane/dialect/chat.h", "stop strings"), "JSON_MAX_DEPTH": ("common/json/json.h", "deep"),
    "JSON_MAX_KEYS": ("common/json/json.h", "keys"), "HTTP_MAX_FIELDS": ("dataplane/http/http.h", "fields"),
    "LIMIT_MAX_PERSONS": ("dataplane/limit/limit.h", "names"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_the_codes_own(name):
    header, what = LIMITS[name]
    limit = re.search(rf"\b{name} = (\d+)", (ROOT / header).read_text())[1]
    assert re.search(rf"\b{limit} {what}\b", API.partition("## Limits")[2].replace(",", "")), f"{limit} {what}"


def settings():
    """{name without its section: default}"""
    return {row[0].strip("`").rpartition(".")[2]: row[1].strip("`")
            for row in cells(PAGES["docs/configuration.md"]) if len(row) == 5 and row[0].startswith("`")}


@pytest.mark.parametrize("name,default", re.findall(r"`(\w+)`, (\d+(?: [KMG]iB|m?s)?)\b", API.partition("## Limits")[2]))
def test_a_default_is_the_settings_own(name, default):
    assert settings()[name] == default


# Attacks --------------------------------------------------------------------------------------------------

SECURITY = PAGES["docs/security.md"]
NAMED = sorted(set(re.findall(r"`([\w/]+\.(?:py|c))::(\w+)`", SECURITY)))


def defined(file):
    """The tests that are in a file: of tests/unit where a folder is named, else of tests/e2e."""
    path = ROOT / "tests" / ("unit" if "/" in file else "e2e") / file
    pattern = r"^def (test_\w+)\(" if file.endswith(".py") else r"^TEST\((\w+)\)"
    return re.findall(pattern, path.read_text(), re.MULTILINE) if path.exists() else []


@pytest.mark.parametrize("file,name", NAMED)
def test_a_test_that_is_said_to_hold_an_attack_exists(file, name):
    assert name in defined(file), f"docs/security.md names {file}::{name}"


def test_every_attack_has_its_test():
    page = SECURITY.partition("\n## Attacks")[2]
    rows = [row for row in cells(page) if row[0] != "attack"]
    assert len(rows) > 40
    for row in rows:
        tests = in_backticks(row[2])
        assert len(row) == 3 and tests and all(re.fullmatch(r"[\w/]+\.(py|c)::\w+", test) for test in tests), row


# Commands and paths ---------------------------------------------------------------------------------------

NO_SHELL = re.compile(r"^(- |\S+:( |$)|\{|from \w+ import |import |data: |client = )|^\S+ \S+ \S+ req=|─")


def blocks(page):
    """Every block of code as lines: fenced ones that say sh, and indented ones that are nothing else."""
    for fence, body in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        if fence == "sh":
            yield body.splitlines()
    for block in re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", without_fences(page), re.MULTILINE):
        lines = [line[4:] for line in block.splitlines() if line.strip()]
        if not any(NO_SHELL.search(line) for line in lines):
            yield lines


def commands(page):
    """The first word of every command."""
    for lines in blocks(page):
        text = re.sub(r"\s#\s.*$", "", "\n".join(lines), flags=re.MULTILINE).replace("\\\n", " ")
        for line in text.splitlines():
            if not line.startswith(" "):
                yield from (part.split()[0] for part in re.split(r"&&|\|\||;|\|", re.sub(r"'[^']*'|\"[^\"]*\"", "x", line)))


def targets():
    """What the build puts into bin/."""
    lists = [path.read_text() for path in ROOT.rglob("CMakeLists.txt") if "build" not in path.relative_to(ROOT).parts]
    return {name for text in lists for name in re.findall(r"add_executable\(([\w-]+)", text)}


def exists(word):
    if match := re.fullmatch(r"(?:build/\w+/bin/)?([\w-]+)", word):
        if match[1] in targets():
            return True
    if "/" in word:
        path = ROOT / word
        return path.is_file() and bool(path.stat().st_mode & 0o100)
    return word in BUILTINS or shutil.which(word) is not None


COMMANDS = [(name, word) for name, page in PAGES.items() for word in commands(page)]


def test_commands_are_found_in_the_pages():
    assert {("README.md", "deploy/quickstart"), ("README.md", "cmake"), ("docs/api.md", "curl"),
            ("docs/configuration.md", "qwen-gateway")} <= set(COMMANDS)


@pytest.mark.parametrize("page,word", sorted(set(COMMANDS)))
def test_a_command_begins_with_something_that_exists(page, word):
    assert exists(word), f"{page} tells to run {word}"


@pytest.mark.parametrize("page", PAGES)
def test_paths_that_are_named_exist(page):
    for said in in_backticks(PAGES[page]):
        path = said.split()[0]
        folders = "tests|docs|deploy|cmake|common|dataplane|controlplane|migrations"
        if re.fullmatch(rf"({folders})/[\w./-]+", path) and not re.search("[A-Z]{3}", path):
            assert (ROOT / path).exists(), f"{page} names {path}"


def test_options_that_are_named_are_understood():
    understood = set(re.findall(r"--[a-z-]+", run([PROGRAM, "--help"]).stdout))
    named = {option for page in PAGES.values() for line in re.findall(r"qwen-gateway( [^\n`|]*)", page)
             for option in re.findall(r" (--[a-z-]+)", line)}
    assert named and named <= understood
