"""video.proto -> the messages of gRPC, generated, and their conversion from and to what the service speaks"""
