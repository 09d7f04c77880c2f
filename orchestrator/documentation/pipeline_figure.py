"""The figure of the pipeline, as an SVG that is readable on light and on dark pages.

It has no background. Boxes have their own background colours with sufficient contrast to their
text, and arrows are of a grey that is visible on white and on black.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

BOX_WIDTH, BOX_HEIGHT = 160, 56
GAP_X, GAP_Y = 32, 36
MARGIN = 12
HEAD = 10  # length of an arrow's head
COLUMNS, ROWS = 5, 4
WIDTH = 2 * MARGIN + COLUMNS * BOX_WIDTH + (COLUMNS - 1) * GAP_X
HEIGHT = 2 * MARGIN + ROWS * BOX_HEIGHT + (ROWS - 1) * GAP_Y
GREY, TEXT, NOTE = "#7d8590", "#111827", "#374151"
FONT = "Helvetica, Arial, sans-serif"
# Fill and border of a box, by what it is.
COLOURS = {
    "data": ("#dbeafe", "#3b82f6"),
    "model": ("#dcfce7", "#22a355"),
    "search": ("#fef3c7", "#d69e0b"),
    "result": ("#f3e8ff", "#a06be0"),
}
ALT = (
    "Pipeline: data, policy, preference pairs, ORM and reference reward model, partial pairs, PRM,"
    " search, evaluation, report"
)


@dataclass(frozen=True)
class Box:
    """A step of the pipeline.

    Attributes:
        column: from 0, left to right.
        row: from 0, top to bottom.
        kind: a key of ``COLOURS``.
        title: its name.
        note: what happens in it, some 26 characters.
    """

    column: int
    row: int
    kind: str
    title: str
    note: str

    @property
    def left(self) -> int:
        """X of the left edge."""
        return MARGIN + self.column * (BOX_WIDTH + GAP_X)

    @property
    def right(self) -> int:
        """X of the right edge."""
        return self.left + BOX_WIDTH

    @property
    def top(self) -> int:
        """Y of the upper edge."""
        return MARGIN + self.row * (BOX_HEIGHT + GAP_Y)

    @property
    def bottom(self) -> int:
        """Y of the lower edge."""
        return self.top + BOX_HEIGHT

    @property
    def x(self) -> int:
        """X of the middle."""
        return self.left + BOX_WIDTH // 2

    @property
    def y(self) -> int:
        """Y of the middle."""
        return self.top + BOX_HEIGHT // 2


DATA = Box(0, 1, "data", "Data", "prompts, demonstrations")
POLICY = Box(1, 1, "model", "Policy", "imitates demonstrations")
PAIRS = Box(2, 1, "data", "Preference pairs", "whole responses")
ORM = Box(3, 0, "model", "ORM", "Bradley-Terry (Eq. 1)")
REFERENCE = Box(3, 1, "model", "Reference RM", "Bradley-Terry (Eq. 1)")
PARTIAL = Box(3, 2, "data", "Partial pairs", "TLT or SST, weights 1/H")
PRM = Box(4, 1, "model", "PRM", "from the ORM (Eq. 3)")
SEARCH = Box(2, 3, "search", "Search", "best-of-n, CBS, ARGS, ...")
EVALUATION = Box(3, 3, "result", "Evaluation", "intervals, paired tests")
REPORT = Box(4, 3, "result", "Report", "report.html, MLflow")
BOXES = (DATA, POLICY, PAIRS, ORM, REFERENCE, PARTIAL, PRM, SEARCH, EVALUATION, REPORT)


def pipeline_figure() -> str:
    """Return the figure as the text of an SVG file."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}"'
        f' height="{HEIGHT}" role="img">',
        f"<title>{ALT}</title>",
        *(_arrow(points) for points in _arrows()),
        _text("scorers: ORM, PRM", SEARCH.x + 54, SEARCH.top - GAP_Y // 2 - 6, 12, GREY),
        *(_box(box) for box in BOXES),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _arrows() -> Iterator[list[tuple[int, int]]]:
    """The corners of each arrow, from its beginning to its head."""
    for source, target in (
        (DATA, POLICY), (POLICY, PAIRS), (PAIRS, REFERENCE), (SEARCH, EVALUATION),
        (EVALUATION, REPORT),
    ):  # fmt: skip
        yield [(source.right, source.y), (target.left, target.y)]
    yield [(PAIRS.x, PAIRS.top), (PAIRS.x, ORM.y), (ORM.left, ORM.y)]
    yield [(PAIRS.x, PAIRS.bottom), (PAIRS.x, PARTIAL.y), (PARTIAL.left, PARTIAL.y)]
    yield [(REFERENCE.x, REFERENCE.bottom), (REFERENCE.x, PARTIAL.top)]
    yield [(ORM.right, ORM.y), (PRM.x, ORM.y), (PRM.x, PRM.top)]
    lower = PRM.x - BOX_WIDTH // 4
    yield [(PARTIAL.right, PARTIAL.y), (lower, PARTIAL.y), (lower, PRM.bottom)]
    yield [(POLICY.x, POLICY.bottom), (POLICY.x, SEARCH.y), (SEARCH.left, SEARCH.y)]
    scorer, between = PRM.x + BOX_WIDTH // 4, SEARCH.top - GAP_Y // 2
    yield [(scorer, PRM.bottom), (scorer, between), (SEARCH.x, between), (SEARCH.x, SEARCH.top)]


def _arrow(points: list[tuple[int, int]]) -> str:
    (x, y), (head_x, head_y) = points[-2:]
    right, down = (head_x > x) - (head_x < x), (head_y > y) - (head_y < y)
    back_x, back_y = head_x - HEAD * right, head_y - HEAD * down
    half = HEAD // 2
    corners = [
        (head_x, head_y),
        (back_x - half * down, back_y - half * right),
        (back_x + half * down, back_y + half * right),
    ]
    line = "L".join(f"{x} {y}" for x, y in [*points[:-1], (back_x, back_y)])
    head = "L".join(f"{x} {y}" for x, y in corners)
    return (
        f'<path d="M{line}" fill="none" stroke="{GREY}" stroke-width="2"/>'
        f'<path d="M{head}Z" fill="{GREY}"/>'
    )


def _box(box: Box) -> str:
    fill, border = COLOURS[box.kind]
    return (
        f'<rect x="{box.left}" y="{box.top}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="8"'
        f' fill="{fill}" stroke="{border}" stroke-width="1.5"/>'
        + _text(box.title, box.x, box.y - 5, 15, TEXT, "bold")
        + _text(box.note, box.x, box.y + 15, 12, NOTE)
    )


def _text(text: str, x: int, y: int, size: int, colour: str, weight: str = "normal") -> str:
    return (
        f'<text x="{x}" y="{y}" font-family="{FONT}" font-size="{size}" font-weight="{weight}"'
        f' text-anchor="middle" fill="{colour}">{escape(text)}</text>'
    )
