"""What processes tell of themselves: the declared metrics, and the endpoint that serves them."""
