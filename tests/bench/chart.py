"""SVG charts of benchmark figures, for the documentation."""

from html import escape

_WIDTH, _ROW, _LEFT, _TOP = 720, 26, 170, 34
_COLOURS = {
    "front": "#3b6ea5",
    "isolates": "#d98c3f",
    "clickhouse": "#7a9e5a",
    "workerd": "#8a63a8",
    "others": "#999999",
}


def bars(table):
    """Return a chart of the CPU time of a request, by process, for each system of a table."""
    longest = max(sum(row["cpu_us_by_process"].values()) for row in table.values())
    scale = (_WIDTH - _LEFT - 70) / longest
    parts = []
    for index, (name, row) in enumerate(table.items()):
        top = _TOP + index * _ROW
        parts.append(_text(_LEFT - 8, top + 14, name, "end"))
        left = _LEFT
        for role, used in row["cpu_us_by_process"].items():
            width = used * scale
            parts.append(
                f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="18"'
                f' fill="{_COLOURS[role]}"/>'
            )
            left += width
        parts.append(_text(left + 6, top + 14, f"{row['cpu_us']['median']:.0f}", "start"))
    height = _TOP + len(table) * _ROW + 10
    return _svg(height, [_text(8, 18, "CPU time of a request (us)", "start"), *_legend(), *parts])


def _legend():
    left = 250
    for role, colour in _COLOURS.items():
        yield f'<rect x="{left}" y="8" width="12" height="12" fill="{colour}"/>'
        yield _text(left + 16, 18, role, "start")
        left += 90


def _text(left, bottom, text, anchor):
    return f'<text x="{left:.1f}" y="{bottom}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(height, parts):
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        f' font-family="sans-serif" font-size="12">\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>\n{body}\n</svg>\n'
    )
