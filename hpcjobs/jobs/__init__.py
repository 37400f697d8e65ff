"""What a rank does with its work."""
