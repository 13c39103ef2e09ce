"""One round of a federation as one line, for ``simulate`` and ``run``."""

from collections.abc import Mapping
from typing import Any


def round_line(part: str, record: Mapping[str, Any], rounds: int) -> str:
    """Who took part, the loss, the pooled AUROC with its bounds, epsilon, and which sites were left out and why.

    Args:
        part: name of the part.
        record: a line of ``rounds.jsonl``.
        rounds: of the federation.
    """
    words = [f"{part}: round {record.get('number')} of {rounds}"]
    if record.get("void"):
        words.append("void")
    elif "used" in record:  # a round that was finished before a resume is only scored
        words.append(f"{len(record['used'])} of {len(record['asked'])} sites")
    if losses := record.get("losses"):
        words.append(f"loss {sum(losses.values()) / len(losses):.4f}")
    auroc = (((record.get("scores") or {}).get("auroc") or {}).get("slices") or {}).get("any")
    if auroc:
        words.append(f"AUROC of any {auroc['value']:.3f} ({auroc['low']:.3f} to {auroc['high']:.3f})")
    if record.get("epsilon") is not None:
        words.append(f"epsilon {record['epsilon']:.3g}")
    words += [f"site {site} refused: {why}" for site, why in (record.get("refused") or {}).items()]
    words += [f"site {site} suspicious: {'; '.join(why)}" for site, why in (record.get("suspicious") or {}).items()]
    words += [f"site {site} lost" for site in record.get("lost") or ()]
    if record.get("seconds") is not None:
        words.append(f"{record['seconds']:.0f} s")
    return ", ".join(words)
