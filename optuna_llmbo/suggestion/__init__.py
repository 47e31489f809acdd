"""From what is known of a study to its next configuration."""
