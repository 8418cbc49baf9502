"""tensors -> tensors, as fast as the machine allows"""
