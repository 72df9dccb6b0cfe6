"""Worker processes, the device slots that they hold, and what starts them."""
