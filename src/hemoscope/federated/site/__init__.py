"""The site's side: what a hospital does with a message."""
