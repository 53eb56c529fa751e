#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Splits the overlay and patches/ into two patch series, as series/ describes.

series/README.md explains the files that this program reads.
"""

import argparse
import difflib
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERIES = ROOT / "series"
MAPS = SERIES / "files"

# The modules series applies on top of the rust series.
NAMES = ("rust", "modules")


class BadInput(Exception):
    """A file of ours is wrong. The text says which one, and how to correct it."""


def run(*command: str | Path, cwd: Path, text: str = "") -> str:
    """Runs a command and returns its output."""
    result = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        words = " ".join(str(word) for word in command)
        raise BadInput(f"{words} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def blob(content: bytes) -> str:
    """The name that git gives to a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Patch:
    name: str
    series: str
    # The changes to files that the kernel has, or None.
    quilt: Path | None
    message: str
    # Files of ours that the patch adds as a whole, or folders of them.
    adds: list[str]


@dataclass
class Text:
    """Lines that stand before a line of a file, between two patches."""

    before: int
    since: str
    until: str
    lines: list[str]


@dataclass
class Map:
    """The patches that add the lines of a file."""

    path: str
    blob: str
    # The name of a patch for each line.
    lines: list[str]
    texts: list[Text] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return MAPS / f"{self.path}.map"

    def write(self) -> None:
        out = [f"blob {self.blob}"]
        start = 0
        left = sorted(self.texts, key=lambda text: text.before)
        for i, name in enumerate(self.lines):
            if i + 1 < len(self.lines) and self.lines[i + 1] == name:
                continue
            # Texts come before the range in which they stand.
            while left and (left[0].before <= i + 1 or i + 1 == len(self.lines)):
                text = left.pop(0)
                out.append(f"text {text.before} {text.since} {text.until}")
                out += ["|" + line for line in text.lines]
            out.append(f"{start + 1}{f'-{i + 1}' if i > start else ''} {name}")
            start = i + 1
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text("\n".join(out) + "\n")


def read_map(file: Path, length: int) -> Map:
    """Reads a map. Of two lines that name the same range, the later one counts."""
    result = Map(str(file.relative_to(MAPS)).removesuffix(".map"), "", [""] * length)
    for number, line in enumerate(file.read_text().splitlines(), 1):
        where = f"{file.relative_to(ROOT)}:{number}"
        if line.startswith("|"):
            if not result.texts:
                raise BadInput(f"{where}: there is no 'text' line before this one")
            result.texts[-1].lines.append(line[1:])
        elif match := re.fullmatch(r"blob ([0-9a-f]{40})", line):
            result.blob = match[1]
        elif match := re.fullmatch(r"(\d+)(?:-(\d+|\$))? (\S+)", line):
            last = length if match[2] == "$" else int(match[2] or match[1])
            if not 1 <= int(match[1]) <= last <= length:
                raise BadInput(f"{where}: the file has {length} lines, so {line!r} is out of range")
            for i in range(int(match[1]) - 1, last):
                result.lines[i] = match[3]
        elif match := re.fullmatch(r"text (\d+|\$) (\S+) (\S+)", line):
            before = length + 1 if match[1] == "$" else int(match[1])
            if not 1 <= before <= length + 1:
                raise BadInput(f"{where}: the file has {length} lines, so {line!r} is out of range")
            result.texts.append(Text(before, match[2], match[3], []))
        elif line and not line.startswith("#"):
            raise BadInput(
                f"{where}: expected 'blob', 'FIRST-LAST PATCH', 'text' or '|', not {line!r}"
            )
    if "" in result.lines:
        raise BadInput(f"{file.relative_to(ROOT)}: line {result.lines.index('') + 1} has no patch")
    return result


