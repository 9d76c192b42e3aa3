"""The command `parrot`: one file a command, `main` puts them together."""
