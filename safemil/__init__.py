"""SafeMIL: safe imitation from a few non-preferred and many unlabeled trajectories. Importing this does nothing."""
