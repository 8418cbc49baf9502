"""files <-> frames"""
