"""The command `openqmail`: one thin module a subcommand."""
