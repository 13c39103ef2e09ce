"""UIDs of transfer syntaxes (PS3.5 A), and which of them compress pixels."""

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
ENCAPSULATED = "1.2.840.10008.1.2.1.98"  # uncompressed, but in fragments (PS3.5 A.4.11)
BIG_ENDIAN = "1.2.840.10008.1.2.2"
NATIVE = frozenset({IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN})

_JPEG = "1.2.840.10008.1.2.4."
RLE = "1.2.840.10008.1.2.5"
# JPEG processes of each transfer syntax (PS3.5 A.4.1, A.4.3), by start of frame marker.
CODINGS = {
    _JPEG + "50": (0xC0,),
    _JPEG + "51": (0xC0, 0xC1),
    _JPEG + "57": (0xC3,),
    _JPEG + "70": (0xC3,),
    _JPEG + "80": (0xF7,),
    _JPEG + "81": (0xF7,),
}
GDCM = frozenset(CODINGS)
OPENJPEG = frozenset(_JPEG + last for last in ("90", "91", "201", "202", "203"))
TALKATIVE = GDCM | {RLE}  # whose decoders print on stderr
COMPRESSED = GDCM | OPENJPEG | {RLE}
SYNTAXES = NATIVE | COMPRESSED | {ENCAPSULATED}
