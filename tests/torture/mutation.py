"""Damages inputs: bytes, lines of text, and values in JSON. The same number always does the same."""

import json
import random
from collections.abc import Callable
from typing import Any

STRANGE_NUMBERS = (0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 1e308, -1e308, 1e-320, 0.1, 1.5, 10**400)
STRANGE_TEXTS = ("", " ", "\x00", "\ud800", "é\u202e", "../../x", "=1+1", "1,5", "-0", "nan", "1e999", "x" * 5000)
_NUMBERS = [str(one) for one in STRANGE_NUMBERS]
Mutate = Callable[[bytes, random.Random], bytes]


def mutate_bytes(data: bytes, random_: random.Random) -> bytes:
    """Flip, cut, copy or overwrite bytes, in one to four places."""
    damaged = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 4))):
        place = random_.randrange(len(damaged) + 1)
        match random_.randrange(6):
            case 0 if damaged:
                damaged[place - 1] ^= 1 << random_.randrange(8)
            case 1:
                del damaged[place:]
            case 2:
                del damaged[place : place + random_.randrange(1, 64)]
            case 3:
                start = random_.randrange(len(damaged) + 1)
                damaged[place:place] = damaged[start : start + random_.randrange(1, 256)]
            case 4:
                width = random_.choice((1, 2, 4, 8))
                value = random_.choice((0, 1, 0x7F, 0xFF, 2 ** (8 * width) - 1, 2 ** (8 * width - 1)))
                damaged[place : place + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
            case _:
                damaged[place:place] = random_.randbytes(random_.randrange(1, 16))
    return bytes(damaged)


def mutate_text(data: bytes, random_: random.Random) -> bytes:
    """Change, repeat, move or remove lines and words; sometimes bytes, or the encoding."""
    if random_.random() < 0.25:
        return mutate_bytes(data, random_)
    text = data.decode("utf-8", "replace")
    for _ in range(random_.choice((1, 1, 2, 4))):
        text = _changed(text, random_)
    encoding = random_.choices(("utf-8", "utf-8-sig", "utf-16", "latin-1"), (20, 2, 2, 1))[0]
    return text.encode(encoding, "replace" if encoding == "latin-1" else "surrogatepass")


_LONG_LINE = 100_000


def _changed(text: str, random_: random.Random) -> str:
    lines = text.splitlines(keepends=True) or [""]
    place = random_.randrange(len(lines))
    line = lines[place]
    match random_.randrange(7):
        case 0:
            lines.insert(random_.randrange(len(lines) + 1), line)
        case 1:
            del lines[place]
        case 2:
            times = random_.choice((2, 50))
            # A document of one line, repeated again and again, was 257 MB: the mutator's own doing.
            lines[place] = line * (times if len(line) <= _LONG_LINE else 2)
        case 3:
            found = [one for one in (",", ";", "=", ".", ":", '"', "[", "]", "\n", "\t") if one in line] or [line]
            lines[place] = line.replace(random_.choice(found), random_.choice((",", ";", "=", "[" * 3000, "", '"')), 1)
        case 4:
            start = random_.randrange(len(line) + 1)
            lines[place] = line[:start] + random_.choice(STRANGE_TEXTS) + line[start:]
        case 5:
            words = line.replace("=", ",").split(",")
            word = random_.choice(words).strip() or line
            lines[place] = line.replace(word, random_.choice((*STRANGE_TEXTS, *_NUMBERS, "true", "[]", "{}")), 1)
        case _:
            start = random_.randrange(len(line) + 1)
            lines[place] = line[:start] + chr(random_.randrange(0x3000)) + line[start + random_.randrange(3) :]
    return "".join(lines)


def mutate_json(data: bytes, random_: random.Random) -> bytes:
    """Replace, remove, add or nest values of a JSON document; sometimes change its text."""
    if random_.random() < 0.2:
        return mutate_text(data, random_)
    document = json.loads(data)
    for _ in range(random_.choice((1, 1, 2, 4))):
        document = _damaged(document, random_)
    return json.dumps(document).encode()


def _damaged(value: Any, random_: random.Random) -> Any:
    """Walk down to a value at random, and replace it."""
    if isinstance(value, dict) and value and random_.random() < 0.85:
        key = random_.choice(list(value))
        match random_.randrange(8):
            case 0:
                return {name: one for name, one in value.items() if name != key}
            case 1:
                return {**value, random_.choice((*STRANGE_TEXTS, "files", "format")): _strange(value, random_)}
            case _:
                return {**value, key: _damaged(value[key], random_)}
    if isinstance(value, list) and value and random_.random() < 0.85:
        place = random_.randrange(len(value))
        if random_.random() < 0.3:
            return value[:place] + value[place:] * random_.choice((0, 2, 20))
        return [*value[:place], _damaged(value[place], random_), *value[place + 1 :]]
    return _strange(value, random_)


def _strange(value: Any, random_: random.Random) -> Any:
    deep: Any = value
    for _ in range(random_.choice((1, 3, 200))):
        deep = [deep]
    near = value * random_.choice((-1, 2, 1000)) if isinstance(value, int | float) else None
    choices = (*STRANGE_NUMBERS, *STRANGE_TEXTS, None, True, [], {}, deep, near, float("nan"), float("inf"))
    return random_.choice(choices)
