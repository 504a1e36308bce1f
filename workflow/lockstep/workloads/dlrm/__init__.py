"""A deep learning recommendation model on clicks."""
