"""Pieces of a page: tables and figures that work without a pointer, without colours and in screen readers.

They are functions, not templates, because a notebook shows some of the same pieces. All text of a report is escaped by
`text`, and so are all words of the figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from soupcli.figures.draw import svg
from soupcli.figures.draw.svg import text
from soupcli.files.own_file import PAGE_START

if TYPE_CHECKING:
    from soupcli.figures.figure import Figure
    from soupcli.report.tables import Column, Table


LONGEST = 32  # letters of a name that stays in one line
WITH_HYPHEN = re.compile(r"(?<!\S)\S*-\S*")  # tried at the beginning of words alone: a long one has many letters


def table(caption: str, columns: Sequence[Column], rows: Iterable[Sequence[str]], *, words: bool = False) -> str:
    """A table whose first column heads its rows; a wide one scrolls by itself, also with the arrow keys.

    `words`: its cells are sentences, which break into lines on narrow screens too.
    """
    kind = ' class="words"' if words else ""
    head = "".join(f'<th scope="col"{_aligned(column)}>{text(column.heading)}</th>' for column in columns)
    body = "".join(f"<tr>{_row(columns, row)}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(caption)}"><table{kind}>'
        f"<caption><span>{text(caption)}</span></caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def table_of(found: Table) -> str:
    """A table of the report; the terminal shows the same."""
    return table(found.caption, found.columns, found.rows)


def _row(columns: Sequence[Column], cells: Sequence[str]) -> str:
    first = f'<th scope="row">{_whole(text(cells[0]))}</th>'
    rest = zip(columns[1:], cells[1:], strict=True)
    return first + "".join(f"<td{_aligned(column)}>{text(cell)}</td>" for column, cell in rest)


def _whole(label: str) -> str:
    """Return a label whose names do not break at their hyphens, if they fit into a narrow screen."""
    return WITH_HYPHEN.sub(lambda name: _kept(name[0]), label)


def _kept(name: str) -> str:
    return f'<span class="whole">{name}</span>' if len(name) <= LONGEST else name


def _aligned(column: Column) -> str:
    return ' class="number"' if column.is_number else ""


def section(title: str, *parts: str) -> str:
    """A section with its heading; empty if it has no content."""
    name = title.lower().replace(" ", "-")
    body = "".join(parts)
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{text(title)}</h2>{body}</section>' if body else ""


def contents(sections: Iterable[str]) -> str:
    """Links to the sections that have content; nothing for one alone."""
    found = [named for part in sections if (named := _HEADING.search(part))]
    links = "".join(f'<li><a href="#{named["id"]}">{named["title"]}</a></li>' for named in found)
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>' if len(found) > 1 else ""


_HEADING = re.compile(r'<h2 id="(?P<id>[^"]*)">(?P<title>[^<]*)</h2>')


def pairs(items: Iterable[tuple[str, str]]) -> str:
    """A list of names and values."""
    rows = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in items)
    return f"<dl>{rows}</dl>" if rows else ""


def paragraph(words: str, classes: str = "") -> str:
    """A paragraph."""
    kind = f' class="{classes}"' if classes else ""
    return f"<p{kind}>{text(words)}</p>"


def lines(words: str) -> str:
    """Return text with its line breaks."""
    kept = "\n".join(text(line) for line in words.split("\n"))
    return f'<pre tabindex="0">{kept}</pre>'


def folded(title: str, body: str) -> str:
    """Return a section that opens on a click."""
    return f"<details><summary>{text(title)}</summary>{body}</details>"


def figure(drawn: Figure) -> str:
    """A figure with its caption below."""
    picture = (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(drawn.title)}">{svg.drawn(drawn)}</div>'
    )
    return f"<figure>{picture}<figcaption>{text(drawn.caption)}</figcaption></figure>"


STYLE = (
    f":root{{color-scheme:light dark;{svg.stylesheet('light')}}}"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{svg.stylesheet('dark')}}}}}"
    "body{margin:0 auto;max-width:62rem;padding:1.5rem 1rem 4rem;background:var(--paper);color:var(--ink);"
    "overflow-wrap:break-word;font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
    "h1{font-size:1.6rem;line-height:1.25;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}"
    "p{margin:.4rem 0}.faint{color:var(--faint)}"
    ".warning{border-left:4px solid var(--greedy);padding:.35rem .8rem;margin:.6rem 0}"
    "nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin:1rem 0 0;padding:0;font-size:.9rem}"
    "nav a{color:var(--best)}"
    ".scroll{overflow-x:auto;margin:.6rem 0}table{border-collapse:collapse;font-size:.9rem}"
    "caption{text-align:left;color:var(--faint);padding-bottom:.3rem}"
    "caption span{display:inline-block;position:sticky;left:0;max-width:calc(min(100vw,62rem) - 2rem)}"
    "th,td{padding:.28rem .7rem;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top}"
    "thead th{border-bottom:1px solid var(--faint);white-space:nowrap}.number,.whole{white-space:nowrap}"
    "tbody th{font-weight:500;overflow-wrap:anywhere;min-width:11rem}"
    ".number{text-align:right;font-variant-numeric:tabular-nums}"
    "dl{display:grid;gap:.15rem;margin:.4rem 0}dl div{display:grid;grid-template-columns:11rem 1fr;gap:1rem}"
    "dt{color:var(--faint)}dd{margin:0;overflow-wrap:anywhere}"
    "pre{overflow-x:auto;border:1px solid var(--rule);border-radius:4px;padding:.8rem;font-size:.85rem;margin:.5rem 0}"
    "figure{margin:1.4rem 0}figure svg{max-width:100%;height:auto;display:block}"
    "@media screen and (max-width:44rem){figure svg{max-width:none}tbody th{min-width:8rem}td{white-space:nowrap}"
    ".words td{white-space:normal}}"
    "figcaption{color:var(--faint);font-size:.9rem;max-width:46rem}"
    "summary{cursor:pointer;color:var(--faint)}:focus-visible{outline:2px solid var(--best);outline-offset:2px}"
    "@page{margin:1.5cm}@media print{body{max-width:none;padding:0;font-size:11px}"
    "figure,tr{break-inside:avoid}h2{break-after:avoid}"
    "figure svg{max-height:23cm}.scroll{overflow:visible}th,td{padding:.2rem .4rem}"
    "th,td,thead th,.whole{white-space:normal}caption span{max-width:none}"
    "tbody th{min-width:0}pre{white-space:pre-wrap}nav{display:none}}"
    f"{svg.RULES}"
)


def document(title: str, body: str) -> str:
    """A whole page that loads nothing from elsewhere; its policy forbids that."""
    return (
        f'{PAGE_START}<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )
