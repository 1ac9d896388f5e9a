"""What administrators see in the browser. Every write goes through a service."""
