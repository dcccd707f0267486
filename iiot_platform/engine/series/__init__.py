"""What is computed of one series, one kind per file: rows and a state in, rows and a state out."""
