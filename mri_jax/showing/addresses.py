"""``data:`` addresses, by which a page holds pictures and files itself."""

import base64
import re
from urllib.parse import quote

_TAG, _LONG = re.compile(rb"<[^>]*>"), re.compile(rb"(\.\d\d)\d+")


def encoded(data: bytes) -> str:
    """Returns bytes in base64."""
    return base64.b64encode(data).decode()


def of_png(data: bytes) -> str:
    """Returns the address of a PNG."""
    return f"data:image/png;base64,{encoded(data)}"


def of_svg(data: bytes) -> str:
    """Returns the address of an SVG, as an image or in a list of sources.

    The numbers of its shapes keep two decimals, which is a hundredth of a point, those of its text
    all of them; its lines have no indentation.
    """
    data = _TAG.sub(lambda tag: _LONG.sub(rb"\1", tag[0]), re.sub(rb"\n\s*", rb"\n", data))
    # Spaces and commas would part it in a list.
    return "data:image/svg+xml," + quote(data, safe="!$()*+;=/-._~'")


def of_csv(text: str) -> str:
    """Returns the address of a CSV file."""
    return "data:text/csv;charset=utf-8," + quote(text, safe="!$()*+,;=/-._~' ")
