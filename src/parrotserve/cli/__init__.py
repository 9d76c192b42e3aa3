"""The command `parrot`: one file per command; `app` puts them together."""
