"""A page of HTML that needs no other file: sections of tables, text and pictures, for screens, phones and paper."""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["cards", "page", "paragraph", "picture", "preformatted", "section", "table"]

STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --soft: #5b6168; --line: #dfe2e6; --ground: #fff; --card: #f5f6f8;
  --best: #e8f2f9; }
@media screen and (prefers-color-scheme: dark) { :root { --text: #e4e6e9; --soft: #a0a6ae; --line: #383d44;
  --ground: #16181b; --card: #202327; --best: #1d3242; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 65rem; color: var(--text); background: var(--ground);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.75rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); font-size: 1.25rem; }
p { max-width: 46rem; overflow-wrap: anywhere; }
.soft, caption, figcaption, dt { color: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1.5rem 0 0; }
.cards div { padding: .7rem .9rem; background: var(--card); border-radius: .6rem; }
.cards dt { font-size: .85rem; }
.cards dd { margin: 0; font-size: 1.45rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.scroll { max-height: 60rem; margin: 1rem 0; overflow: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; }
caption { padding: .3rem 0; text-align: left; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; }
thead th { position: sticky; top: 0; background: var(--ground); font-weight: 600; white-space: nowrap; }
tbody th { font-weight: 400; }
th.number, td.number { text-align: right; white-space: nowrap; }
tr.marked > * { background: var(--best); }
.tables { display: flex; flex-wrap: wrap; gap: 0 3rem; align-items: flex-start; }
.tables > * { max-width: 100%; }
figure { margin: 1rem 0; overflow-x: auto; }
figure img { display: block; max-width: max(100%, 30rem); height: auto; padding: .6rem; background: #fff;
  border: 1px solid var(--line); border-radius: .6rem; }
figcaption { margin-top: .4rem; font-size: .9rem; max-width: 46rem; }
pre { padding: .8rem 1rem; overflow-x: auto; background: var(--card); border-radius: .6rem; font-size: .85rem;
  line-height: 1.4; }
th:last-child, td:last-child { padding-right: 0; }
pre.wrapped { white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 30rem) { th, td { padding-right: .5rem; } }
@media print { :root { font-size: 11px; } body { max-width: none; padding: 0; font-size: 1rem; }
  .scroll { max-height: none; overflow: visible; } pre { white-space: pre-wrap; } thead th { position: static; }
  figure, .cards, tr { break-inside: avoid; } h2 { break-after: avoid; }
  figure img { width: auto; max-width: 100%; max-height: 20cm; border: 0; padding: 0; } }
"""


def escape(text: Any) -> str:
    """Text for HTML; bytes of file names that are no text become question marks."""
    return html.escape(str(text).encode("utf-8", "replace").decode())


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A section with a heading; nothing if it has no content."""
    content = "".join(parts)
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}</section>\n" if content else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph."""
    return f"<p{_class(kind)}>{escape(text)}</p>\n"


def preformatted(text: str, kind: str = "") -> str:
    """Text with its spaces and line ends; of kind "wrapped" its long lines are broken."""
    return f"<pre{_class(kind)}>{escape(text)}</pre>\n"


def cards(facts: Iterable[tuple[str, str]]) -> str:
    """A few names and values, large."""
    entries = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>\n" for name, value in facts)
    return f'<dl class="cards">\n{"".join(entries)}</dl>\n'


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int = 1, caption: str = "", marked: int | None = None
) -> str:
    """A table; `texts` columns at the left hold text, the others numbers. Row `marked` stands out."""
    kinds = ["" if i < texts else "number" for i in range(len(head))]
    lines = []
    for i, row in enumerate(rows):
        first, *others = (
            f"<{tag}{_class(kind)}>{escape(cell)}</{tag.split()[0]}>"
            for tag, kind, cell in zip(['th scope="row"', *["td"] * len(row)], kinds, row, strict=False)
        )
        lines.append(f"<tr{_class('marked' if i == marked else '')}>{first}{''.join(others)}</tr>\n")
    if not lines:
        return ""
    titles = "".join(
        f'<th scope="col"{_class(kind)}>{escape(name)}</th>' for kind, name in zip(kinds, head, strict=True)
    )
    above = f"<caption>{escape(caption)}</caption>\n" if caption else ""
    top = f"<thead><tr>{titles}</tr></thead>\n" if any(head) else ""
    return f'<div class="scroll"><table>\n{above}{top}<tbody>\n{"".join(lines)}</tbody>\n</table></div>\n'


def picture(png: bytes, alternative: str, caption: str = "") -> str:
    """A picture, held by the page itself, with what it says for those who do not see it.

    It is shown with 4 of its pixels to 3 of the page, which screens of high density have.
    """
    data, width = b64encode(png).decode(), int.from_bytes(png[16:20], "big") * 3 // 4
    below = f"<figcaption>{escape(caption)}</figcaption>\n" if caption else ""
    image = f'<img width="{width}" alt="{escape(alternative)}" src="data:image/png;base64,{data}">'
    return f"<figure>\n{image}\n{below}</figure>\n"


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
