"""HTML pages, parsed by the standard library."""

from html.parser import HTMLParser

VOID = {"img", "meta", "br", "hr", "link", "input"}
FETCHING = {"src", "href", "srcset", "poster", "action", "data", "background"}


class Read(HTMLParser):
    """Parser that collects tables, pictures and text of a page, and rejects unclosed tags."""

    def __init__(self, page):
        super().__init__()
        self.open, self.text, self.attributes, self.tags, self.images, self.tables = [], [], [], [], [], {}
        self.caption, self.rows = "", []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *each) for each in attrs]
        if tag == "img":
            self.images.append(dict(attrs))
        if tag in VOID:
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            assert tag == "td" or dict(attrs)["scope"] == ("col" if "thead" in self.open else "row")
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            head, *rows = self.rows
            assert {len(row) for row in rows} <= {len(head)}
            assert self.caption not in self.tables
            self.tables[self.caption] = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
            self.caption, self.rows = "", []

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] == "caption":
            self.caption += data
        if any(tag in self.open for tag in ("td", "th")):
            self.rows[-1][-1] += data

    @property
    def words(self):
        """Text of the page, in one line."""
        return " ".join(" ".join(self.text).split())

    def needs_nothing_else(self):
        """True if a browser would load no other files and run no scripts."""
        fetched = [value for _, name, value in self.attributes if name in FETCHING]
        style = [value for _, name, value in self.attributes if name == "style"]
        return (
            not {"script", "link", "iframe", "object", "embed", "base"} & set(self.tags)
            and all(value.startswith("data:image/png;base64,") for value in fetched)
            and not any("url(" in text or "@import" in text for text in [*style, *self.text])
            and not any(name.startswith("on") for _, name, _ in self.attributes)
        )
