"""A preprocessor of mdBook: makes links to files outside docs/ work in the book.

Pages of docs/ link to other files of the repository, such as ../SECURITY.md or ../deploy/prometheus/alerts.yaml. Each such file
becomes a page at the end of the book: Markdown as it is, anything else as a block of code, a directory as a list of its files with
a link to its README.
Links of all pages are rewritten accordingly. A link to a file that does not exist ends the build.

mdBook starts this program twice: with `supports RENDERER`, then with the book on standard input.
Protocol: https://rust-lang.github.io/mdBook/for_developers/preprocessors.html
"""

import json
import posixpath
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = "docs"

# Files that are part of the book even if no page links to them.
ALWAYS = ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]

# Pages of docs/ that a program writes when it is run, with the program and the page that they follow. If one was not written yet, links to
# it lead to the program.
WRITTEN = {"docs/conformance.md": (".ci/conformance", "limits.md")}

LANGUAGES = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml", ".rs": "rust", ".sh": "sh", ".py": "python"}

# A link or image, `[text](target)` or the target of a reference, `[name]: target`. Code is taken first, so that it stays as it is.
LINK = re.compile(
    r"(?P<code>^(?P<fence>```+|~~~+).*?^(?P=fence)\s*$|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))"
    r"|(?P<open>(?:\[(?P<file>[\w./-]+\.md)(?=\]))?\]\(<?)(?P<inline>[^)\s>]+)"
    r"|^(?P<label>\[[^\]]+\]:\s+)(?P<reference>\S+)",
    re.MULTILINE | re.DOTALL,
)


class Book:
    """The pages by their paths in the repository. `titles` are those of pages, which replace file names in the texts of links: in the book,
    `[doctor.md](doctor.md)` reads "Check a node". `added` are the pages that the preprocessor makes, in the order of their discovery."""

    def __init__(self, titles):
        self.titles = titles
        self.tracked = set(git("ls-files").splitlines()) | set(git("ls-files", "--others", "--exclude-standard").splitlines())
        self.added = {}
        self.queue = []

    def page_of(self, path):
        """The page in the book of a path of the repository."""
        if path.startswith(DOCS + "/") and not (ROOT / path).is_dir():
            return path[len(DOCS) + 1 :]
        if path not in self.added:
            self.added[path] = None
            self.queue.append(path)
        return "repository/" + (path if path.endswith(".md") else path + ".md")

    def rewrite(self, text, path, page):
        """`text` with the links of the file `path`, which is shown as `page`."""

        def replace(match):
            if match["code"]:
                return match[0]
            target = match["inline"] or match["reference"]
            before = match["open"] or match["label"]
            if re.match(r"[a-z][a-z0-9+.-]*:|#|/", target):
                return match[0]
            name, _, anchor = target.partition("#")
            found = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
            if found in WRITTEN and not (ROOT / found).exists():
                found = WRITTEN[found][0]
            if not (ROOT / found).exists() or found.startswith(".."):
                sys.exit(f"{path}: a link to {target}, which does not exist in the repository")
            if match["file"] and found.endswith(match["file"]):
                before = f"[{self.titles.get(found, match['file'])}]("
            new = posixpath.relpath(self.page_of(found), posixpath.dirname(page) or ".")
            return before + new + ("#" + anchor if anchor else "")

        return LINK.sub(replace, text)

    def make(self, path):
        """The chapter of a file outside docs/, or of a directory."""
        page = self.page_of(path)
        file = ROOT / path
        title = path
        if file.is_dir():
            names = sorted({name[len(path) + 1 :].split("/")[0] for name in self.tracked if name.startswith(path + "/")})
            shown = (f"* [{name}]({name})" if name == "README.md" else f"* {name}" for name in names)
            text = f"# {path}\n\n" + "\n".join(shown) + "\n"
            text = self.rewrite(text, path + "/README.md", page)
        elif path.endswith(".md"):
            text = file.read_text()
            title = heading(path) if "/" not in path else path
            text = self.rewrite(text, path, page)
        else:
            language = LANGUAGES.get(file.suffix, "text")
            text = f"# {path}\n\n````{language}\n{file.read_text().rstrip()}\n````\n"
        return chapter(title, text, page)


def chapter(title, text, page):
    """A chapter as mdBook has it."""
    return {
        "Chapter": {
            "name": title,
            "content": text,
            "number": None,
            "sub_items": [],
            "path": page,
            "source_path": page,
            "parent_names": [],
        }
    }


def add_written(items):
    """Adds the pages that a program has written to the chapters."""
    for path, (_, after) in WRITTEN.items():
        if (ROOT / path).exists():
            at = next(i for i, item in enumerate(items) if item.get("Chapter", {}).get("path") == after)
            items.insert(at + 1, chapter(heading(path), (ROOT / path).read_text(), path[len(DOCS) + 1 :]))


def git(*arguments):
    return subprocess.run(["git", "-C", ROOT, *arguments], check=True, capture_output=True, text=True).stdout


def heading(path):
    """The heading of a page."""
    return re.match(r"# (.+)", (ROOT / path).read_text())[1]


def chapters(items):
    for item in items:
        if "Chapter" in item:
            yield item["Chapter"]
            yield from chapters(item["Chapter"]["sub_items"])


def main():
    if sys.argv[1:2] == ["supports"]:
        sys.exit(0 if sys.argv[2] == "html" else 1)
    _context, content = json.load(sys.stdin)
    add_written(content["items"])
    titles = {f"{DOCS}/{c['source_path']}": c["name"] for c in chapters(content["items"]) if c["path"]}
    book = Book(titles | {path: heading(path) for path in ALWAYS})
    for path in ALWAYS:
        book.page_of(path)
    for chapter in chapters(content["items"]):
        if chapter["path"]:
            chapter["content"] = book.rewrite(chapter["content"], f"{DOCS}/{chapter['source_path']}", chapter["path"])
    made = {}
    while book.queue:
        path = book.queue.pop(0)
        made[path] = book.make(path)
    content["items"] += [{"PartTitle": "The project"}] + [made.pop(path) for path in ALWAYS]
    if made:
        content["items"] += [{"PartTitle": "Files of the repository"}] + [made[path] for path in sorted(made)]
    json.dump(content, sys.stdout)


if __name__ == "__main__":
    main()
