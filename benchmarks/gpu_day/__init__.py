"""All that has to be measured on a GPU, in stages that can be repeated alone, beside what is predicted."""
