"""Tests of the notebooks and of the built pages."""
