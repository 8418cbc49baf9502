"""what happens to a job -> spans, figures and log lines that say whose they are"""
