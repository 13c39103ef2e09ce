"""The reading room's memory: studies, jobs, feedback, audit and sessions in a database, pixels in a private folder."""
