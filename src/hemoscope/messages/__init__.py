"""The texts of pages and reports: the catalogue that ships, and how a site's own is read."""
