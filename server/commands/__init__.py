"""One file a subcommand of `boulton`; each has `add_arguments(parser)` and `run(arguments) -> int`."""
