"""Plain text as LaTeX."""

from __future__ import annotations

import re

SYMBOLS = {
    **{"α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "ε": r"\varepsilon", "ζ": r"\zeta", "η": r"\eta", "λ": r"\lambda"},
    **{"μ": r"\mu", "ρ": r"\rho", "σ": r"\sigma", "τ": r"\tau", "χ": r"\chi", "ω": r"\omega", "∇": r"\nabla", "∞": r"\infty"},
    **{"↑": r"\uparrow", "↓": r"\downarrow", "±": r"\pm", "−": "-", "×": r"\times", "·": r"\cdot", "≤": r"\leq", "≥": r"\geq"},
}
SPECIAL = {
    **{character: f"\\{character}" for character in "{}$&#_%"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}"},
    **{"|": r"\textbar{}", "–": "--", "—": "---", "…": r"\dots{}"},
    **{character: f"{{{character}}}" for character in '[]*"'},  # \\ reads [ and * as its arguments; " is active in some languages
}
LETTER = rf"[A-Za-z{''.join(SYMBOLS)}]"
MATHS = re.compile(
    rf"(?<!\w)(?P<name>{LETTER})(?P<star>\*?) = (?P<value>-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)(?![\w])"  # t* = 250
    rf"|(?<=\s\()(?P<lone>{LETTER})(?=\))"  # (t)
    rf"|(?P<symbol>[{''.join(SYMBOLS)}])"
)


def latex(text: str) -> str:
    """Escaped text. Equations of one letter ("t* = 250"), single letters in brackets and symbols become mathematics."""
    pieces, end = [], 0
    for found in MATHS.finditer(text):
        pieces += [_escaped(text[end : found.start()]), f"${_maths(found)}$"]
        end = found.end()
    return "".join([*pieces, _escaped(text[end:])])


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(character, character) for character in text)


def _maths(found: re.Match) -> str:
    name = found["name"] or found["lone"] or found["symbol"]
    symbol = SYMBOLS.get(name, name)
    return f"{symbol}{'^*' if found['star'] else ''} = {found['value']}" if found["value"] else symbol
