"""The whole system on one machine, on embedded parts, with a small runner and one installed extension."""
