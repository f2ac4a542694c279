"""A check of the built site: its own links lead to a page and a heading, and no script or picture is elsewhere."""

import pathlib
from html.parser import HTMLParser
from urllib.parse import unquote, urlparse

from sphinx.errors import ExtensionError


class Page(HTMLParser):
    """The ids of a page, and its links as (tag, address)."""

    def __init__(self, path):
        super().__init__()
        self.path, self.ids, self.links = path, set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        """Collect an element."""
        found = dict(attrs)
        self.ids.add(found.get("id"))
        self.links += [(tag, found[name]) for name in ("href", "src") if found.get(name)]


def broken(pages):
    """Yield the links of pages that lead nowhere."""
    for page in pages.values():
        for tag, link in page.links:
            url = urlparse(link)
            if url.scheme or url.netloc:
                if tag in ("script", "link", "img"):
                    yield page.path, link
                continue
            target = (page.path.parent / unquote(url.path)).resolve() if url.path else page.path
            if not target.exists() or (target in pages and url.fragment and url.fragment not in pages[target].ids):
                yield page.path, link


def check(app, exception):
    """Fail the build by links that lead nowhere."""
    if exception or app.builder.format != "html":
        return
    root = pathlib.Path(app.outdir).resolve()
    found = [f"{path.relative_to(root)}: {link}" for path, link in broken({p: Page(p) for p in root.rglob("*.html")})]
    if found:
        raise ExtensionError("links that lead nowhere:\n" + "\n".join(found))


def setup(app):
    """Connect the check."""
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
