"""The one training loop: objectives, updates replayed on a GPU, going on after a crash."""
