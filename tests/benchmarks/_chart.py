"""Draws the chart of the benchmark, results.svg: logarithmic axes, shorter bars are better."""

from __future__ import annotations

from html import escape
from math import ceil, floor, log10
from statistics import median
from typing import Any

WIDTH, NAMES, PANEL, GAP = 860, 130, 310, 50
ROW, BAR, TOP, BOTTOM = 24, 14, 58, 36
OURS, OTHERS, INK, GRID = "#0f766e", "#a8b3c1", "#334155", "#e2e8f0"
PANELS = (("p50", "C", "time of a call, median"), ("cpu", "D", "CPU of a delivered event"))


def draw(contenders: dict[str, dict[str, Any]]) -> str:
    """Return the chart as SVG.

    Args:
        contenders: By name, lists of measured values: the figures and the floors of the same rounds.
    """
    height = TOP + ROW * len(contenders) + BOTTOM
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, name in enumerate(contenders):
        weight = "bold" if name == "ts_autotrack" else "normal"
        y = TOP + ROW * number + BAR - 7
        parts.append(f'<text x="{NAMES}" y="{y}" text-anchor="end" font-weight="{weight}">{escape(name)}</text>')
    for number, (figure, floor_name, title) in enumerate(PANELS):
        left = NAMES + 12 + number * (PANEL + GAP)
        values = {name: median(row[figure]) for name, row in contenders.items()}
        least = median(value for row in contenders.values() for value in row[floor_name])
        parts.append(f'<text x="{left}" y="20" font-size="14" font-weight="bold">{title}</text>')
        parts += _panel(values, least, left, height - BOTTOM + 4)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(values: dict[str, float], least: float, left: float, foot: float) -> list[str]:
    first, last = floor(log10(min([*values.values(), least]))), ceil(log10(max(values.values())))

    def x(value: float) -> float:
        return round(left + PANEL * (log10(value) - first) / (last - first), 1)

    parts = []
    for power in range(first, last + 1):
        at = x(10.0**power)
        parts.append(f'<line x1="{at}" y1="{TOP - 10}" x2="{at}" y2="{foot}" stroke="{GRID}"/>')
        parts.append(f'<text x="{at}" y="{foot + 16}" text-anchor="middle" font-size="11">{_shown(10.0**power)}</text>')
    for number, (name, value) in enumerate(values.items()):
        y, color = TOP + ROW * number, OURS if name == "ts_autotrack" else OTHERS
        parts.append(f'<rect x="{left}" y="{y - 4}" width="{x(value) - left:.1f}" height="{BAR}" fill="{color}"/>')
        parts.append(f'<text x="{x(value) + 4:.1f}" y="{y + BAR - 7}" font-size="11">{_shown(value)}</text>')
    at = x(least)
    parts.append(f'<line x1="{at}" y1="{TOP - 14}" x2="{at}" y2="{foot}" stroke="{INK}" stroke-dasharray="3 3"/>')
    parts.append(f'<text x="{at}" y="{TOP - 18}" font-size="11" text-anchor="middle">floor {_shown(least)}</text>')
    return parts


def _shown(microseconds: float) -> str:
    if microseconds >= 1_000:
        return f"{microseconds / 1_000:g} ms"
    return f"{microseconds:.0f} us" if microseconds >= 10 else f"{microseconds:.2g} us"
