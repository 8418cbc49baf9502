"""HTTP <-> requests and errors"""
