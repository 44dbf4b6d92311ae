"""From a recipe to a committed build."""
