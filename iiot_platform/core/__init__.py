"""Words that all parts share: tables, qualities, times, names, errors; imports none of ours."""
