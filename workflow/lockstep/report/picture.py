"""A finished figure, and how it is put into the page. Apart from `drawing`: takes no Matplotlib."""

import re
from dataclasses import dataclass

INK = "#010203"
COLOURS = {"torch": "#d55e00", "jax": "#0072b2"}
"""Of Okabe and Ito's palette, which colour-blind people tell apart."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished figure.

    Attributes:
        name: of its files.
        title: its caption.
        alternative: what it shows, in words, for who cannot see it.
        note: how to read it.
        svg, png: its files' content.
    """

    name: str
    title: str
    alternative: str
    note: str
    svg: bytes
    png: bytes


def inline(picture: Picture) -> str:
    """Return a figure as SVG to be put into a page: page's text colour, ids of its own."""
    text = picture.svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor")
    for framework, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{framework})")  # the page has a lighter one for dark
    text = re.sub(r"(font: [\d.]+px) [^\";]+", r"\1 system-ui, sans-serif", text)
    text = re.sub(r'\bid="', f'id="{picture.name}-', text)
    text = re.sub(r'href="#', f'href="#{picture.name}-', text)
    text = re.sub(r"url\(#", f"url(#{picture.name}-", text)
    label = _escape(f"{picture.title}. {picture.alternative}")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _escape(text: str) -> str:
    for a, b in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;")):
        text = text.replace(a, b)
    return text
