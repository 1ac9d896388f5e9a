"""The HTTP doors. Serializers check shape, views call one service or query and render, errors have one body."""
