"""What is configured, whether it answers, and whether it may do what it must: one file an area, all of them reading.

What belongs here: looking, judging, and the sentence that says what to do. What does not: doing it, and showing it
(`cli/doctor.py`). This is the one folder of core that knows Salesforce, the warehouse and the profiles at once.
"""
