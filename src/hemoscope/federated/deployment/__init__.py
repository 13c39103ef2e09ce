"""Real servers and sites: keys, the signed application, processes."""
