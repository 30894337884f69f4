"""The reward ablation: annotations, small reward models on embeddings, and their evaluation."""
