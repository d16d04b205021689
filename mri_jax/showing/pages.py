"""HTML pages that need no network: one environment, one layout and one style sheet for all."""

import functools
from importlib import resources

import jinja2
from markupsafe import Markup

from mri_jax import __version__
from mri_jax.filenames import safe_name
from mri_jax.showing import addresses, forms, glossary
from mri_jax.showing.simulated import COHORTS, SCANS
from mri_jax.showing.table import condensed


def render(template: str, **parts: object) -> str:
    """Returns a page; every text from data is escaped by the template engine.

    Args:
      template: ``ROOM/FILE``: the template ``FILE`` among the assets of ``mri_jax.ROOM``. It
        extends ``showing/page.html.j2``, which says what a page needs.
      parts: What the template shows.
    """
    return _environment().get_template(template).render(**parts)


def asset(room: str, name: str) -> str:
    """Returns the text of a file among the assets of a room, e.g. ``("showing", "page.css")``."""
    return (resources.files(f"mri_jax.{room}") / "assets" / name).read_text("utf-8")


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: asset(*name.split("/", 1))),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "version": __version__,
        "simulated_scans": SCANS,
        "simulated_cohorts": COHORTS,
        "terms": {glossary.key(term): (term, told) for term, told in glossary.TERMS.items()},
        "asset": lambda room, name: Markup(asset(room, name)),
    }
    environment.filters |= {
        "encoded": addresses.encoded,
        "percent": lambda value: f"{100 * value:.1f}%",
        "condensed": condensed,
        "csv_address": lambda table, simulated: addresses.of_csv(forms.csv(table, simulated)),
        "latex": forms.latex,
        "explained": glossary.explained,
        "file_name": lambda name: safe_name(name, keep="_"),
    }
    return environment
