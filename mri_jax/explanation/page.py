"""The page that ties maps, tables and checks together, as one HTML file and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from mri_jax.explanation.pictures import FAILED_MARK
from mri_jax.showing import pages
from mri_jax.showing.figures import Picture
from mri_jax.showing.forms import grid
from mri_jax.showing.simulated import BANNER
from mri_jax.showing.table import Table

NOT_A_DIAGNOSIS = (
    "Attribution shows what moves a network's score, not what causes disease. Research software; "
    "not a diagnosis."
)


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
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    links: Sequence[tuple[str, str]] = field(default=())

    @property
    def short(self) -> str:
        """The heading without what follows the mark of failures."""
        return self.title.partition(FAILED_MARK)[0]

    @property
    def key(self) -> str:
        """The name by which links within the page reach the section."""
        return "".join(c if c.isalnum() else "-" for c in self.short.lower())


def render(title: str, sections: Sequence[Section], simulated: bool) -> str:
    """Returns the page as HTML: pictures are inside, interactive views and maps are linked."""
    return pages.render(
        "explanation/explanation.html.j2",
        title=title,
        banner=BANNER if simulated else "",
        interactive=False,
        sections=sections,
        simulated=simulated,
        caution=NOT_A_DIAGNOSIS,
    )


def markdown_page(title: str, sections: Sequence[Section], simulated: bool) -> str:
    """Returns the same as Markdown, with pictures by their place."""
    lines = [f"# {title}", ""]
    if simulated:
        lines += [f"**{BANNER}.**", ""]
    lines += [NOT_A_DIAGNOSIS, ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        for note in section.notes:
            lines += [note, ""]
        for table in section.tables:
            lines += [f"### {table.title}", "", grid(table), ""]
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
