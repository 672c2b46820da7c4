"""The figures of a run for people: the page, its plots and pictures, the model card, and what TensorBoard shows."""
