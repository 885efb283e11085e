"""Running the study: grids as data, trials, and the schedulers that run them."""
