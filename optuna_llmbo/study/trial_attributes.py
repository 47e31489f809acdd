"""User attributes by which an objective tells a sampler what a trial's end means."""

INTERRUPTED = "interrupted"
"""Of a trial that the user stopped: it says nothing about its configuration."""

INFEASIBLE = "infeasible"
"""Of a pruned trial whose configuration cannot be run, whatever it has reported before."""
