"""One module per file service. What a service needs from the node it asks for by a Protocol beside it."""