def carried(old: Map, before: Sequence[str], after: Sequence[str], content: bytes) -> Map:
    """Carries a map over to a newer version of its file.

    A new line belongs to the patch of the line that it replaces, or else to that of the line
    above it.
    """
    lines: list[str] = []
    moved: dict[int, int] = {}
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        for i in range(i1, i2 + 1):
            moved.setdefault(i, min(j1 + (i - i1 if tag == "equal" else 0), j2))
        for j in range(j1, j2):
            if tag == "insert":
                lines.append(old.lines[max(i1 - 1, 0)])
            else:
                lines.append(old.lines[min(i1 + j - j1, i2 - 1)])
        if tag != "equal":
            for text in old.texts:
                if i1 <= text.before - 1 <= i2:
                    print(
                        f"note: {old.path}:{j1 + 1} has changed beside transitional text "
                        f"of {text.since}: is series/files/{old.path}.map still right?",
                        file=sys.stderr,
                    )
    texts = [Text(moved[t.before - 1] + 1, t.since, t.until, t.lines) for t in old.texts]
    return Map(old.path, blob(content), lines, texts)


def with_markers(lines: Sequence[str], ends: Sequence[bool]) -> list[str]:
    """Ends lists of imports with the empty comment that keeps rustfmt from joining their lines.

    The last item of a list has one in the file, but need not be there in all states. `ends` tells
    which lines end a list in the file: these stay as they are.
    """
    out = []
    inside = False
    for i, line in enumerate(lines):
        inside = (inside or re.match(r"\s*(pub(\(crate\))? )?use .*\{$", line) is not None) and (
            line.strip() != "};"
        )
        is_last = i + 1 < len(lines) and lines[i + 1].lstrip().startswith("}")
        if inside and is_last and not ends[i] and line.endswith(","):
            line += " //"
        out.append(line)
    return out


