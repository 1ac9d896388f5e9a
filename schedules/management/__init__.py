"""What operators call from the command line."""
