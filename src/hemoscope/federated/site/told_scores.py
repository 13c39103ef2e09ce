"""How often a site told of its scores: histograms of the same patients under many weights give single scores away."""

import json
from pathlib import Path

from hemoscope.errors import FederationError
from hemoscope.federated.settings.site_policy import PolicyRefusalError
from hemoscope.training.run_folder import write_json

TOLD = "told.json"


def count_telling(folder: Path, *, most: int) -> None:
    """Write down that scores of a part leave once more; called before they do.

    Args:
        folder: of the part's work at this site.
        most: times that scores of one part may leave.

    Raises:
        PolicyRefusalError: they left as often as they may.
        FederationError: the file that counts is damaged; it is not begun anew, for then a damage would be a way round.
    """
    path, times = folder / TOLD, 0
    if path.exists():
        try:
            times = int(json.loads(path.read_text())["times"])
        except (ValueError, KeyError, TypeError) as error:
            msg = f"{path.name} does not say how often scores left ({type(error).__name__}). See audit.jsonl, mend it"
            raise FederationError(msg) from error
    if times >= most:
        msg = f"This site tells of its scores at most {most} times a part."
        raise PolicyRefusalError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {"times": times + 1})
