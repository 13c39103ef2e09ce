"""What the sites of a federation agree on, and what one site allows."""