class Stages:
    """The patches of both series, and the state of each file after each of them."""

    def __init__(self, patches_dir: Path) -> None:
        self.patches: list[Patch] = []
        self.maps: dict[str, Map] = {}
        self.contents: dict[str, list[str]] = {}
        for series in NAMES:
            self.read_series(series, patches_dir)
        self.index = {patch.name: i for i, patch in enumerate(self.patches)}
        if len(self.index) != len(self.patches):
            raise BadInput("series/: two patches have the same name")
        used = [patch.quilt.name for patch in self.patches if patch.quilt]
        listed = (patches_dir / "series").read_text().split()
        if used != listed:
            wrong = [name for name in (*used, *listed) if used.count(name) != listed.count(name)]
            raise BadInput(
                "series/*/series must name the patches of patches/series once, in the same order: "
                + (", ".join(wrong) or "the order differs")
            )

    def read_series(self, series: str, patches_dir: Path) -> None:
        for line in (SERIES / series / "series").read_text().splitlines():
            words = line.split()
            if not words or line.startswith("#"):
                continue
            quilt = patches_dir / words[1] if len(words) > 1 else None
            source = quilt or SERIES / series / f"{words[0]}.msg"
            if not source.is_file():
                raise BadInput(f"series/{series}/series: there is no {source.relative_to(ROOT)}")
            text = re.split(r"^---$", source.read_text(), maxsplit=1, flags=re.MULTILINE)[0]
            if not text.startswith("Subject: "):
                raise BadInput(f"{source}: the first line must begin with 'Subject: '")
            adds = re.findall(r"^Adds: (\S+)$", text, flags=re.MULTILINE)
            message = re.sub(r"^Adds: .*\n", "", text.removeprefix("Subject: "), flags=re.MULTILINE)
            self.patches.append(Patch(words[0], series, quilt, message.strip() + "\n", adds))

    def read_files(self, files: Iterable[str]) -> None:
        """Reads the maps of our files, and makes one for each file that is added as a whole."""
        whole = [(prefix, patch) for patch in self.patches for prefix in patch.adds]
        files = list(files)
        for file in MAPS.rglob("*.map"):
            if (path := str(file.relative_to(MAPS)).removesuffix(".map")) not in files:
                raise BadInput(f"series/files/{path}.map is about a file that does not exist")
        for path in files:
            content = (ROOT / path).read_bytes()
            lines = content.decode().split("\n")
            # The last one is empty, unless the file does not end with a newline.
            self.contents[path] = lines
            names = [
                patch.name
                for prefix, patch in whole
                if f"{path}/".startswith(prefix.rstrip("/") + "/")
            ]
            mapped = (MAPS / f"{path}.map").exists()
            if len(names) + mapped != 1:
                raise BadInput(
                    f"{path} must have a map in series/files/ or be named by 'Adds:' in one message, "
                    f"but {'has a map and ' if mapped else ''}is named by: {', '.join(names) or 'none'}"
                )
            if mapped:
                self.maps[path] = self.current_map(path, content)
            else:
                self.maps[path] = Map(path, blob(content), names * (len(lines) - 1))
            self.check(self.maps[path])

    def current_map(self, path: str, content: bytes) -> Map:
        file = MAPS / f"{path}.map"
        lines = content.decode().split("\n")[:-1]
        match = re.match(r"blob ([0-9a-f]{40})\n", file.read_text())
        if not match:
            raise BadInput(f"{file.relative_to(ROOT)}: the first line must be 'blob HASH'")
        if match[1] == blob(content):
            return read_map(file, len(lines))
        try:
            old = run("git", "cat-file", "blob", match[1], cwd=ROOT).split("\n")[:-1]
        except BadInput:
            raise BadInput(
                f"{file.relative_to(ROOT)} is for version {match[1][:12]} of its file, which git does "
                "not have: correct the map, and its first line, by hand"
            ) from None
        return carried(read_map(file, len(old)), old, lines, content)

    def check(self, mapped: Map) -> None:
        names = {*mapped.lines, *(n for t in mapped.texts for n in (t.since, t.until))}
        for name in names:
            if name not in self.index:
                raise BadInput(f"series/files/{mapped.path}.map: no patch has the name {name}")
        for text in mapped.texts:
            if self.index[text.since] >= self.index[text.until]:
                raise BadInput(
                    f"series/files/{mapped.path}.map: {text.since} does not come before {text.until}"
                )

    def state(self, path: str, patch: int) -> str:
        """Returns the contents of a file after a patch, or nothing if it does not exist then."""
        mapped = self.maps[path]
        lines = self.contents[path]
        texts: dict[int, list[str]] = {}
        for text in mapped.texts:
            if self.index[text.since] <= patch < self.index[text.until]:
                texts.setdefault(text.before, []).extend(text.lines)
        out: list[str] = []
        ends: list[bool] = []
        for i, name in enumerate([*mapped.lines, None]):
            for line in texts.get(i + 1, []):
                out.append(line)
                ends.append(True)
            if name and self.index[name] <= patch:
                out.append(lines[i])
                ends.append(lines[i + 1].lstrip().startswith("}"))
        if path.endswith(".rs"):
            out = with_markers(out, ends)
        return "\n".join(out) + "\n" if out else ""

    def changed_by(self, path: str, patch: int) -> bool:
        mapped = self.maps[path]
        name = self.patches[patch].name
        return name in mapped.lines or any(name in (t.since, t.until) for t in mapped.texts)


