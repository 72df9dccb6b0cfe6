"""What agents did, judged with the lines that say so."""
