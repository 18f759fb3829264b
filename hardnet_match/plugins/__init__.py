"""This package at home in others: hloc, COLMAP projects, OpenCV, kornia. One folder a host, imported on its own."""
