"""The settings of the network node: this node, its peers, TLS, rules, destinations. ``node_file`` reads them."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from hemoscope.labels import LABEL_CODES, CodedTerm, LabelCode, PerLabel
from hemoscope.reports.dicom_results.report_options import ReportOptions

OUTPUTS = ("report", "pictures", "key-slices")
WEBHOOK = "[webhook]"  # its name among the destinations of the outbox; no destination can have it, see _check
WEBHOOK_DAYS = 14.0  # give up what could not be sent for so long
READ, IGNORE = "read", "ignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """This application entity.

    Attributes:
        ae_title: that peers call (PS3.8 7.1.1.3).
        host: listen on this address.
        port: listen on this port; 0 for any free one.
        quiet_seconds: a study is read when no image has come for so long.
        late_minutes: received files are kept so long after the last one; if images of their study come late, the
            whole study is read again.
        most_associations: at one time.
        most_image_mib: the largest data set that is accepted.
        most_receiving_mib: the most that all associations together may be receiving.
        idle_seconds: an association without traffic for so long is ended.
        negotiation_seconds: a connection without an association for so long is ended.
    """

    ae_title: str = "HEMOSCOPE"
    host: str = "127.0.0.1"
    port: int = 11112
    quiet_seconds: float = 10.0
    late_minutes: float = 60.0
    most_associations: int = 32
    most_image_mib: int = 1024
    most_receiving_mib: int = 2048
    idle_seconds: float = 60.0
    negotiation_seconds: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """An application entity that may send images: its title, and the addresses or networks that it may come from."""

    ae_title: str
    addresses: tuple[str, ...]

    def comes_from(self, address: str) -> bool:
        """Whether the peer may have this address."""
        place = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(place, "ipv4_mapped", None)
        return any((mapped or place) in ipaddress.ip_network(one, strict=False) for one in self.addresses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Certificate and key of this node, and the certificates of the authorities that peers' certificates must have."""

    certificate: Path
    key: Path
    authorities: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What happens to a series; the first rule whose conditions all hold decides, and without one a series is read.

    Attributes:
        action: ``read`` or ``ignore``.
        calling_ae_title: of the sender.
        description: a regular expression, found anywhere in Series Description, in any case.
        body_part: Body Part Examined, in any case.
        least_images: images of the series.
    """

    action: str
    calling_ae_title: str | None = None
    description: str | None = None
    body_part: str | None = None
    least_images: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where results are sent.

    Attributes:
        name: of the destination, for people.
        ae_title: of the archive.
        host: its address.
        port: its port.
        outputs: the objects to send.
        send_routine: whether results of studies in which nothing is suspected are sent too.
        commitment: ask for storage commitment; an object then counts as delivered only when it is committed.
        tls: use this node's certificate.
        keep_days: give up what could not be delivered for so long.
        reject_superseded: send a note that marks the objects of earlier readings of a study as rejected (IHE IOCM).
    """

    name: str
    ae_title: str
    host: str
    port: int
    outputs: tuple[str, ...] = OUTPUTS
    send_routine: bool = True
    commitment: bool = False
    tls: bool = False
    keep_days: float = 14.0
    reject_superseded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultOptions:
    """What results say, and how long they are held and kept.

    Attributes:
        report_absent: report an established label below its threshold as absent instead of undetermined.
        hold_incomplete_seconds: results of a study that lacks slices are sent so long after it was read; if it is read
            again in this time, only the results of the later reading are sent.
        resend_days: objects that were delivered or given up are kept so long, so that they can be sent again.
    """

    report_absent: bool = False
    hold_incomplete_seconds: float = 120.0
    resend_days: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteCode:
    """A site's own code of a label, in place of SNOMED CT; ``scheme`` is a Coding Scheme Designator."""

    label: str
    value: str
    scheme: str
    meaning: str

    @property
    def label_code(self) -> LabelCode:
        """As results take it."""
        return LabelCode(CodedTerm(self.value, self.scheme, self.meaning), "the site")


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A program of the site that is notified of urgent studies, without identity.

    Attributes:
        url: http to this machine, or https.
        secret_file: whose content signs the requests; relative to the TOML file.
        urgencies: of the studies that it is notified of.
    """

    url: str
    secret_file: Path
    urgencies: tuple[str, ...] = ("immediate",)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """Everything in the file. Nothing is sent unless there is a destination."""

    node: Node = field(default_factory=Node)
    peers: tuple[Peer, ...] = ()
    tls: Tls | None = None
    rules: tuple[Rule, ...] = ()
    destinations: tuple[Destination, ...] = ()
    results: ResultOptions = field(default_factory=ResultOptions)
    codes: tuple[SiteCode, ...] = ()
    webhook: Webhook | None = None

    @property
    def report_options(self) -> ReportOptions:
        """What the site chose about its reports."""
        own = {one.label: one.label_code for one in self.codes}
        codes = PerLabel.build(lambda label: own.get(label.value, LABEL_CODES[label]))
        return ReportOptions(report_absent=self.results.report_absent, codes=codes)
