"""Small pieces of HTML, all text escaped, and the page that holds them."""

import base64
import html
import math
from collections.abc import Iterable, Sequence

STYLE = """
:root { --text: #1b1b1b; --page: #ffffff; --line: #cfcfcf;
        --soft: #f3f5f7; --quiet: #5a5a5a; --link: #00558c; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8e8e8; --page: #16181b; --line: #44484d;
          --soft: #22262a; --quiet: #a9adb2; --link: #8cc4f0; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 1240px; color: var(--text); background: var(--page);
       font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; }
h2 { margin: 2.4rem 0 .6rem; border-bottom: 1px solid var(--line); font-size: 1.3rem; }
h3 { margin: 1.4rem 0 .4rem; font-size: 1.05rem; }
a { color: var(--link); }
p, li { max-width: 75ch; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; list-style: none; font-size: .9rem; }
.banner { padding: .8rem 1rem; border-radius: 4px; background: #b30000; color: #fff; font-weight: bold;
          font-size: 1.25rem; text-align: center; print-color-adjust: exact; }
.warning { padding: .5rem 1rem; border-left: 5px solid #d55e00; background: var(--soft); }
.summary { padding: .8rem 1rem; border-left: 5px solid #0072b2; background: var(--soft); max-width: none; }
.scroll { overflow-x: auto; margin: .6rem 0 1rem; }
table { border-collapse: collapse; min-width: min(100%, 44rem);
        font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { padding: .3rem 0; text-align: left; font-size: .9rem; color: var(--quiet); }
caption > span { display: block; max-width: 100ch; }
@media screen and (max-width: 1000px) { caption > span { max-width: calc(100vw - 2rem); } }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line);
         text-align: right; vertical-align: top; }
thead th { background: var(--soft); vertical-align: bottom; }
th.text, td.text { text-align: left; }
tr.published { color: var(--quiet); }
td small, th small { display: block; font-weight: normal; color: var(--quiet); }
tbody th { font-weight: 600; min-width: 9rem; }
td:not(.text) { white-space: nowrap; }
.undefined { font-style: italic; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 1rem; }
figure { margin: .6rem 0; }
.grid figure { margin: 0; max-width: 760px; }
img { max-width: 100%; height: auto; border-radius: 4px; background: #fff; }
figcaption { font-size: .9rem; color: var(--quiet); }
details { margin: .6rem 0; padding: .4rem .8rem; border: 1px solid var(--line); border-radius: 4px; }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font-size: .85rem; }
footer { margin-top: 3rem; font-size: .85rem; color: var(--quiet); }
@media print {
  body { max-width: none; font-size: 11pt; }
  nav { display: none; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding: .2rem .3rem; }
  tbody th { min-width: 0; }
  figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>{banner}<h1>{title}</h1>{lead}</header>
<nav aria-label="Contents"><ul>{contents}</ul></nav>
<main>
{sections}
</main>
<footer>{footer}</footer>
</body>
</html>
"""


def escape(text: object) -> str:
    """Text that cannot be read as HTML."""
    return html.escape(str(text), quote=True)


def paragraph(text: str, *, css: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{css}">{escape(text)}</p>' if css else f"<p>{escape(text)}</p>"


def undefined(reason: str) -> str:
    """The word that stands where a number does not exist, and why."""
    return f'<span class="undefined">undefined<small>{escape(reason)}</small></span>'


def percent(share: float, *, reason: str, digits: int = 1) -> str:
    """A share in percent, e.g. 0.054 as "5.4"."""
    return undefined(reason) if math.isnan(share) else f"{100 * share:.{digits}f}"


def number(value: float, *, reason: str, digits: int = 3) -> str:
    """A number, or the reason why there is none."""
    return undefined(reason) if math.isnan(value) else f"{value:.{digits}f}"


def points(difference: float, *, reason: str) -> str:
    """A difference of shares in percentage points with its sign, e.g. "+4.2"."""
    return undefined(reason) if math.isnan(difference) else f"{100 * difference:+.1f}"


def interval(low: float, high: float, *, sign: bool = False) -> str:
    """An interval of shares in percent, e.g. "[4.9, 5.9]"; empty if undefined."""
    if math.isnan(low) or math.isnan(high):
        return ""
    style = "+.1f" if sign else ".1f"
    return f"[{100 * low:{style}}, {100 * high:{style}}]"


def cell(content: str, *, small: str = "") -> str:
    """A table cell of HTML with an optional second line in small type (plain text)."""
    return content + (f"<small>{escape(small)}</small>" if small else "")


def table(
    head: str, rows: Iterable[tuple[str, Sequence[str]]], *, caption: str, text_columns: int = 1
) -> str:
    """A table in its own scroll box. `head` is HTML of header rows, `rows` are (class, cells of HTML).

    The first `text_columns` columns are left-aligned; the first cell heads its row.
    """
    body = "".join(_row(css, cells, text_columns) for css, cells in rows)
    heading = f"<caption><span>{escape(caption)}</span></caption>"
    box = f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
    return f"{box}<table>{heading}<thead>{head}</thead><tbody>{body}</tbody></table></div>"


def _row(css: str, cells: Sequence[str], text_columns: int) -> str:
    parts = [f'<th scope="row" class="text">{cells[0]}</th>']
    for i, content in enumerate(cells[1:], start=1):
        parts.append(f'<td class="text">{content}</td>' if i < text_columns else f"<td>{content}</td>")
    return f'<tr class="{css}">{"".join(parts)}</tr>' if css else f"<tr>{''.join(parts)}</tr>"


def head(names: Sequence[str], *, text_columns: int = 1) -> str:
    """One header row of plain-text column names."""
    styled = [
        f'<th scope="col"{" class=text" if i < text_columns else ""}>{escape(name)}</th>'
        for i, name in enumerate(names)
    ]
    return f"<tr>{''.join(styled)}</tr>"


def figure(png: bytes, *, alt: str, caption: str) -> str:
    """An inlined PNG with its caption."""
    data = base64.b64encode(png).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def grid(figures: Sequence[str]) -> str:
    """Figures side by side where the window is wide enough."""
    return f'<div class="grid">{"".join(figures)}</div>'


def details(title: str, content: str) -> str:
    """Content that starts collapsed."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def preformatted(text: str) -> str:
    """Text as it is, in a fixed-width font."""
    return f"<pre>{escape(text)}</pre>"


def page(
    title: str, *, lead: str, sections: Sequence[tuple[str, str]], banner: str = "", footer: str = ""
) -> str:
    """A whole page: `lead` and section bodies are HTML, all titles and the banner are plain text."""
    contents = "".join(
        f'<li><a href="#section-{i}">{escape(name)}</a></li>' for i, (name, _) in enumerate(sections, start=1)
    )
    body = "\n".join(
        f'<section id="section-{i}"><h2>{escape(name)}</h2>{content}</section>'
        for i, (name, content) in enumerate(sections, start=1)
    )
    alert = f'<div class="banner" role="alert">{escape(banner)}</div>' if banner else ""
    return PAGE.format(
        title=escape(title),
        style=STYLE,
        banner=alert,
        lead=lead,
        contents=contents,
        sections=body,
        footer=escape(footer),
    )
