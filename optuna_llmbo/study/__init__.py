"""What a study says: its trials, how they ended, which parameters go together, other studies."""
