"""Tests of what tests/conftest.py promises to every test."""
