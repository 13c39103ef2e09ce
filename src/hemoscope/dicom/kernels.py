"""Which reconstruction kernels are sharp: made for bone or lung, too noisy for blood against brain.

Names differ by maker and no standard orders them; these follow the makers' own naming. Siemens numbers sharpness
(H30s soft, H60s and above sharp, also J, B, Hr); Canon's FC30-39, FC50-59 and FC80-89 are bone and lung; Philips has
D, E, L and YB-YE; GE has words.
"""

import re

_WORDS = frozenset(
    {"BONE", "BONEPLUS", "BONE+", "EDGE", "LUNG", "ULTRA", "SHARP", "YB", "YC", "YD", "YE", "D", "E", "L"}
)
_SIEMENS = re.compile(r"(?:H|J|B|I|U|T|S|HR|BR|BL|HC|UR|QR)F?(\d\d)[A-Z]?")
_CANON = re.compile(r"FC(\d\d)")
_CANON_SHARP = (range(30, 40), range(50, 60), range(80, 90))
_DESCRIBED = re.compile(r"\b(bone|knochen|os osseux|hueso|osso|petrous)\b", re.IGNORECASE)


def is_sharp_kernel(kernel: str | None, description: str | None = None) -> bool:
    """Whether a kernel (0018,1210) is one for bone or lung; the series description counts where no kernel is named."""
    if not kernel:
        return bool(description and _DESCRIBED.search(description))
    for word in kernel.upper().replace(",", " ").split():
        siemens, canon = _SIEMENS.fullmatch(word), _CANON.fullmatch(word)
        if word in _WORDS or (siemens and int(siemens[1]) >= 55):
            return True
        if canon and any(int(canon[1]) in sharp for sharp in _CANON_SHARP):
            return True
    return False
