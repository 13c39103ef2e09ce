"""Every name of Flower that its API reference does not list, each with the reason why Hemoscope needs it.

Flower keeps these modules to itself and may move them in any version, so an update of Flower begins here. Everything
else imports the documented packages (``flwr.app``, ``flwr.serverapp``, ``flwr.clientapp``, ...) directly.

A name is imported when it is first used: the modules of the SuperLink alone take seconds, and a site needs none of
them.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from hemoscope.errors import FederationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Internal:
    """Names of one undocumented module.

    Attributes:
        module: of Flower.
        names: that Hemoscope uses; ``A as B`` is ``A`` there and ``B`` here.
        reason: why a documented name does not do.
    """

    module: str
    names: tuple[str, ...]
    reason: str


INTERNALS = (
    # Messages
    Internal(
        module="flwr.common.constant",
        names=("ErrorCode", "NOOP_ACCOUNT_NAME", "NOOP_FLWR_AID"),
        reason="flwr.app.Error has codes without documented names; nodes and apps need an owner where nobody logs in.",
    ),
    # Secure aggregation: Flower 1.41 offers SecAgg+ through its older workflow API only.
    Internal(
        module="flwr.common.secure_aggregation.secaggplus_constants",
        names=("RECORD_KEY_CONFIGS", "RECORD_KEY_STATE", "Key", "Stage"),
        reason="Sites and server check each stage of SecAgg+ before Flower believes it, and need the record's keys.",
    ),
    Internal(
        module="flwr.compat.common.recorddict_compat",
        names=("fitres_to_recorddict",),
        reason="secaggplus_mod masks the result of the older API alone.",
    ),
    Internal(
        module="flwr.server",
        names=("ClientManager", "LegacyContext", "SimpleClientManager"),
        reason="SecAggPlusWorkflow reads its sites and its strategy from a LegacyContext.",
    ),
    Internal(
        module="flwr.server.client_proxy",
        names=("ClientProxy",),
        reason="The type of a site in the older API.",
    ),
    Internal(
        module="flwr.server.compat.grid_client_proxy",
        names=("GridClientProxy",),
        reason="Presents a node of today's Grid to the older API.",
    ),
    Internal(
        module="flwr.server.strategy",
        names=("Strategy as LegacyStrategy",),
        reason="The workflow hands the unmasked mean to a strategy of the older API.",
    ),
    Internal(
        module="flwr.server.workflow",
        names=("SecAggPlusWorkflow",),
        reason="The server's side of SecAgg+; there is no other.",
    ),
    Internal(
        module="flwr.server.workflow.constant",
        names=("MAIN_CONFIGS_RECORD", "MAIN_PARAMS_RECORD", "Key as WorkflowKey"),
        reason="Where the workflow looks up the number of the round.",
    ),
    # Differential privacy
    Internal(
        module="flwr.serverapp.exception",
        names=("PrivacyBudgetExhausted",),
        reason="The documented strategy raises it, and must be caught.",
    ),
    Internal(
        module="flwr.supercore.differential_privacy",
        names=("add_gaussian_noise_inplace", "compute_stdv"),
        reason="The documented strategies add noise to replies they see; a masked sum gets the same noise.",
    ),
    # Deployment: see "Which program starts what" in docs/explanation/federated-security.md.
    Internal(
        module="flwr.cli.build",
        names=("build_fab_from_files",),
        reason="flwr build writes a file for one folder; the signature needs the bundle's bytes, and no file.",
    ),
    Internal(
        module="flwr.supercore.fab",
        names=("Fab",),
        reason="A bundle with its signatures, as the SuperLink stores it; flwr run sends none.",
    ),
    Internal(
        module="flwr.supercore.primitives.asymmetric_ed25519",
        names=("create_message_to_sign",),
        reason="The exact bytes that a SuperNode verifies (--trusted-entities).",
    ),
    Internal(
        module="flwr.supercore.control",
        names=("ControlHttpClient",),
        reason="flwr run cannot start a stored, signed app by its hash; flwr list takes seconds a look.",
    ),
    Internal(
        module="flwr.common.serde",
        names=("user_config_to_proto",),
        reason="The run configuration of StartRunRequest.",
    ),
    Internal(
        module="flwr.proto.control_pb2",
        names=("ListNodesRequest", "ListRunsRequest", "StartRunRequest", "StopRunRequest"),
        reason="What ControlHttpClient is asked.",
    ),
    Internal(
        module="flwr.proto.fab_pb2",
        names=("Fab as FabProto",),
        reason="Names the app in a StartRunRequest.",
    ),
    Internal(
        module="flwr.supercore.constant",
        names=("NOOP_FEDERATION_ID", "NodeStatus", "TaskType"),
        reason="Whether a node is registered or online, and what the stored app is.",
    ),
    Internal(
        module="flwr.superlink.auth_plugin",
        names=("NoOpControlAuthnPlugin",),
        reason="No accounts: the control interface replies loopback alone.",
    ),
    Internal(
        module="flwr.superlink.cli.flower_superlink",
        names=("SuperLinkLifespan",),
        reason="What flower-superlink starts and stops around its application.",
    ),
    Internal(
        module="flwr.superlink.config_loader",
        names=("SuperLinkLifespanConfig",),
        reason="The settings of flower-superlink.",
    ),
    Internal(
        module="flwr.superlink.main",
        names=("create_app",),
        reason="The ASGI application of flower-superlink, which we guard and serve on sockets of our choice.",
    ),
)

# The modules in which Flower's SecAgg+ looks its mask generator up, and the generator's name.
MASK_MODULES = (
    "flwr.client.mod.secure_aggregation.secaggplus_mod",
    "flwr.server.workflow.secure_aggregation.secaggplus_workflow",
)
_MASK_GENERATOR = "pseudo_rand_gen"


def replace_mask_generator(generator: Any) -> None:
    """Have Flower's SecAgg+ draw its masks by another generator, at both ends, in this process.

    Raises:
        FederationError: this version of Flower looks its generator up elsewhere; then nothing is masked at all.
    """
    for name in MASK_MODULES:
        module = import_module(name)
        if not hasattr(module, _MASK_GENERATOR):
            msg = f"this version of Flower has no {name}.{_MASK_GENERATOR}. Install the version of make setup-federated"
            raise FederationError(msg)
        setattr(module, _MASK_GENERATOR, generator)


def __getattr__(name: str) -> Any:
    """Import a name of ``INTERNALS`` (PEP 562)."""
    for internal in INTERNALS:
        for entry in internal.names:
            source, _, alias = entry.partition(" as ")
            if name == (alias or source):
                return getattr(import_module(internal.module), source)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
