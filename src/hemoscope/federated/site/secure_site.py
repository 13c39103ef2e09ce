"""Secure aggregation at a site: Flower's SecAgg+ modifier, let through only where the site's policy holds.

Flower 1.41 ships SecAgg+ (Bell et al., CCS 2020) for its older workflow API alone: the server's four stages arrive as
TRAIN messages with a record of their own, and a modifier replies three of them by itself: ``setup``, ``share_keys`` and
``unmask``. Only ``collect_masked_vectors`` trains. Each stage is a process of its own in a deployment.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
from numpy.typing import NDArray

from hemoscope.errors import FederationError
from hemoscope.federated.exchange.secure_masks import strengthen_masks
from hemoscope.federated.flower_internals import RECORD_KEY_CONFIGS, RECORD_KEY_STATE, Key, Stage, fitres_to_recorddict
from hemoscope.federated.settings.site import Policy
from hemoscope.federated.settings.site_policy import SecureSetup, check_setup, check_unmask

_EXAMPLES = "fitres.num_examples"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What a site adds to the sum.

    Attributes:
        vector: float64 (n,), every value within the range that the server announced.
        weight: that it counts by, up to the server's highest.
        metrics: that leave in the clear.
    """

    vector: NDArray[np.float64]
    weight: float
    metrics: dict[str, float]


def secure_stage(message: Message) -> str | None:
    """The stage of secure aggregation that a message belongs to; None for any other message."""
    config = message.content.config_records.get(RECORD_KEY_CONFIGS)
    return None if config is None else str(config.get(Key.STAGE))


def answer_secure(message: Message, context: Context, policy: Policy, train: Callable[[], Contribution]) -> Message:
    """ClientUpdate one stage.

    Args:
        message: of the server.
        context: of the site; the protocol keeps its keys in its state, which never leaves.
        policy: of the site.
        train: makes the contribution; called in the one stage that needs it.

    Raises:
        PolicyRefusalError: the server's numbers hide too little, or it asks for shares that would unmask one site.
        FederationError: the stage's record is not what it must be.
    """
    strengthen_masks()
    config = message.content.config_records[RECORD_KEY_CONFIGS]
    stage = config.get(Key.STAGE)
    if stage == Stage.SETUP:
        check_setup(policy, _setup(config))
    if stage == Stage.UNMASK:
        check_unmask(
            message.metadata.dst_node_id,
            _node_ids(config, Key.ACTIVE_NODE_ID_LIST),
            _node_ids(config, Key.DEAD_NODE_ID_LIST),
            threshold=_agreed_threshold(context),
        )

    def contribute(asked: Message, _context: Context) -> Message:
        return _fit_reply(asked, train())

    reply = secaggplus_mod(message, context, contribute)
    if _EXAMPLES in reply.content:  # the weight is in the masked sum; in the clear it would say how large a site is
        reply.content[_EXAMPLES] = MetricRecord({"num_examples": 1})
    return reply


def _fit_reply(asked: Message, contribution: Contribution) -> Message:
    """What the modifier masks; its parameters never leave, the modifier empties them."""
    result = FitRes(
        status=Status(Code.OK, ""),
        parameters=ndarrays_to_parameters([contribution.vector]),
        num_examples=contribution.weight,  # type: ignore[arg-type]  # any number will do for the modifier
        metrics=dict(contribution.metrics),
    )
    return Message(fitres_to_recorddict(result, keep_input=False), reply_to=asked)


def _setup(config: ConfigRecord) -> SecureSetup:
    keys = {
        "sites": Key.SAMPLE_NUMBER,
        "shares": Key.SHARE_NUMBER,
        "threshold": Key.THRESHOLD,
        "steps": Key.TARGET_RANGE,
        "modulus": Key.MOD_RANGE,
    }
    found = {name: config.get(key) for name, key in keys.items()}
    if not all(type(value) is int for value in found.values()):
        msg = "the setup of secure aggregation lacks whole numbers. Do server and sites run the same version?"
        raise FederationError(msg)
    return SecureSetup(**found)  # type: ignore[arg-type]  # checked above


def _node_ids(config: ConfigRecord, key: str) -> list[int]:
    found = config.get(key)
    if not isinstance(found, list) or not all(type(value) is int for value in found):
        msg = "a stage of secure aggregation lacks its list of sites. Do server and sites run the same version?"
        raise FederationError(msg)
    return found  # type: ignore[return-value]  # checked above


def _agreed_threshold(context: Context) -> int:
    """Of the setup that this site answered."""
    state = context.state.config_records.get(RECORD_KEY_STATE)
    agreed = None if state is None else state.get(Key.THRESHOLD)
    if not isinstance(agreed, int):
        msg = "secure aggregation was never set up at this site. Let the server begin the round again"
        raise FederationError(msg)
    return agreed
