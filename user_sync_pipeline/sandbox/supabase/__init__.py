"""Supabase on one's own machine: its roles and auth schema in Postgres, and its HTTP services over them.

What belongs here: what a Supabase project has and the pipeline meets: roles, grants, `auth.users`, the gateway
with its API keys, the admin users of GoTrue, and the part of PostgREST that the Supabase client uses.
What does not: tables and functions of the pipeline itself, which its migrations bring.
"""

from user_sync_pipeline.sandbox.supabase.database import load_auth_users, prepare_supabase
from user_sync_pipeline.sandbox.supabase.simulator import SupabaseSimulator

__all__ = ["SupabaseSimulator", "load_auth_users", "prepare_supabase"]
