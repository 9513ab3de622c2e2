"""Figures: matplotlib is imported only by who asks for one."""
