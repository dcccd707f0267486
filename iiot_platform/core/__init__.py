"""Words that every part shares: tables, qualities, times, names, errors; imports nothing of ours."""
