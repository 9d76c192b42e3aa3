"""The command `parrot`: one file a command, `app` puts them together."""
