"""What is deleted when it is old, and how."""
