"""Does the early score predict how a setting ends?"""
