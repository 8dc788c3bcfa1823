"""Does the early score predict how good a setting is at the end of the schedule?"""
