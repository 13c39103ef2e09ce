"""The server's side: rounds, strategies, privacy, and the model that comes out."""
