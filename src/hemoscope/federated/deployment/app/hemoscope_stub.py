"""All the code that travels to a site: a pointer to the hemoscope that the site has installed itself."""

from hemoscope.federated.deployment.deployed_apps import client_app, server_app

__all__ = ["client_app", "server_app"]
