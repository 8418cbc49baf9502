"""spans, metrics and logs, from those who make them to those who read them"""
