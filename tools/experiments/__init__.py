"""Experiments: many trainings of a bundle, their evaluations, and the table made of them."""
