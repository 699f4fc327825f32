"""Checks the built site: `python3 check.py SITE`.

Every link and image inside the site leads to a file, every anchor to an element of that page, and every page of docs/ is in the
book. The files that the README and those of the examples link to exist. Links to other sites are not followed.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


class Page(HTMLParser):
    """The ids and the links of a page, with their lines."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id" or (name == "name" and tag == "a"):
                self.ids.add(value)
            elif name in ("href", "src") and value:
                self.links.append((value, self.getpos()[0]))


def problem(site, pages, page, link):
    """What is wrong with a link of a page, or None."""
    url = urlsplit(link)
    if url.scheme or url.netloc:
        return None
    target = (page.parent / unquote(url.path)).resolve() if url.path else page
    if url.path.startswith("/"):
        target = site / unquote(url.path).lstrip("/")
    if target.is_dir():
        target = target / "index.html"
    if not target.is_file():
        return "no such file"
    if url.fragment and target in pages and unquote(url.fragment) not in pages[target].ids:
        return "no such anchor"
    return None


def dead_links(page):
    """The links of a Markdown file to files that don't exist."""
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    return [link for link in links if "://" not in link and not (page.parent / link).exists()]


def main():
    site = Path(sys.argv[1]).resolve()
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    errors = []
    links = 0
    for path, page in pages.items():
        for link, line in page.links:
            links += 1
            if wrong := problem(site, pages, path, link):
                errors.append(f"{path.relative_to(site)}:{line}: {link}: {wrong}")
    for source in sorted(DOCS.rglob("*.md")):
        name = source.relative_to(DOCS)
        if name.name != "SUMMARY.md" and site / name.with_suffix(".html") not in pages:
            errors.append(f"docs/{name}: not in docs/SUMMARY.md, so the site lacks it")
    for page in [ROOT / "README.md", *sorted(ROOT.glob("examples/**/README.md"))]:
        errors += [f"{page.relative_to(ROOT)}: {link}: no such file" for link in dead_links(page)]
    if len(pages) < 10 or links < 100:
        errors.append(f"{site}: {len(pages)} pages with {links} links: this is not the site")
    print("\n".join(errors) or f"{len(pages)} pages, {links} links: every one inside the site leads somewhere")
    sys.exit(bool(errors))


if __name__ == "__main__":
    main()
