"""What `vivace train` is made of: the configuration, the data set, the prompt, the loss curve."""
