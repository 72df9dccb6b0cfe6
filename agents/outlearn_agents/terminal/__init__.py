"""What commands have in common: options, progress, tables, and errors in one line."""
