"""Fails where README.md or a page of docs/ says something about commands and files that is not so.

    readme_test.py PROGRAM REPOSITORY

In ```bash blocks and in `code`: subcommands and options of kvanalyze exist (PROGRAM --help says which), models are
known, scripts exist and those that are called can be, paths into the repository lead somewhere.
"""
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

PROGRAM, ROOT = sys.argv[1], pathlib.Path(sys.argv[2])
PAGES = [ROOT / name for name in ("README.md", "HACKING.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").rglob("*.md"))
# What programs make, ours and others': not in the repository.
MADE = {"build", "kvanalyze-report", "images", "plots", "capture", "monitoring_data", "experiment_results"}
PATH = re.compile(r"[\w.*-]+(?:/[\w.*-]*)+|[A-Z]+\.md")


def help_of(*subcommand):
    return subprocess.run([PROGRAM, *subcommand, "--help"], capture_output=True, text=True, check=True).stdout


def options_in(text):
    """`  -m,--model TEXT ...` -> {-m, --model}"""
    return {name for line in re.findall(r"^  (-\S+)", text, re.M) for name in line.split(",")}


MAIN_HELP = help_of()
SUBCOMMANDS = re.findall(r"^  ([a-z][a-z-]*) ", MAIN_HELP.split("Subcommands:\n")[1].split("\n\n")[0], re.M)
OPTIONS = {None: options_in(MAIN_HELP), **{name: options_in(help_of(name)) for name in SUBCOMMANDS}}
MODELS = json.loads((ROOT / "scripts/models.json").read_text())["models"]


def commands_in(text):
    """Lists of words, one a command; those that a shell could not read are no commands."""
    for line in text.replace("\\\n", " ").splitlines():
        try:
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split, lexer.commenters = True, "#"
            words = list(lexer)
        except ValueError:
            continue
        command = []
        for word in words + ["|"]:
            if re.fullmatch(r"[|&;()<>]+", word):
                if command:
                    yield command
                command = []
            else:
                command.append(word)


def problems_of_kvanalyze(words):
    subcommand = None
    if words and not words[0].startswith("-") and not words[0].isupper():
        subcommand = words[0]
        if subcommand not in SUBCOMMANDS:
            yield f"kvanalyze has no command {subcommand}"
            return
    for word, value in zip(words, words[1:] + [""]):
        option = word.split("=")[0]
        if re.fullmatch(r"--?[a-z][\w-]*", option) and option not in OPTIONS[subcommand]:
            yield f"kvanalyze {subcommand or ''} has no option {option}"
        if option == "--model" and re.fullmatch(r"[a-z][\w.-]*", value) and value not in MODELS:
            yield f"scripts/models.json has no model {value}"


def problems_of_command(words):
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if not words:
        return
    if os.path.basename(words[0]) == "kvanalyze":
        yield from problems_of_kvanalyze(words[1:])
    if re.fullmatch(r"scripts/[\w-]+(\.py)?", words[0]):
        if not os.access(ROOT / words[0], os.X_OK):
            yield f"{words[0]} cannot be run"


def problems_of_path(path):
    if path.split("/")[0] in MADE or path.startswith("/"):
        return
    # HACKING.md names folders of tests/ inside its own row.
    if not any(next(base.glob(path.rstrip("/")), None) for base in (ROOT, ROOT / "tests")):
        yield f"{path} does not exist"


def problems_in(text):
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S):
        for command in commands_in(block):
            yield from problems_of_command(command)
            for word in command:
                if re.match(r"(scripts|docs|tests)/", word):
                    yield from problems_of_path(word)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for code in re.findall(r"`([^`\n]+)`", prose):
        for command in commands_in(code):
            yield from problems_of_command(command)
        words = code.split()
        if words and PATH.fullmatch(words[0]):
            yield from problems_of_path(words[0])


# A test that finds nothing in a page full of mistakes would find nothing anywhere.
WRONG = """```bash
kvanalyze frobnicate
A=1 build/cpu/bin/kvanalyze --model smollm2-135m --prompt-sets code \\
  --pagesize 3 | cat                       # --not-an-option
scripts/teleport --now
kvanalyze generate --model smollm3
```
`kvanalyze size --tokens 3`, `runtime/nowhere.h`, `MISSING.md`, `kvanalyze COMMAND --help`, `build/cpu/x`, `a / b`
"""
found = list(problems_in(WRONG))
if len(found) != 9:  # the script is named twice: it cannot be run, and it is not there
    sys.exit(f"expected 9 problems in the wrong page, found {len(found)}: {found}")

problems, checked = [], 0
for page in PAGES:
    content = page.read_text()
    checked += len(re.findall(r"kvanalyze [a-z-]", content))
    problems += [f"{page.relative_to(ROOT)}: {problem}" for problem in problems_in(content)]
print("\n".join(problems) or f"{len(PAGES)} pages, about {checked} command lines: all of it exists")
sys.exit(1 if problems or checked == 0 else 0)
