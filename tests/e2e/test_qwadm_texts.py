"""
What qwadm says of itself: every --help, the page, the completions. They are made from one table, and kept as files so that a
change of the table is seen as the change of texts that it is: `QWADM_WRITE=1 tests/run test_qwadm_texts` writes them anew.
"""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

from admin import QWADM, Terminal
from processes import ROOT, environment, run

GOLDEN = ROOT / "tests" / "e2e" / "golden"


def kept(path, text):
    if os.environ.get("QWADM_WRITE"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text, f"{path.name} is not what qwadm says: QWADM_WRITE=1 tests/run test_qwadm_texts, and look at it"


def commands():
    """Every noun, and every noun with its verb, as bash is told."""
    script = run([QWADM, "completion", "bash"]).stdout
    found = re.findall(r'^    "([a-z-]+) ([a-z]*)"\*?\) flags\+=', script, re.MULTILINE)
    assert len(found) > 40
    return [(noun, verb) for noun, verb in found]


def test_every_help_is_as_it_was():
    texts = [run([QWADM, "--help"])]
    nouns = []
    for noun, verb in commands():
        if verb and noun not in nouns:
            nouns.append(noun)
            texts.append(run([QWADM, noun, "--help"]))
        texts.append(run([QWADM, *filter(None, (noun, verb)), "--help"]))
    assert all(done.returncode == 0 and done.stderr == "" for done in texts)
    for done in texts:
        lines = done.stdout.split("\nExample")[0].splitlines()
        assert max(map(len, lines)) <= 80 and "Example" in done.stdout, done.stdout
    kept(GOLDEN / "qwadm-help.txt", ("\n" + "=" * 80 + "\n").join(done.stdout for done in texts))


def test_the_page_is_as_it_was():
    page = run([QWADM, "--man-page"]).stdout
    kept(ROOT / "docs" / "qwadm.1", page)
    for noun, verb in commands():
        assert f'.SS "qwadm {" ".join(filter(None, (noun, verb)))}'.replace("-", "\\-") in page


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
def test_mandoc_finds_nothing_wrong_with_the_page():
    done = subprocess.run(["mandoc", "-Tlint", ROOT / "docs" / "qwadm.1"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not shutil.which("man"), reason="man is not installed")
def test_man_finds_nothing_wrong_with_the_page():
    done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", ROOT / "docs" / "qwadm.1"], capture_output=True, text=True, timeout=30,
                          env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "MANPAGER": "cat"})
    assert done.returncode == 0 and done.stderr == "" and "qwadm key create" in done.stdout


# Completion -----------------------------------------------------------------------------------------------------

LINES = [
    ("qwadm ", {"key", "user", "team", "whitelist", "model", "backend", "gateway", "admin-token", "audit", "status", "top", "login",
                "completion"}),
    ("qwadm k", {"key"}),
    ("qwadm key ", {"create", "list", "show", "update", "revoke", "rotate", "import"}),
    ("qwadm key re", {"revoke"}),
    ("qwadm -o json key re", {"revoke"}),
    ("qwadm key revoke --c", {"--cut", "--config", "--color", "--ca-file"}),
    ("qwadm key list --state ", {"active", "revoked", "expired"}),
    ("qwadm key list -o c", {"csv"}),
    ("qwadm key list --output=c", {"csv"}),
    ("qwadm backend update gpu1 --no", {"--note", "--no-drain"}),
    ("qwadm completion ", {"bash", "zsh"}),
    ("qwadm key create --user ", set()),
    ("qwadm admin-token create x --role o", {"operator", "owner"}),
]


def bash_completes(line, folder):
    words = re.findall(r"[^\s=]+|=", line) + ([""] if line.endswith(" ") else [])
    script = """
        source <("$1" completion bash)
        COMP_WORDS=("${@:3}") COMP_CWORD=$(($# - 3)) COMP_LINE=$2 COMP_POINT=${#2}
        _qwadm
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(["bash", "-euc", "compopt() { :; }\n" + script, "bash", str(QWADM), line, *words], cwd=folder,
                          capture_output=True, text=True, timeout=30, env=environment())
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("line,wanted", LINES)
def test_bash_completes(line, wanted, folder):
    assert bash_completes(line, folder) == wanted


@pytest.mark.parametrize("line", ["qwadm key import ", "qwadm key list --token-file ", "qwadm key import x.csv --out "])
def test_bash_completes_files(line, folder):
    pathlib.Path(folder, "people.csv").write_text("")
    assert bash_completes(line, folder) == {"people.csv"}


TYPED = [("qwadm gate\ten\tgw1 --no\tx", "gateway enroll gw1 --note x"), ("qwadm comp\tb\t", "completion bash"),
         ("qwadm key list --state rev\t", "key list --state revoked"), ("qwadm key import peo\t", "key import people.csv")]


def completes(shell, typed, wanted):
    """What the shell runs once that was typed: its qwadm says what it was given."""
    try:
        shell.wait_for("ready> ")
        for part in re.split(r"(?<=\t)", typed + "\n"):
            shell.type(part)
        shell.wait_for(f"given: {wanted}")
    finally:
        shell.close()


@pytest.mark.parametrize("typed,wanted", TYPED)
def test_an_interactive_bash_completes(folder, typed, wanted):
    pathlib.Path(folder, "people.csv").write_text("")
    pathlib.Path(folder, "rc").write_text(f"PS1='ready> '\nsource <({QWADM} completion bash)\nqwadm() {{ echo given: $*; }}\n")
    env = environment({"TERM": "dumb", "HOME": folder})
    completes(Terminal(["bash", "--noprofile", "--rcfile", "rc", "-i"], env, cwd=folder), typed, wanted)


ZSH = shutil.which("zsh")


@pytest.mark.skipif(not ZSH, reason="zsh is not installed")
@pytest.mark.parametrize("typed,wanted", TYPED)
def test_an_interactive_zsh_completes(folder, typed, wanted):
    pathlib.Path(folder, "people.csv").write_text("")
    pathlib.Path(folder, ".zshrc").write_text(
        f"PS1='ready> '\nautoload -Uz compinit && compinit -u\nsource <({QWADM} completion zsh)\nunsetopt beep\n"
        "qwadm() { echo given: $* }\n")
    env = environment({"TERM": "dumb", "HOME": folder, "ZDOTDIR": folder})
    completes(Terminal([ZSH, "-i"], env, columns=200, cwd=folder), typed, wanted)


def test_zsh_scripts_parse(folder):
    path = pathlib.Path(folder, "_qwadm")
    path.write_text(run([QWADM, "completion", "zsh"]).stdout)
    assert path.read_text().startswith("#compdef qwadm\n")
    if ZSH:
        done = subprocess.run([ZSH, "-n", path], capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