def number_patches() -> None:
    """Numbers the files in patches/ in the order of series/*/series, and writes patches/series."""
    patches = ROOT / "patches"
    names: list[str] = []
    renamed: list[tuple[Path, Path]] = []
    lists: dict[Path, str] = {}
    for file in (SERIES / series / "series" for series in NAMES):
        text = file.read_text()
        for old in re.findall(r"^[^#\s]\S*[ \t]+(\S+\.patch)$", text, flags=re.MULTILINE):
            if not (patches / old).is_file():
                raise BadInput(f"{file.relative_to(ROOT)}: there is no patches/{old}")
            new = f"{len(names) + 1:04}-{re.sub(r'^[0-9]+-', '', old)}"
            names.append(new)
            text = text.replace(old, new)
            # patches/VERSION/ has the same patch for another version of the kernel.
            for path in (patches / old, *patches.glob(f"*/{old}")):
                renamed.append((path, path.with_name(new)))
        lists[file] = text
    for path in sorted(patches.glob("*.patch")):
        if all(path != old_path for old_path, _ in renamed):
            raise BadInput(f"patches/{path.name} is in none of series/*/series: list or remove it")
    # In two steps: a new name may be the old name of another patch.
    for old_path, new_path in renamed:
        old_path.rename(new_path.with_name(new_path.name + ".new"))
    for _, new_path in renamed:
        new_path.with_name(new_path.name + ".new").rename(new_path)
    for file, text in lists.items():
        file.write_text(text)
    (patches / "series").write_text("".join(f"{name}\n" for name in names))


class Repository:
    """A git repository of the files that the series touch."""

    def __init__(self, path: Path) -> None:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        self.path = path
        # Ignore the user's configuration: no hooks, no ignored files, no signatures.
        identity = {
            "NAME": self.user("name", "module-dedup"),
            "EMAIL": self.user("email", "module-dedup@localhost"),
            # The same input gives the same series.
            "DATE": self.ask("git", "log", "-1", "--format=%cI"),
        }
        os.environ.update(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_SYSTEM="/dev/null")
        for key, value in identity.items():
            if value:
                os.environ.update({f"GIT_AUTHOR_{key}": value, f"GIT_COMMITTER_{key}": value})
        self.git("init", "--quiet", "--initial-branch=series", ".")

    @staticmethod
    def ask(*command: str) -> str:
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()

    def user(self, key: str, default: str) -> str:
        return self.ask("git", "config", f"user.{key}") or default

    def git(self, *arguments: str | Path, text: str = "") -> str:
        return run("git", *arguments, cwd=self.path, text=text)

    def commit(self, message: str) -> None:
        self.git("add", "--all", ".")
        self.git("commit", "--quiet", "--file=-", text=message)

    def put(self, path: str, content: str, mode: int = 0o644) -> None:
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(mode)


def patched_files(patches: Iterable[Patch]) -> list[str]:
    """The files of the kernel that the patches change."""
    found = {
        path
        for patch in patches
        if patch.quilt
        for path in re.findall(r"^--- a/(\S+)", patch.quilt.read_text(), flags=re.MULTILINE)
    }
    return sorted(found)


def commit_all(stages: Stages, source: Path, repository: Repository) -> None:
    """Commits the kernel's files, and then each patch. Tags the end of each series."""
    for path in patched_files(stages.patches):
        repository.put(path, (source / path).read_text())
    repository.commit("base")
    repository.git("tag", "base")
    for i, patch in enumerate(stages.patches):
        if patch.quilt:
            run(
                "patch", "-p1", "--fuzz=0", "--no-backup-if-mismatch", "--quiet", "--force",
                cwd=repository.path, text=patch.quilt.read_text(),
            )  # fmt: skip
        for path in stages.maps:
            if stages.changed_by(path, i):
                mode = 0o755 if os.access(ROOT / path, os.X_OK) else 0o644
                repository.put(path, stages.state(path, i), mode)
        try:
            repository.commit(patch.message)
        except BadInput as error:
            raise BadInput(
                f"series/{patch.series}: {patch.name} changes nothing: {error}"
            ) from None
        repository.git("tag", f"patch/{patch.name}")
        repository.git("tag", "--force", patch.series)


def compare(stages: Stages, tree: Path, repository: Repository) -> None:
    """Checks that the last patch leaves the files of the tree."""
    for path in [*stages.maps, *patched_files(stages.patches)]:
        if (repository.path / path).read_bytes() != (tree / path).read_bytes():
            raise BadInput(f"after both series, {path} is not that of the tree: run 'make tree'")


