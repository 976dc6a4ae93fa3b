"""Speed of training, inference and input beside other implementations, measured in one run."""
