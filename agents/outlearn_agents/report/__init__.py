"""What a team achieved: summaries, comparisons, tables and plots."""
