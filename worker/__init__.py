"""The worker: carries out what the engine asks for. Activities, and the process that runs them."""
