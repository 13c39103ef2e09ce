"""Secure aggregation: the sum is right, no single update shows, and a site may leave after its keys were shared."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.common import bytes_to_ndarray
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.supercore.task_identity import TaskIdentity

from hemoscope.errors import FederationError
from hemoscope.federated.exchange.secure_vector import from_mean, length_of, secure_vector
from hemoscope.federated.server.secure import MaskedMean, MaskSettings, masked_mean
from hemoscope.federated.settings.site import Policy
from hemoscope.federated.settings.site_policy import MODULUS, STEPS, PolicyRefusalError
from hemoscope.federated.site.secure_site import Contribution, answer_secure, secure_stage

Floats = NDArray[np.float64]
Grid = Any
REACH, LENGTH, MOST = 2.0, 5000, 1000.0
SETTINGS = MaskSettings(shares=3, threshold=2, clipping_range=REACH, length=LENGTH, max_weight=MOST, timeout=60.0)


@pytest.fixture(autouse=True)
def _identity() -> None:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 1


def updates(sites: int, seed: int = 0) -> dict[int, Floats]:
    drawn = np.random.default_rng(seed).normal(0, 0.01, (sites, LENGTH))
    return {node + 11: np.asarray(row) for node, row in enumerate(drawn)}


def weights(sites: int) -> dict[int, float]:
    return {node + 11: 100.0 * (node + 1) for node in range(sites)}


@pytest.fixture
def masked_grid(local_grid: Callable[..., Grid]) -> Callable[..., Grid]:
    """``masked_grid(vectors, weights, policy=, spoil=)``: sites whose contributions are given."""

    def build(
        vectors: Mapping[int, Floats],
        counts: Mapping[int, float],
        *,
        policy: Policy | None = None,
        spoil: Callable[[int, str, Message], Message] = lambda _node, _stage, reply: reply,
    ) -> Grid:
        def answer(message: Message, context: Context) -> Message:
            node, stage = message.metadata.dst_node_id, str(secure_stage(message))
            given = Contribution(vector=vectors[node], weight=counts[node], metrics={"loss": 0.5})
            try:
                reply = answer_secure(message, context, policy or Policy(), lambda: given)
            except FederationError as error:
                return Message(Error(2, str(error)), reply_to=message)
            return spoil(node, stage, reply)

        return local_grid(dict.fromkeys(vectors, answer))

    return build


def run(grid: Grid, settings: MaskSettings = SETTINGS) -> MaskedMean:
    context = Context(7, 1, {}, RecordDict(), {})
    return masked_mean(grid, context, grid.get_node_ids(), RecordDict(), settings, number=3)


def plain_mean(vectors: Mapping[int, Floats], counts: Mapping[int, float], nodes: Any = None) -> Floats:
    chosen = list(vectors if nodes is None else nodes)
    return np.average([vectors[node] for node in chosen], axis=0, weights=[counts[node] for node in chosen])


def tolerance(counts: Mapping[int, float], nodes: Any = None) -> float:
    """A step of rounding a site, over the weight of all; and the rounding of each weight, half a step of it."""
    chosen = list(counts if nodes is None else nodes)
    share = sum(counts[node] for node in chosen) / MOST
    return len(chosen) * (2 * REACH / STEPS + 0.1 / STEPS) / share


def collected(grid: Grid) -> dict[int, Message]:
    return {node: reply for node, _, stage, reply in grid.trace if stage == Stage.COLLECT_MASKED_VECTORS}


@pytest.mark.parametrize("sites", [3, 4, 5])
def test_the_masked_mean_is_the_weighted_mean_to_within_the_rounding(
    masked_grid: Callable[..., Grid], sites: int
) -> None:
    vectors, counts = updates(sites), weights(sites)
    outcome = run(masked_grid(vectors, counts))
    assert outcome.mean is not None
    error = np.abs(outcome.mean - plain_mean(vectors, counts)).max()
    assert error <= tolerance(counts) < 1e-7
    assert outcome.lost == {}
    assert set(outcome.metrics) == set(vectors)


def test_no_reply_reveals_the_update_or_the_weight_of_its_site(masked_grid: Callable[..., Grid]) -> None:
    vectors, counts = updates(4), weights(4)
    grid = masked_grid(vectors, counts)
    outcome = run(grid)
    for node, reply in collected(grid).items():
        config = reply.content.config_records[RECORD_KEY_CONFIGS]
        factor, masked = (bytes_to_ndarray(stored) for stored in config[Key.MASKED_PARAMETERS])
        decoded = masked / STEPS * 2 * REACH - REACH
        assert abs(np.corrcoef(decoded, vectors[node])[0, 1]) < 5 / np.sqrt(LENGTH)
        assert masked.min() < MODULUS * 0.01 < MODULUS * 0.99 < masked.max()  # as spread as the masks
        assert round(counts[node] / MOST * STEPS) != int(factor[0])
        assert not any(len(record) for record in reply.content.array_records.values())
        assert dict(reply.content.metric_records["fitres.num_examples"]) == {"num_examples": 1}
        assert dict(reply.content.config_records["fitres.metrics"]) == {"loss": 0.5}
    assert outcome.mean is not None
    assert np.corrcoef(outcome.mean, plain_mean(vectors, counts))[0, 1] > 0.999999


@pytest.mark.parametrize("stage", [Stage.COLLECT_MASKED_VECTORS, Stage.UNMASK])
def test_a_site_that_leaves_after_its_keys_were_shared_does_not_break_the_sum(
    masked_grid: Callable[..., Grid], stage: str
) -> None:
    vectors, counts = updates(4), weights(4)
    grid = masked_grid(vectors, counts)
    grid.drop = lambda node, _kind, now: node == 12 and now == stage
    outcome = run(grid)
    stayed = [11, 13, 14] if stage == Stage.COLLECT_MASKED_VECTORS else [11, 12, 13, 14]
    assert outcome.mean is not None
    assert np.abs(outcome.mean - plain_mean(vectors, counts, stayed)).max() <= tolerance(counts, stayed)
    assert sorted(outcome.metrics) == stayed
    assert outcome.lost == {12: ""}


@pytest.mark.parametrize("stage", [Stage.SETUP, Stage.SHARE_KEYS])
def test_where_a_site_leaves_before_its_keys_were_shared_the_others_begin_again(
    masked_grid: Callable[..., Grid], stage: str
) -> None:
    vectors, counts = updates(4), weights(4)
    grid = masked_grid(vectors, counts)
    grid.drop = lambda node, _kind, now: node == 13 and now == stage
    outcome = run(grid)
    assert outcome.mean is not None
    assert np.abs(outcome.mean - plain_mean(vectors, counts, [11, 12, 14])).max() <= tolerance(counts, [11, 12, 14])
    assert outcome.lost == {13: ""}
    assert len(collected(grid)) == 3  # nobody trained twice


def test_too_few_sites_give_no_mean_and_no_vector(masked_grid: Callable[..., Grid]) -> None:
    grid = masked_grid(updates(4), weights(4))
    grid.drop = lambda node, _kind, now: node in (12, 13) and now == Stage.SETUP
    assert run(grid).mean is None
    assert not collected(grid)


def test_where_two_of_four_leave_in_training_nothing_can_be_unmasked(masked_grid: Callable[..., Grid]) -> None:
    grid = masked_grid(updates(4), weights(4))
    grid.drop = lambda node, _kind, now: node in (12, 13) and now == Stage.COLLECT_MASKED_VECTORS
    outcome = run(grid)
    assert outcome.mean is None
    assert set(outcome.lost) == {12, 13}


def test_weights_of_nothing_give_no_mean(masked_grid: Callable[..., Grid]) -> None:
    assert run(masked_grid(updates(3), dict.fromkeys(weights(3), 0.0))).mean is None


def masked(change: Callable[[list[bytes]], Any]) -> Callable[[int, str, Message], Message]:
    """Spoils the masked vector of one site."""

    def spoil(node: int, stage: str, reply: Message) -> Message:
        if node == 12 and stage == Stage.COLLECT_MASKED_VECTORS:
            config = reply.content.config_records[RECORD_KEY_CONFIGS]
            config[Key.MASKED_PARAMETERS] = change(config[Key.MASKED_PARAMETERS])
        return reply

    return spoil


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: stored[:1],
        lambda stored: [stored[0], stored[1][:-8]],
        lambda stored: [stored[0], b"no array"],
        lambda stored: [stored[1], stored[0]],
        lambda _: ["text"],
        lambda stored: [stored[0], stored[1].replace(b"'<i8'", b"'<f8'")],
    ],
)
def test_a_vector_that_is_none_is_left_out_like_a_site_that_left(
    masked_grid: Callable[..., Grid], change: Callable[[list[bytes]], Any]
) -> None:
    vectors, counts = updates(4), weights(4)
    outcome = run(masked_grid(vectors, counts, spoil=masked(change)))
    assert outcome.mean is not None
    assert np.abs(outcome.mean - plain_mean(vectors, counts, [11, 13, 14])).max() <= tolerance(counts, [11, 13, 14])
    assert outcome.lost == {12: "a bad answer to collect_masked_vectors"}


def test_a_false_share_gives_no_mean_rather_than_a_wrong_one(masked_grid: Callable[..., Grid]) -> None:
    def spoil(node: int, stage: str, reply: Message) -> Message:
        if node == 12 and stage == Stage.UNMASK:
            config = reply.content.config_records[RECORD_KEY_CONFIGS]
            config[Key.SHARE_LIST] = [share[:4] + bytes(len(share) - 4) for share in config[Key.SHARE_LIST]]
        return reply

    vectors, counts = updates(4), weights(4)
    mean = run(masked_grid(vectors, counts, spoil=spoil)).mean
    before = {"a": np.zeros(LENGTH, np.float32)}
    if mean is not None:  # the padding of the secret fits once in a while
        with pytest.raises(FederationError, match="false share"):
            from_mean(mean, before, {}, clipping_range=np.linalg.norm(vectors[14]))


def setup(**changes: int) -> Message:
    numbers = {"sample_num": 4, "share_num": 3, "threshold": 2, "target_range": STEPS, "mod_range": MODULUS}
    config: dict[str, Any] = {"stage": "setup", "clipping_range": REACH, "max_weight": MOST, **numbers, **changes}
    return Message(RecordDict({RECORD_KEY_CONFIGS: ConfigRecord(config)}), dst_node_id=11, message_type="train")


def never() -> Contribution:
    raise AssertionError("nobody may train here")


def context() -> Context:
    return Context(7, 11, {}, RecordDict(), {})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sample_num": 2}, "at least 3 sites"),
        ({"threshold": 1}, "half the shares"),
        ({"threshold": 3}, "half the shares"),
        ({"share_num": 1, "threshold": 1}, "half the shares"),
        ({"target_range": 2}, "modulus"),
        ({"mod_range": 1 << 32}, "modulus"),
    ],
)
def test_a_site_refuses_numbers_that_hide_too_little(changes: dict[str, int], reason: str) -> None:
    with pytest.raises(PolicyRefusalError, match=reason):
        answer_secure(setup(**changes), context(), Policy(), never)


def test_a_site_refuses_a_sum_over_fewer_sites_than_its_policy_asks_for() -> None:
    with pytest.raises(PolicyRefusalError, match="at least 5 sites"):
        answer_secure(setup(), context(), Policy(min_sites=5), never)
    assert answer_secure(setup(), context(), Policy(min_sites=4), never).has_content()


def test_a_setup_without_whole_numbers_is_refused() -> None:
    message = setup()
    message.content.config_records[RECORD_KEY_CONFIGS]["threshold"] = 2.0
    with pytest.raises(FederationError, match="lacks whole numbers"):
        answer_secure(message, context(), Policy(), never)


def unmask(active: Any, dead: Any) -> Message:
    config = ConfigRecord({"stage": "unmask", Key.ACTIVE_NODE_ID_LIST: active, Key.DEAD_NODE_ID_LIST: dead})
    return Message(RecordDict({RECORD_KEY_CONFIGS: config}), dst_node_id=11, message_type="train")


@pytest.mark.parametrize(
    ("active", "dead"), [([11, 12], [12]), ([12, 13], [11]), ([11, 11], [12]), ([11], [12, 13]), ([11, 12, 12], [13])]
)
def test_a_site_never_gives_both_shares_of_one_site(active: list[int], dead: list[int]) -> None:
    own = context()
    answer_secure(setup(), own, Policy(), never)
    with pytest.raises(PolicyRefusalError, match="unmask a single update"):
        answer_secure(unmask(active, dead), own, Policy(), never)


def test_shares_are_given_to_nobody_who_never_set_a_round_up() -> None:
    with pytest.raises(FederationError, match="never set up"):
        answer_secure(unmask([11, 12], [13]), context(), Policy(), never)
    with pytest.raises(FederationError, match="list of sites"):
        answer_secure(unmask("all", []), context(), Policy(), never)


def test_a_row_of_changes_comes_back_as_weights_and_statistics() -> None:
    before = {"b": np.ones((2, 2), np.float32), "a": np.zeros(3, np.float32)}
    old = {"n.running_mean": np.ones(2, np.float32), "n.running_var": np.full(2, 4.0, np.float32)}
    trained = {"b": before["b"] + np.float32(0.25), "a": before["a"] - np.float32(0.5)}
    new = {"n.running_mean": np.array([2.0, 0.0], np.float32), "n.running_var": np.array([5.0, 3.0], np.float32)}
    row = secure_vector(trained, before, new, old, clipping_range=1.0)
    assert len(row) == length_of(before, old) == 11
    back, statistics = from_mean(row, before, old, clipping_range=1.0)
    for name, value in {**trained, **new}.items():
        np.testing.assert_allclose({**back, **statistics}[name], value, atol=1e-6)


def test_a_mean_longer_than_any_update_may_be_is_refused() -> None:
    before = {"a": np.zeros(3, np.float32)}
    with pytest.raises(FederationError, match="above 1: a site sent a false share"):
        from_mean(np.array([1.0, 1.0, 0.0]), before, {}, clipping_range=1.0)
