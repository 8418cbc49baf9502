"""traffic, stage times, pools -> a simulated day -> replicas per stage, what they cost, and what breaks first"""
