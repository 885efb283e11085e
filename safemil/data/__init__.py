"""Tasks and dataset files -> trajectories -> D_N and D_U."""
