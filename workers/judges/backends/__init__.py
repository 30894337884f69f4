"""Who else than a local model may answer for a judge: a server, a file."""
