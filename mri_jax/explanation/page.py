"""The page that ties maps, tables and checks together, as one HTML file and as Markdown."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from urllib.parse import quote

import jinja2
import pandas as pd
from markupsafe import Markup

from mri_jax import __version__
from mri_jax.explanation.pictures import FAILED_MARK
from mri_jax.reporting.style import Picture

NOT_A_DIAGNOSIS = (
    "Attribution shows what moves a network's score, not what causes disease. Research software; "
    "not a diagnosis."
)


@dataclass(frozen=True)
class TableView:
    """A table as it is shown.

    Attributes:
      title: Above it.
      frame: Its cells; floats are rounded to three digits.
      note: Below it.
    """

    title: str
    frame: pd.DataFrame
    note: str = ""

    @property
    def cells(self) -> list[list[str]]:
        """Rows of text."""
        return [[_text(cell) for cell in row] for row in self.frame.to_numpy(object).tolist()]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
      title: Its heading.
      notes: Paragraphs.
      tables: Tables.
      pictures: Figures; their PNG lies in ``pictures/KEY.png``.
      links: Text and place (relative to the page) of files beside it.
    """

    title: str
    notes: Sequence[str] = ()
    tables: Sequence[TableView] = ()
    pictures: Sequence[Picture] = ()
    links: Sequence[tuple[str, str]] = field(default=())

    @property
    def short(self) -> str:
        """The heading without what follows the mark of failures."""
        return self.title.partition(FAILED_MARK)[0]

    @property
    def key(self) -> str:
        """For links within the page."""
        return "".join(c if c.isalnum() else "-" for c in self.short.lower())


def render(title: str, sections: Sequence[Section], simulated: bool) -> str:
    """The page as HTML: pictures are inside, interactive views and maps are linked."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    place = resources.files("mri_jax.explanation") / "assets" / "explanation.html.j2"
    css = resources.files("mri_jax.reporting") / "assets" / "report.css"
    encoded = {p.key: base64.b64encode(p.png).decode() for s in sections for p in s.pictures}
    return environment.from_string(place.read_text("utf-8")).render(
        title=title,
        sections=sections,
        simulated=simulated,
        encoded=encoded,
        caution=NOT_A_DIAGNOSIS,
        version=__version__,
        quote=quote,
        css=Markup(css.read_text("utf-8")),
    )


def markdown_page(title: str, sections: Sequence[Section], simulated: bool) -> str:
    """The same as Markdown, with pictures by their place."""
    lines = [f"# {title}", ""]
    if simulated:
        lines += ["**SIMULATED scans: nothing here is about patients.**", ""]
    lines += [NOT_A_DIAGNOSIS, ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        for note in section.notes:
            lines += [note, ""]
        for table in section.tables:
            lines += [f"### {table.title}", "", markdown(table), ""]
            lines += [table.note, ""] if table.note else []
        for picture in section.pictures:
            lines += [
                f"![{picture.caption}]({quote(f'pictures/{picture.key}.png')})",
                "",
                picture.caption,
                "",
            ]
        lines += [f"- [{text}]({quote(place)})" for text, place in section.links]
        lines += [""] if section.links else []
    return "\n".join(lines)


def markdown(table: TableView) -> str:
    """A Markdown table."""
    header = [str(name) for name in table.frame.columns]
    rows = [header, ["---"] * len(header), *table.cells]
    return "\n".join(f"| {' | '.join(c.replace('|', '/') for c in row)} |" for row in rows)


def _text(cell: object) -> str:
    if isinstance(cell, float):
        return "" if cell != cell else f"{cell:.3g}"
    return str(cell)
