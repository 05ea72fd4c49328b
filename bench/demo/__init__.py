"""`make demo`: photographs classified by a real server, and the governor at work, in a few minutes.

Everything runs on this machine without a GPU. What is measured says so, what is simulated says so.
"""
