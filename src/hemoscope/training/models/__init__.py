"""PyTorch networks. Nothing that serves imports this room: serving runs the exported graph."""
