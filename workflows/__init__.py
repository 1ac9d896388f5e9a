"""What the engine runs. Pure: the standard library and temporalio only, so that a history always replays the same."""
