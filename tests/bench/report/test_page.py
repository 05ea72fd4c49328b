from html.parser import HTMLParser

from bench.report.markup import figure, listing, note, paragraph, table
from bench.report.page import Section, page
from bench.report.plot import Axis, plot

VOID = {"meta"}


class Outline(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass  # opens nothing

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def read(html: str) -> Outline:
    outline = Outline()
    outline.feed(html)
    assert outline.open == []
    return outline


def test_page_is_whole_and_needs_nothing_from_outside() -> None:
    parts = (
        paragraph("text"),
        note("mind"),
        listing(["a"]),
        figure(plot("t", Axis("x"), Axis("y"), ()), "c"),
    )
    outline = read(page("Title", [Section("one", parts), Section("two", ())], lead="by hand"))
    assert outline.links == ["#s0", "#s1"]
    assert {"Title", "by hand", "one", "two", "text", "mind", "a", "c"} <= set(outline.texts)


def test_text_is_escaped_everywhere() -> None:
    evil = "<script>&"
    parts = (
        paragraph(evil),
        note(evil),
        listing([evil]),
        table([evil], [[evil]], evil),
        figure(plot(evil, Axis(evil), Axis(evil), ()), evil),
    )
    html = page(evil, [Section(evil, parts), Section("", ())], evil)
    assert "<script" not in html
    assert read(html).texts.count(evil) == 15


def test_tables_align_all_but_the_first_columns_right() -> None:
    html = table(["a", "b", "c"], [["x", "y", "1"]], left=2)
    assert html.count('class="right"') == 2
