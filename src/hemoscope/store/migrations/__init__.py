"""The history of the tables, run by ``store.migrate``; a migration that was released is never edited."""
