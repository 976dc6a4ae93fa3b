"""Pages and pictures of training runs, made from their logs."""
