"""The Ray job that `sweep submit` makes: what is uploaded for it, and where it runs."""
