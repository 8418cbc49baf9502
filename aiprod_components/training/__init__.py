"""recipe -> objective -> trainer -> weights"""
