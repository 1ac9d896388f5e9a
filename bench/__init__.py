"""The benchmarks: each measures in one run on one machine, prints figures and ratios, and never judges."""
