"""PyTorch networks. Serving never imports this package: it runs the exported graph."""
