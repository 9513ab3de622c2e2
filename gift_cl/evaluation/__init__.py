"""Distilled data sets measured on their own: a student is trained on one, and tested on real images."""