def recipients(tree: Path, patches: Sequence[Path]) -> str:
    """The lines To and Cc for some patches, as the kernel's get_maintainer.pl names them."""
    script = tree / "scripts" / "get_maintainer.pl"
    found = run(script, "--no-git", "--no-git-fallback", "--rolestats", *patches, cwd=tree)
    to: list[str] = []
    cc: list[str] = []
    for line in found.splitlines():
        if match := re.fullmatch(r"(.*\S) \(([a-z ]+)(?::.*)?\)", line):
            (to if match[2] in ("maintainer", "supporter") else cc).append(match[1])
    return "".join(
        f"{name}: {(',' + chr(10) + '    ').join(lines)}\n"
        for name, lines in (("To", to), ("Cc", cc))
        if lines
    )


def format_patches(repository: Repository, tree: Path, out: Path) -> None:
    start = "base"
    for series in NAMES:
        shutil.rmtree(out / series, ignore_errors=True)
        repository.git("checkout", "--quiet", "-B", f"series-{series}", series)
        cover = (SERIES / series / "cover").read_text()
        repository.git(
            "config", f"branch.series-{series}.description", cover.removeprefix("Subject: ")
        )
        # --patience gives readable diffs of moved code.
        repository.git(
            "format-patch", "--quiet", "--patience", "--no-renames", "--cover-letter",
            "--cover-from-description=subject", "-o", out / series, f"{start}..series-{series}",
        )  # fmt: skip
        letter, *patches = sorted((out / series).glob("*.patch"))
        head, body = letter.read_text().split("\n\n", 1)
        letter.write_text(f"{head}\n{recipients(tree, patches)}\n{body}")
        start = series


def ours(tree: Path) -> list[str]:
    """The files of the overlay, which scripts/build/tree lists."""
    return (tree / ".overlay").read_text().splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="series",
        description="Splits the overlay and patches/ into two patch series; see series/README.md.",
    )
    parser.add_argument("--tree", type=Path, help="the patched tree, from scripts/build/tree")
    parser.add_argument("--source", type=Path, help="the pristine source")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--write", type=Path, metavar="DIR", help="write the patches to DIR/rust and DIR/modules"
    )
    what.add_argument(
        "--update", action="store_true", help="rewrite the maps for files that have changed"
    )
    what.add_argument(
        "--annotate", metavar="FILE", help="print FILE with the patch that adds each line"
    )
    what.add_argument("--number", action="store_true", help="number the files in patches/")
    parser.add_argument("--repository", type=Path, help="a git repository to make for --write")
    arguments = parser.parse_args()

    if arguments.number:
        number_patches()
        return
    if not arguments.tree or (arguments.write and not (arguments.source and arguments.repository)):
        parser.error("needs --tree, and to write patches, --source and --repository")
    stages = Stages(arguments.tree / ".patches")
    stages.read_files(ours(arguments.tree))
    if arguments.update:
        for mapped in stages.maps.values():
            if mapped.file.exists() and f"blob {mapped.blob}\n" not in mapped.file.read_text():
                mapped.write()
    elif arguments.annotate:
        if arguments.annotate not in stages.maps:
            raise BadInput(f"{arguments.annotate} is not a file of the overlay")
        mapped = stages.maps[arguments.annotate]
        for i, line in enumerate(stages.contents[arguments.annotate][:-1]):
            for text in mapped.texts:
                if text.before == i + 1:
                    for old in text.lines:
                        print(f"     {text.since}..{text.until} | {old}")
            print(f"{i + 1:4} {mapped.lines[i]:16} | {line}")
    else:
        repository = Repository(arguments.repository)
        commit_all(stages, arguments.source, repository)
        compare(stages, arguments.tree, repository)
        format_patches(repository, arguments.tree, arguments.write)


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        sys.exit(f"error: {error}")
