"""The live page of a sweep (`sweep dashboard`)."""
