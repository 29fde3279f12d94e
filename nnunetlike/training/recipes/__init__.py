"""Trainers by the names users type: each is a recipe, a value."""
