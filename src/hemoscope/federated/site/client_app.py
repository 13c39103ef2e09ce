"""The site's side: what a SuperNode runs for each message. It decides what leaves, and writes it down before it does.

What trains and scores is imported where it is needed: in a deployment each message is a fresh process, and three of the
four stages of secure aggregation only handle keys.
"""

import logging
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from hemoscope.errors import ConfigError, DataError, FederationError, HemoscopeError, TrainingError
from hemoscope.federated.exchange.messages import parse_request, score_records, train_records
from hemoscope.federated.flower_internals import ErrorCode
from hemoscope.federated.settings.site_policy import PolicyRefusalError
from hemoscope.federated.site.audit import AuditTrail
from hemoscope.federated.site.secure_site import Contribution, answer_secure, secure_stage

if TYPE_CHECKING:
    from hemoscope.federated.exchange.histograms import CellCounts
    from hemoscope.federated.settings.site import Site

SiteOf = Callable[[Context], "Site"]
# The reply, and the cells of the histograms in it, which the audit file counts.
Answer = tuple[Message, "CellCounts | None"]
Handle = Callable[[Message, Context, "Site"], Answer]

_LOG = logging.getLogger(__name__)
FAILED = "This site failed. Its own log says why."
# All that a server ever reads of a failure here, by kind; a policy's refusal has its own sentence.
SENTENCES: tuple[tuple[type[HemoscopeError], str], ...] = (
    (DataError, "This site's data do not suffice for what was asked. Its own log says why."),
    (TrainingError, "This site could not train. Its own log says why."),
    (ConfigError, "This site does not know the federation's settings. Its own log says why."),
    (FederationError, "This site did not take the message as it came. Its own log says why."),
)
UNWRITTEN = "This site could not write its audit file, so nothing leaves it."


def make_client_app(site_of: SiteOf) -> ClientApp:
    """The client app of a site.

    Args:
        site_of: finds the site of a node, from what was configured there.

    Returns:
        An app for TRAIN (with secure aggregation and without) and EVALUATE. Whatever fails in it is answered with one
        fixed sentence: no path, no id and no text of an exception leaves a site.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        """Train one round, or answer one stage of secure aggregation."""
        return _answer(message, context, site_of, _train)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        """Score what is held out, and send histograms."""
        return _answer(message, context, site_of, _evaluate)

    return app


def _train(message: Message, context: Context, site: "Site") -> Answer:
    if secure_stage(message) is not None:
        return answer_secure(message, context, site.policy, lambda: _contribution(message, site)), None
    from hemoscope.federated.site.site_task import train_reply, validate_request

    reply = train_reply(validate_request(site, parse_request(message.content)))
    return Message(train_records(reply), reply_to=message), None


def _contribution(message: Message, site: "Site") -> Contribution:
    from hemoscope.federated.site.site_task import contribution, validate_request

    return contribution(validate_request(site, parse_request(message.content)))


def _evaluate(message: Message, _context: Context, site: "Site") -> Answer:
    from hemoscope.federated.site.site_task import score_reply, validate_request

    found = score_reply(validate_request(site, parse_request(message.content)))
    return Message(score_records(found.texts), reply_to=message), found.cells


def _answer(message: Message, context: Context, site_of: SiteOf, handle: Handle) -> Message:
    """Handle a message at the one boundary between a site and the rest of the world."""
    try:
        site = site_of(context)
    except Exception as error:  # noqa: BLE001  Flower would send the text of whatever passes here to the server
        return _refusal(message, error)
    cells: CellCounts | None = None
    try:
        # The modifier of secure aggregation takes its stage out of the message, so its name is looked up first.
        kind = _kind(message)
        _record(site, message, context, "in", kind)
        reply, cells = handle(message, context, site)
    except Exception as error:  # noqa: BLE001  as above
        kind, reply = message.metadata.message_type, _refusal(message, error)
    try:
        _record(site, reply, context, "out", kind, cells=cells)
    except OSError as error:
        _log_failure(error)
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, UNWRITTEN), reply_to=message)
    return reply


def _kind(message: Message) -> str:
    stage = secure_stage(message)
    return message.metadata.message_type if stage is None else f"{message.metadata.message_type}: {stage[:40]}"


def _record(
    site: "Site",
    message: Message,
    context: Context,
    direction: str,
    kind: str,
    *,
    cells: "CellCounts | None" = None,
) -> None:
    AuditTrail(site.audit_path).record(
        "in" if direction == "in" else "out",
        run=context.run_id,
        group=message.metadata.group_id,
        kind=kind,
        content=message.content if message.has_content() else None,
        reason=str(message.error.reason) if message.has_error() else None,
        cells=cells,
    )


def _refusal(message: Message, error: Exception) -> Message:
    _log_failure(error)
    if isinstance(error, PolicyRefusalError):
        return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, str(error)), reply_to=message)
    sentence = next((text for kind, text in SENTENCES if isinstance(error, kind)), FAILED)
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, sentence), reply_to=message)


def _log_failure(error: Exception) -> None:
    """Into the site's own log: our errors in full, of others the kind and where, for their text may name a patient."""
    if isinstance(error, HemoscopeError):
        _LOG.error("%s: %s", type(error).__name__, error)
        return
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].name}, line {frames[-1].lineno}" if frames else "nowhere"
    ours = next((f"{frame.name}, line {frame.lineno}" for frame in reversed(frames) if _is_ours(frame.filename)), where)
    _LOG.error("%s in %s (%s)", type(error).__name__, ours, where)


def _is_ours(filename: str) -> bool:
    return "hemoscope" in filename.replace("\\", "/").split("/")
