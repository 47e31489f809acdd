"""How well the surrogate predicts configurations of nominal parameters, by kernel and reading."""
