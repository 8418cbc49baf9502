"""The package of video.proto"""
