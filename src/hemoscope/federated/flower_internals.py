"""Every name of Flower that its API reference does not list, each with the reason why Hemoscope needs it.

Flower keeps these modules to itself and may move them in any version, so an update of Flower begins here. Everything
else imports the documented packages (``flwr.app``, ``flwr.serverapp``, ``flwr.clientapp``, ...) directly.

A name is imported when it is first used: the modules of the SuperLink alone take seconds, and a site needs none of
them.
"""

from importlib import import_module
from typing import Any

from hemoscope.errors import FederationError

# Names by module, each module after the reason for it; ``A as B`` is ``A`` there and ``B`` here.
INTERNALS: dict[str, tuple[str, ...]] = {
    # -- Messages --
    # flwr.app.Error has codes without documented names; nodes and apps need an owner where nobody logs in.
    "flwr.common.constant": ("ErrorCode", "NOOP_ACCOUNT_NAME", "NOOP_FLWR_AID"),
    # -- Secure aggregation: Flower 1.41 offers SecAgg+ through its older workflow API only --
    # Sites and server check each stage of SecAgg+ before Flower believes it, and need the record's keys.
    "flwr.common.secure_aggregation.secaggplus_constants": ("RECORD_KEY_CONFIGS", "RECORD_KEY_STATE", "Key", "Stage"),
    # secaggplus_mod masks the result of the older API alone.
    "flwr.compat.common.recorddict_compat": ("fitres_to_recorddict",),
    # SecAggPlusWorkflow reads its sites and its strategy from a LegacyContext.
    "flwr.server": ("ClientManager", "LegacyContext", "SimpleClientManager"),
    # The type of a site in the older API.
    "flwr.server.client_proxy": ("ClientProxy",),
    # Presents a node of today's Grid to the older API.
    "flwr.server.compat.grid_client_proxy": ("GridClientProxy",),
    # The workflow hands the unmasked mean to a strategy of the older API.
    "flwr.server.strategy": ("Strategy as LegacyStrategy",),
    # The server's side of SecAgg+; there is no other.
    "flwr.server.workflow": ("SecAggPlusWorkflow",),
    # Where the workflow looks up the number of the round.
    "flwr.server.workflow.constant": ("MAIN_CONFIGS_RECORD", "MAIN_PARAMS_RECORD", "Key as WorkflowKey"),
    # -- Differential privacy --
    # The documented strategy raises it, and must be caught.
    "flwr.serverapp.exception": ("PrivacyBudgetExhausted",),
    # The documented strategies add noise to replies they see; a masked sum gets the same noise.
    "flwr.supercore.differential_privacy": ("add_gaussian_noise_inplace", "compute_stdv"),
    # -- Deployment: see "Which program starts what" in docs/explanation/federated-security.md --
    # flwr build writes a file for one folder; the signature needs the bundle's bytes, and no file.
    "flwr.cli.build": ("build_fab_from_files",),
    # A bundle with its signatures, as the SuperLink stores it; flwr run sends none.
    "flwr.supercore.fab": ("Fab",),
    # The exact bytes that a SuperNode verifies (--trusted-entities).
    "flwr.supercore.primitives.asymmetric_ed25519": ("create_message_to_sign",),
    # flwr run cannot start a stored, signed app by its hash; flwr list takes seconds a look.
    "flwr.supercore.control": ("ControlHttpClient",),
    # The run configuration of StartRunRequest.
    "flwr.common.serde": ("user_config_to_proto",),
    # What ControlHttpClient is asked.
    "flwr.proto.control_pb2": ("ListNodesRequest", "ListRunsRequest", "StartRunRequest", "StopRunRequest"),
    # Names the app in a StartRunRequest.
    "flwr.proto.fab_pb2": ("Fab as FabProto",),
    # Whether a node is registered or online, and what the stored app is.
    "flwr.supercore.constant": ("NOOP_FEDERATION_ID", "NodeStatus", "TaskType"),
    # No accounts: the control interface answers loopback only.
    "flwr.superlink.auth_plugin": ("NoOpControlAuthnPlugin",),
    # What flower-superlink starts and stops around its application.
    "flwr.superlink.cli.flower_superlink": ("SuperLinkLifespan",),
    # The settings of flower-superlink.
    "flwr.superlink.config_loader": ("SuperLinkLifespanConfig",),
    # The ASGI application of flower-superlink, which we guard and serve on sockets of our choice.
    "flwr.superlink.main": ("create_app",),
}

# The modules in which Flower's SecAgg+ looks its mask generator up, and the generator's name.
MASK_MODULES = (
    "flwr.client.mod.secure_aggregation.secaggplus_mod",
    "flwr.server.workflow.secure_aggregation.secaggplus_workflow",
)
_MASK_GENERATOR = "pseudo_rand_gen"


# What a SuperNode logs (start_client_internal.py) where a run ended while it received a message: the message stays in
# its memory and is handled nevertheless, and from then on each reply is sent one message too late.
OUT_OF_STEP = "is not in `RUNNING` status. Ignoring message"
# What a SuperNode logs (there too) where it takes a message, where a reply is there, and where it is done with either:
# it says by nothing else whether it waits for a reply.
RECEIVING, SENDING = "Receiving: ", "Sending: "
REPLY_OVER = ("Sent successfully", "Failed to send message", "Failed to receive message", "Ignoring reply message")


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
    for module, names in INTERNALS.items():
        for entry in names:
            source, _, alias = entry.partition(" as ")
            if name == (alias or source):
                return getattr(import_module(module), source)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
