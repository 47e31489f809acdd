"""What a GPU does for a search: everything that is worth knowing of it, in eight minutes."""
