"""The team runner: agents and tool servers as processes that are kept alive, and what the operator asks of them."""
