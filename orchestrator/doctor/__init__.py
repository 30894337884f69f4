"""Examines what a sweep relies on: the store, this machine, services and the nodes of a cluster. Changes nothing."""
