"""``data:`` addresses, by which a page holds pictures and files itself."""

import base64
import re
from urllib.parse import quote


def encoded(data: bytes) -> str:
    """Returns bytes in base64."""
    return base64.b64encode(data).decode()


def of_png(data: bytes) -> str:
    """Returns the address of a PNG."""
    return f"data:image/png;base64,{encoded(data)}"


def of_svg(data: bytes) -> str:
    """Returns the address of an SVG, as an image or in a list of sources.

    Its numbers keep two decimals, which is a hundredth of a point, and its lines no indentation.
    """
    data = re.sub(rb"(\.\d\d)\d+", rb"\1", re.sub(rb"\n\s*", rb"\n", data))
    # Spaces and commas would part it in a list.
    return "data:image/svg+xml," + quote(data, safe="!$()*+;=/-._~'")


def of_csv(text: str) -> str:
    """Returns the address of a CSV file."""
    return "data:text/csv;charset=utf-8," + quote(text, safe="!$()*+,;=/-._~' ")
