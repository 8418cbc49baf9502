"""The first version of the API over gRPC: `video.proto`, and what protoc makes of it"""
