"""HTML pages that need no network: one environment, one layout and one style sheet for all."""

import base64
import functools
from importlib import resources

import jinja2
from markupsafe import Markup

from mri_jax import __version__
from mri_jax.showing.simulated import COHORTS, SCANS


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


def encoded(image: bytes) -> str:
    """Returns the bytes of an image as a ``data:`` address holds them."""
    return base64.b64encode(image).decode()


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
        "asset": lambda room, name: Markup(asset(room, name)),
    }
    environment.filters["encoded"] = encoded
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}%"
    return environment
