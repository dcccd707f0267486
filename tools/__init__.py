"""Programs of the workshop: none of them is installed or runs in production."""
