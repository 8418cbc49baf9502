"""a traffic file -> its requests, sent when they are due whatever the answers take -> a result, a report, and whether a promise was kept"""
