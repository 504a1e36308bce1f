"""A finished figure, and how it is put into the page. Takes no Matplotlib."""

import html
import re
from dataclasses import dataclass

INK, PAPER = "#010203", "#fdfcfb"

PALETTE = {"torch": "#d55e00", "jax": "#0072b2", "purple": "#7b3294"}
"""Colours of figures in files, and of the page in the light; in the dark it has others by name."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished figure."""

    title: str  # its caption
    alternative: str  # what it shows, in words, for who cannot see it
    note: str  # how to read it
    wide: bool  # whether it takes the page's whole width
    svg: bytes  # its files' content
    png: bytes
    name: str = ""  # of its files, once it is part of a report


def inline(picture: Picture) -> str:
    """Return a figure as SVG to be put into a page: the page's colours, ids of its own."""
    label = html.escape(f"{picture.title}. {picture.alternative}")
    drawn = inlined(picture.svg, picture.name)
    return drawn.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def inlined(svg: bytes, name: str) -> str:
    """Return a figure's file as the page holds it, but for its words."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor").replace(PAPER, "var(--paper)")
    for colour, value in PALETTE.items():
        text = text.replace(value, f"var(--{colour}, {value})")
    text = re.sub(r"(font: [\d.]+px) [^\";]+", r"\1 system-ui, sans-serif", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    return re.sub(r"url\(#", f"url(#{name}-", text)
