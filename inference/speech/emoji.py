"""What speech cannot say: emoji and emoticons, as closed tables (Unicode's ``emoji-data``, and what people type)."""

from __future__ import annotations

from collections.abc import Iterable


def _characters(ranges: Iterable[tuple[int, int]]) -> frozenset[str]:
    return frozenset(chr(point) for low, high in ranges for point in range(low, high + 1))


# Shown as emoji, or never part of a sentence. The supplementary planes go whole: what is added there will be emoji too.
EMOJI = _characters(
    [
        (0x1F000, 0x1FAFF), (0x231A, 0x231B), (0x2328, 0x2328), (0x23CF, 0x23CF), (0x23E9, 0x23F3), (0x23F8, 0x23FA),
        (0x25FB, 0x25FE), (0x2600, 0x2604), (0x260E, 0x260E), (0x2611, 0x2611), (0x2614, 0x2615), (0x2618, 0x2618),
        (0x261D, 0x261D), (0x2620, 0x2620), (0x2622, 0x2623), (0x2626, 0x2626), (0x262A, 0x262A), (0x262E, 0x262F),
        (0x2638, 0x263A), (0x2640, 0x2640), (0x2642, 0x2642), (0x2648, 0x2653), (0x265F, 0x2660), (0x2663, 0x2663),
        (0x2665, 0x2666), (0x2668, 0x2668), (0x267B, 0x267B), (0x267E, 0x267F), (0x2692, 0x2697), (0x2699, 0x2699),
        (0x269B, 0x269C), (0x26A0, 0x26A1), (0x26A7, 0x26A7), (0x26AA, 0x26AB), (0x26B0, 0x26B1), (0x26BD, 0x26BE),
        (0x26C4, 0x26C5), (0x26C8, 0x26C8), (0x26CE, 0x26CF), (0x26D1, 0x26D1), (0x26D3, 0x26D4), (0x26E9, 0x26EA),
        (0x26F0, 0x26F5), (0x26F7, 0x26FA), (0x26FD, 0x26FD), (0x2702, 0x2702), (0x2705, 0x2705), (0x2708, 0x270D),
        (0x270F, 0x270F), (0x2712, 0x2716), (0x271D, 0x271D), (0x2721, 0x2721), (0x2728, 0x2728), (0x2733, 0x2734),
        (0x2744, 0x2744), (0x2747, 0x2747), (0x274C, 0x274C), (0x274E, 0x274E), (0x2753, 0x2755), (0x2757, 0x2757),
        (0x2763, 0x2764), (0x2795, 0x2797), (0x27A1, 0x27A1), (0x27B0, 0x27B0), (0x27BF, 0x27BF), (0x2B05, 0x2B07),
        (0x2B1B, 0x2B1C), (0x2B50, 0x2B50), (0x2B55, 0x2B55),
    ]
)  # fmt: skip

# Ordinary text, unless the emoji variation selector follows.
EMOJI_ON_REQUEST = frozenset("©®‼⁉™ℹ↔↕↖↗↘↙↩↪Ⓜ▪▫▶◀⤴⤵〰〽㊗㊙")
KEYCAPS = frozenset("0123456789#*")
EMOJI_SELECTOR = "\ufe0f"
KEYCAP = "\u20e3"
JOINER = "\u200d"
# Parts of emoji sequences (selectors, the keycap, tags), and what is nothing at all wherever it stands.
SILENT = frozenset("\ufe0e\ufe0f\u20e3\u200b\u2060\ufeff") | _characters([(0xE0020, 0xE007F)])

_EYES, _NOSES, _MOUTHS = ":;=", ("", "-"), ")(DPpOo/3"
_FACES = {eyes + nose + mouth for eyes in _EYES for nose in _NOSES for mouth in _MOUTHS} - {
    "=/",
    ";/",
    ";3",
    "=3",
    "=O",
}
_OTHERS = [
    ":'(", ":')", ":'-(", ":'-)", ">:(", ">:)", ":>", "<3", "</3", "^^", "^_^", "^-^", "^.^", "-_-", ">_<", ">.<",
    "T_T", "o_O", "O_o", "o_o", "O_O", "u_u", "U_U", "xD", "XD", "\\o/", "¯\\_(ツ)_/¯",
]  # fmt: skip
EMOTICONS = frozenset(_FACES.union(_OTHERS))
# Those that are meant even where they touch the word before them.
GLUED_EMOTICONS = frozenset({":)", ";)", ":-)", ";-)", ":-(", ":-D", ":-P"})


def prefixes(texts: Iterable[str]) -> frozenset[str]:
    """Every beginning of the texts, they themselves included."""
    return frozenset(text[:length] for text in texts for length in range(1, len(text) + 1))
