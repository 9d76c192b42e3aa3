"""What lasts of sessions: the journal, what is written to it, and how sessions come back from it."""
