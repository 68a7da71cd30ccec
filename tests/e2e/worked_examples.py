"""Worked examples in the documentation, as tests that run what the page says.

An example is all blocks of one name, in the order of the page:

- a fenced block whose info string is `sh test:NAME` is run by bash, as a reader would run it. All blocks of an example
  are one script, so variables live on from one to the next. A command ends the example when it fails, unless its line
  ends with `# refused`: then it has to fail.
- a fenced block `text test:NAME` is output: each of its lines must occur in what the example has printed since the last
  such block, in this order. `...` in a line stands for anything.
- an HTML comment that starts with `<!-- test:NAME` is run like the first kind, and not shown to readers; one that starts
  with `<!-- config:NAME` is the server's configuration file.

A script finds `valv` and a server's data folder as a reader does who stands beside it (`valv-data`), the S3 clients of the
tests pointed at the server with its first access key, and an empty folder of its own.
"""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys

import harness

# One example is some twenty commands of at most a second each; a busy machine may take ten times that.
DEADLINE_S = 240

BLOCK = re.compile(
    r"^```(?P<kind>sh|text) +test:(?P<name>[\w-]+) *\n(?P<body>.*?)^```$"
    r"|^<!-- +(?P<hidden>test|config):(?P<hidden_name>[\w-]+) *\n(?P<hidden_body>.*?)^-->$",
    re.S | re.M,
)
REFUSED = re.compile(r"^(?P<command>.*\S)\s+# refused\s*$")
MARK = "----8<---- "


@dataclasses.dataclass
class Example:
    """The blocks of one name."""

    name: str
    config: str | None = None
    # ("run", commands) or ("output", lines), each with the line of the page where it starts.
    steps: list[tuple[str, str, int]] = dataclasses.field(default_factory=list)


def examples_of(text: str) -> dict[str, Example]:
    """The examples of a page by name, in the order in which they begin."""
    found: dict[str, Example] = {}
    for match in BLOCK.finditer(text):
        name = match["name"] or match["hidden_name"]
        example = found.setdefault(name, Example(name))
        line = text.count("\n", 0, match.start()) + 1
        if match["hidden"] == "config":
            example.config = match["hidden_body"]
        elif match["kind"] == "text":
            example.steps.append(("output", match["body"], line))
        else:
            example.steps.append(("run", match["body"] or match["hidden_body"], line))
    return found


def script_of(example: Example) -> str:
    """One bash script of all blocks; a mark in its output says where each begins."""
    parts = ["set -euo pipefail"]
    for index, (kind, body, line) in enumerate(example.steps):
        if kind != "run":
            continue
        parts.append(f"echo '{MARK}{index} line {line}'")
        # Commands that go on over several lines are one.
        for command in re.sub(r"[ \t]*\\\n[ \t]*", " ", body).splitlines():
            refused = REFUSED.match(command)
            if refused:
                command = refused["command"]
                parts.append(f"if {command}; then echo 'NOT REFUSED: line {line}'; exit 97; fi")
            else:
                parts.append(command)
    return "\n".join(parts) + "\n"


def outputs_of(text: str) -> dict[int, str]:
    """What each block printed, by its index."""
    outputs = {}
    for piece in text.split(MARK)[1:]:
        head, _, body = piece.partition("\n")
        outputs[int(head.split()[0])] = body
    return outputs


def missing_lines(wanted: str, output: str) -> list[str]:
    """Lines of `wanted` that don't occur in `output` in this order."""
    missing, at = [], 0
    for line in filter(None, (line.strip() for line in wanted.splitlines())):
        # Columns may be wider than on the page.
        pattern = r"[^\n]*".join(
            r"[ \t]+".join(map(re.escape, piece.split())) if piece.strip() else "" for piece in line.split("...")
        )
        found = re.compile(pattern).search(output, at)
        if found:
            at = found.end()
        else:
            missing.append(line)
    return missing


def run(example: Example, server, folder: pathlib.Path) -> str:
    """Runs an example against a server, checks its outputs, and returns all that it printed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "valv-data").symlink_to(server.data)
    programs = folder / ".programs"
    programs.mkdir()
    (programs / "valv").symlink_to(harness.binary())
    env = {
        **os.environ,
        **server.client_env(folder),
        "PATH": os.pathsep.join([str(programs), str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]),
        "NO_COLOR": "1",
    }
    done = subprocess.run(
        ["bash", "-c", script_of(example)],
        cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    assert done.returncode == 0, f"example {example.name} ended with {done.returncode}:\n{done.stdout}"
    outputs, since = outputs_of(done.stdout), ""
    for index, (kind, body, line) in enumerate(example.steps):
        if kind == "run":
            since += outputs.get(index, "")
            continue
        missing = missing_lines(body, since)
        assert not missing, f"example {example.name}, line {line}: not printed: {missing}\nprinted:\n{since}"
        since = ""
    return done.stdout
