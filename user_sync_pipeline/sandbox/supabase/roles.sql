-- The roles of a Supabase project. They belong to the whole server, so this may run again and again;
-- passwords are set apart. The superuser is supabase_admin, which initdb made.

DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY[
        'postgres', 'anon', 'authenticated', 'service_role', 'authenticator', 'supabase_auth_admin', 'dashboard_user'
    ] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I', role_name);
        END IF;
    END LOOP;
END
$$;

-- What migrations run as: many rights, but no superuser, and no member of supabase_auth_admin.
ALTER ROLE postgres WITH LOGIN NOSUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS;

-- What a request of the API runs as.
ALTER ROLE anon WITH NOLOGIN;
ALTER ROLE anon SET statement_timeout = '3s';
ALTER ROLE authenticated WITH NOLOGIN;
ALTER ROLE authenticated SET statement_timeout = '8s';
ALTER ROLE service_role WITH NOLOGIN BYPASSRLS;

-- What PostgREST signs in as; it becomes one of the three above for each request.
ALTER ROLE authenticator WITH LOGIN NOINHERIT;
ALTER ROLE authenticator SET statement_timeout = '8s';
ALTER ROLE authenticator SET lock_timeout = '8s';

-- What GoTrue signs in as; it owns every table of the schema auth and has no rights in public.
ALTER ROLE supabase_auth_admin WITH LOGIN NOINHERIT NOCREATEROLE;
ALTER ROLE supabase_auth_admin SET search_path = 'auth';
ALTER ROLE supabase_auth_admin SET idle_in_transaction_session_timeout = '60s';

ALTER ROLE dashboard_user WITH NOLOGIN CREATEDB CREATEROLE REPLICATION;

GRANT anon, authenticated, service_role TO postgres, authenticator;
