"""Tests of identities with real parts."""
