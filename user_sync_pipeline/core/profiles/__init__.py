"""Application profiles for those who can sign in: counting, creating, and comparing them with Salesforce.

What belongs here: everything about `auth.users` and `public.user_profiles`, by SQL or over HTTP.
What does not: reading Salesforce and storing its users; nothing here imports `salesforce` or `warehouse`.
"""
