"""What pages with pictures of examples share: the page itself, a picture in its text, and figures."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from rethinking import files
from rethinking.drawing import as_svg

SIDE = 96  # pixels of a picture on a page, at most
STYLES = ("page.css", "pictures.css")


@dataclass(frozen=True)
class Shown:
    """One image of a page.

    true_label: only where the label is known to be wrong
    predicted: what networks say that were not trained on it; None where they agree with the label, or were not asked
    file: its file, relative to the data set's folder; None where images are not files of their own
    """

    picture: str
    index: int
    label: str
    true_label: str | None
    value: str
    predicted: str | None = None
    file: str | None = None


def rendered(template: str, **values: Any) -> str:
    """Returns a page from a template that extends `pictures.html.j2`. It is one file that needs no network."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rethinking.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["pretty"] = "{:,}".format
    parts = [(resources.files("rethinking.report") / name).read_text(encoding="utf-8") for name in STYLES]
    return environment.get_template(template).render(style="\n".join(parts), **values)


def write(folder: Path, name: str, page: str) -> Path:
    """Writes a page into a folder, which is made where it is missing, and returns its path. Raises `RunError`."""
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / name, page, durable=False)
    return folder / name


def picture(image: NDArray[np.uint8]) -> str:
    """Returns an image, uint8 (channels, height, width), as the text of a `data:` address; a larger one is reduced."""
    pixels = np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]
    shown, drawn = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    shown.thumbnail((SIDE, SIDE))
    shown.save(drawn, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(drawn.getvalue()).decode()}"


def drawn(figure: Figure, name: str) -> str:
    """Returns a figure as an `<svg>` element, whose text matplotlib has escaped. Templates take it as it is.

    name: seeds the identifiers in it
    """
    return as_svg(figure, name)
