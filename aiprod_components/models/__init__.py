"""config -> module: the networks of every family, with no device, file or seed in them"""
