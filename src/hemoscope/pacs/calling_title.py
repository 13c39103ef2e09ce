"""The AE title of a peer."""

from pynetdicom import evt


def calling_title(event: evt.Event) -> str:
    """Return the calling AE title, as the association request of an event's peer states it."""
    request = event.assoc.requestor.primitive
    return "" if request is None else str(request.calling_ae_title).strip()
