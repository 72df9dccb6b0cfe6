"""The filesystem server: a confined workspace for each agent, with snapshots that can be shared."""
