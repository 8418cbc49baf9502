"""component name -> its recipe and objective"""
