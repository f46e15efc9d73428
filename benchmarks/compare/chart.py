"""A small picture as SVG: one line for each query, one mark for each engine, on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = {
    "unistream": "#0b7a75",
    "unistream-bounded": "#5fb49c",
    "flink": "#d1495b",
    "flink-heap": "#ee9a9f",
    "flink-minibatch": "#8c2f39",
    "spark": "#edae49",
    "bytewax": "#7768ae",
    "polars": "#3066be",
    "duckdb": "#6b705c",
}
STEP, LEFT, RIGHT, TOP = 17, 76, 24, 46
WIDTH = 720


def chart(
    title: str, rates: Mapping[str, Mapping[str, float]], queries: Sequence[str], titles: Mapping[str, str]
) -> str:
    """Millions of events a second by engine and query; the further right, the faster."""
    values = [rate for of in rates.values() for rate in of.values()]
    least, most = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    most = max(most, least + 1)
    height = TOP + STEP * len(queries) + 34

    def across(rate: float) -> float:
        return LEFT + (math.log10(rate) - least) / (most - least) * (WIDTH - LEFT - RIGHT)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="8" y="16" font-size="13" font-weight="bold">{escape(title)}</text>',
        *_legend(list(rates), titles),
        *_grid(least, most, height, across),
    ]
    for place, query in enumerate(queries):
        parts += _line(query, TOP + STEP * place + STEP // 2, rates, across)
    return "\n".join([*parts, "</svg>", ""])


def _legend(contenders: Sequence[str], titles: Mapping[str, str]) -> list[str]:
    parts, x = [], 14
    for name in contenders:
        parts.append(f'<circle cx="{x}" cy="31" r="5" fill="{COLOURS[name]}"/>')
        parts.append(f'<text x="{x + 9}" y="35">{escape(titles[name])}</text>')
        x += 26 + 7 * len(titles[name])
    return parts


def _grid(least: int, most: int, height: int, across: object) -> list[str]:
    assert callable(across)
    parts = []
    for power in range(least, most + 1):
        for digit in (1, 2, 5):
            rate = digit * 10.0**power
            if rate > 10.0**most:
                break
            x, colour = across(rate), "#bbb" if digit == 1 else "#e8e8e8"
            parts.append(f'<path d="M{x:.1f} {TOP}V{height - 30}" stroke="{colour}"/>')
            parts.append(f'<text x="{x:.1f}" y="{height - 16}" text-anchor="middle">{rate:g}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{height - 3}" text-anchor="end">M events/s</text>')
    return parts


def _line(query: str, y: int, rates: Mapping[str, Mapping[str, float]], across: object) -> list[str]:
    assert callable(across)
    marks = {name: across(of[query]) for name, of in rates.items() if query in of}
    parts = [f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(query)}</text>']
    if marks:
        parts.append(f'<path d="M{min(marks.values()):.1f} {y}H{max(marks.values()):.1f}" stroke="#ccc"/>')
    for name, x in reversed(marks.items()):  # ours last, on top
        parts.append(f'<circle cx="{x:.1f}" cy="{y}" r="5" fill="{COLOURS[name]}"/>')
    return parts
