-- The profiles side: one application profile per auth user, made at sign-up, and two functions for the service key.
-- Run by the role postgres of a Supabase project (no superuser), on PostgreSQL 15 to 18, in one transaction with a
-- short lock_timeout. Grants are explicit in both directions, because older projects grant everything on a new table
-- by default and newer ones nothing.
--
-- "In scope" means the same everywhere below: aud = 'authenticated' and not soft-deleted.

-- A table of that name that somebody else made is never touched. ---------------------------------------------

DO $$
BEGIN
    IF to_regclass('public.user_profiles') IS NOT NULL
       AND obj_description(to_regclass('public.user_profiles'), 'pg_class')
           IS DISTINCT FROM 'One application profile per auth user; kept by user_sync_pipeline.' THEN
        RAISE EXCEPTION 'public.user_profiles exists already and was not made by this migration'
            USING HINT = 'Rename that table, then apply the migration again.';
    END IF;
END
$$;

-- A schema that no API exposes; a new one is open to nobody but its owner. ------------------------------------

CREATE SCHEMA IF NOT EXISTS app_private;

-- A text out of a user's own metadata, which may be any JSON at all: trimmed and cut, NULL for everything else.
CREATE OR REPLACE FUNCTION app_private.metadata_text(metadata jsonb, key text, max_length integer) RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = ''
AS $$
    SELECT CASE WHEN jsonb_typeof(metadata -> key) = 'string'
                THEN nullif(left(btrim(metadata ->> key), max_length), '') END
$$;

-- Runs inside every sign-up, and must never make one fail: whatever goes wrong is written down, not raised.
-- * SECURITY DEFINER: the sign-up runs as supabase_auth_admin, which has no rights in public.
-- * lock_timeout: a locked table delays a sign-up by that long, and then lets it through without a profile.
-- * The role is not read from the metadata: any visitor chooses his own user metadata.
CREATE OR REPLACE FUNCTION app_private.handle_new_auth_user() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
SET lock_timeout = '1500ms'
AS $$
BEGIN
    IF new.aud IS DISTINCT FROM 'authenticated' OR new.deleted_at IS NOT NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO public.user_profiles (id, email, phone, full_name, avatar_url, source)
    VALUES (
        new.id,
        nullif(new.email, ''),
        nullif(new.phone, ''),
        app_private.metadata_text(new.raw_user_meta_data, 'full_name', 200),
        app_private.metadata_text(new.raw_user_meta_data, 'avatar_url', 2000),
        'trigger'
    )
    ON CONFLICT (id) DO NOTHING;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    BEGIN
        INSERT INTO app_private.profile_failures (user_id, sqlstate, message)
        VALUES (new.id, SQLSTATE, left(SQLERRM, 200))
        ON CONFLICT (user_id) DO NOTHING;
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'The profile of auth user % was not created, nor was that recorded (SQLSTATE %)', new.id, SQLSTATE;
    END;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION app_private.set_updated_at() RETURNS trigger
LANGUAGE plpgsql
SET search_path = ''
AS $$
BEGIN
    new.updated_at := now();
    RETURN new;
END
$$;

-- The two tables. From here to the end auth.users is locked against writes, because of the foreign keys. ------
-- IF NOT EXISTS: a rollback keeps user_profiles where it holds what this pipeline did not make.

CREATE TABLE IF NOT EXISTS public.user_profiles (
    id          uuid CONSTRAINT user_profiles_pkey PRIMARY KEY
                CONSTRAINT user_profiles_id_fkey REFERENCES auth.users (id) ON DELETE CASCADE,
    email       text,                            -- NULL for some, shared by some: no identity
    phone       text,
    full_name   text CONSTRAINT user_profiles_full_name_length CHECK (char_length(full_name) <= 200),
    avatar_url  text CONSTRAINT user_profiles_avatar_url_length CHECK (char_length(avatar_url) <= 2000),
    role        text NOT NULL DEFAULT 'user'
                CONSTRAINT user_profiles_role_allowed CHECK (role IN ('user', 'admin')),
    source      text NOT NULL DEFAULT 'manual'   -- who made the row; an application that inserts one is 'manual'
                CONSTRAINT user_profiles_source_known CHECK (source IN ('trigger', 'sync', 'manual')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE public.user_profiles IS 'One application profile per auth user; kept by user_sync_pipeline.';
COMMENT ON COLUMN public.user_profiles.role IS 'Set by the service only: never by the user, never from metadata.';

CREATE OR REPLACE TRIGGER user_profiles_set_updated_at
    BEFORE UPDATE ON public.user_profiles
    FOR EACH ROW EXECUTE FUNCTION app_private.set_updated_at();

CREATE TABLE app_private.profile_failures (
    user_id    uuid PRIMARY KEY REFERENCES auth.users (id) ON DELETE CASCADE,
    sqlstate   text NOT NULL,
    message    text NOT NULL,
    failed_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE app_private.profile_failures IS 'Sign-ups that went through without their profile, and why.';

-- A user sees and edits the own profile, the service key writes all of them, a visitor sees nothing. ----------
-- The role of a profile is out of a user's reach by the column grant alone, whatever a policy may say.

ALTER TABLE public.user_profiles ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON public.user_profiles FROM PUBLIC, anon, authenticated, service_role;
GRANT SELECT ON public.user_profiles TO authenticated;
GRANT UPDATE (full_name, avatar_url) ON public.user_profiles TO authenticated;
GRANT SELECT, INSERT, UPDATE ON public.user_profiles TO service_role;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = 'public.user_profiles'::regclass
                   AND polname = 'user_profiles_select_own') THEN
        CREATE POLICY user_profiles_select_own ON public.user_profiles FOR SELECT TO authenticated
            USING ((SELECT auth.uid()) = id);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = 'public.user_profiles'::regclass
                   AND polname = 'user_profiles_update_own') THEN
        CREATE POLICY user_profiles_update_own ON public.user_profiles FOR UPDATE TO authenticated
            USING ((SELECT auth.uid()) = id) WITH CHECK ((SELECT auth.uid()) = id);
    END IF;
END
$$;

-- What the service key may ask, although it cannot read auth.users. -------------------------------------------

CREATE OR REPLACE FUNCTION public.profile_sync_report()
RETURNS TABLE (
    total_auth_users     bigint,   -- in scope
    total_user_profiles  bigint,   -- all of them
    missing_profiles     bigint,   -- users in scope without a profile
    orphan_profiles      bigint,   -- profiles without a user in scope
    soft_deleted_users   bigint,
    users_outside_api    bigint,   -- of another audience: the sign-in service does not know them
    trigger_installed    boolean
)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = ''
AS $$
    SELECT
        count(*) FILTER (WHERE account.in_scope),
        count(profile.id),
        count(*) FILTER (WHERE account.in_scope AND profile.id IS NULL),
        count(profile.id) FILTER (WHERE account.in_scope IS NOT TRUE),
        count(*) FILTER (WHERE account.aud = 'authenticated' AND account.deleted_at IS NOT NULL),
        count(account.id) FILTER (WHERE account.aud IS DISTINCT FROM 'authenticated'),
        EXISTS (
            SELECT FROM pg_catalog.pg_trigger
            WHERE tgrelid = to_regclass('auth.users')
              AND tgfoid = to_regproc('app_private.handle_new_auth_user')
              AND tgenabled IN ('O', 'A')
        )
    FROM (
        SELECT id, aud, deleted_at, aud = 'authenticated' AND deleted_at IS NULL AS in_scope FROM auth.users
    ) AS account
    FULL JOIN public.user_profiles AS profile ON profile.id = account.id
$$;

-- The profiles of these users, as far as they are in scope; returns how many were made. All or, on an error, none.
CREATE OR REPLACE FUNCTION app_private.create_profiles(user_ids uuid[]) RETURNS integer
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
    created integer;
BEGIN
    INSERT INTO public.user_profiles (id, email, phone, full_name, avatar_url, source)
    SELECT
        account.id,
        nullif(account.email, ''),
        nullif(account.phone, ''),
        app_private.metadata_text(account.raw_user_meta_data, 'full_name', 200),
        app_private.metadata_text(account.raw_user_meta_data, 'avatar_url', 2000),
        'sync'
    FROM auth.users AS account
    WHERE account.id = ANY (user_ids) AND account.aud = 'authenticated' AND account.deleted_at IS NULL
    ON CONFLICT (id) DO NOTHING;
    GET DIAGNOSTICS created = ROW_COUNT;
    RETURN created;
END
$$;

-- Creates the next max_rows missing profiles behind after_user_id, in the order of the ids. The bound is told to both
-- sides of the join, or each call would read the profiles from the start again. A user whose row is
-- refused costs only itself. Answers {attempted, created, vanished, last_user_id, failures: [{user_id, sqlstate, …}]};
-- fewer attempted than max_rows means that nothing is left.
CREATE OR REPLACE FUNCTION public.profile_backfill(
    max_rows integer, after_user_id uuid DEFAULT '00000000-0000-0000-0000-000000000000'
) RETURNS jsonb
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
    missing uuid[];
    candidate uuid;
    created integer := 0;
    vanished integer := 0;
    failures jsonb := '[]';
    refused_by_constraint text;
    refused_by_column text;
BEGIN
    -- Two at once take turns, so that each profile is counted by the one that made it.
    PERFORM pg_advisory_xact_lock(hashtextextended('user_sync_pipeline.profiles', 0));
    missing := ARRAY(
        SELECT account.id
        FROM auth.users AS account
        WHERE account.aud = 'authenticated' AND account.deleted_at IS NULL
          AND account.id > after_user_id
          AND NOT EXISTS (
              SELECT FROM public.user_profiles AS profile
              WHERE profile.id = account.id AND profile.id > after_user_id
          )
        ORDER BY account.id
        LIMIT max_rows
    );
    BEGIN
        created := app_private.create_profiles(missing);
    EXCEPTION WHEN data_exception OR integrity_constraint_violation OR plpgsql_error THEN
        FOREACH candidate IN ARRAY missing LOOP
            BEGIN
                created := created + app_private.create_profiles(ARRAY[candidate]);
            EXCEPTION
                WHEN foreign_key_violation THEN
                    vanished := vanished + 1;
                WHEN data_exception OR integrity_constraint_violation OR plpgsql_error THEN
                    GET STACKED DIAGNOSTICS
                        refused_by_constraint = CONSTRAINT_NAME,
                        refused_by_column = COLUMN_NAME;
                    failures := failures || jsonb_build_object(
                        'user_id', candidate, 'sqlstate', SQLSTATE,
                        'constraint', refused_by_constraint, 'column', refused_by_column
                    );
            END;
        END LOOP;
    END;
    RETURN jsonb_build_object(
        'attempted', cardinality(missing), 'created', created, 'vanished', vanished,
        'last_user_id', missing[cardinality(missing)], 'failures', failures
    );
END
$$;

-- EXECUTE is granted to everybody by default, and in older projects to the API's roles by name as well.
-- Firing a trigger takes no EXECUTE, so nobody needs it on what runs at sign-up.

REVOKE ALL ON app_private.profile_failures FROM PUBLIC, anon, authenticated, service_role;
REVOKE ALL ON FUNCTION
    app_private.handle_new_auth_user(), app_private.set_updated_at(), app_private.create_profiles(uuid[]),
    app_private.metadata_text(jsonb, text, integer),
    public.profile_sync_report(), public.profile_backfill(integer, uuid)
    FROM PUBLIC, anon, authenticated, service_role;
GRANT EXECUTE ON FUNCTION public.profile_sync_report() TO service_role;
GRANT EXECUTE ON FUNCTION public.profile_backfill(integer, uuid) TO service_role;

-- Last, the trigger. OR REPLACE, because a trigger here is never dropped by name: only the owner of auth.users may,
-- and on a hosted project that locks every table of the sign-in service.

CREATE OR REPLACE TRIGGER on_auth_user_created
    AFTER INSERT ON auth.users
    FOR EACH ROW EXECUTE FUNCTION app_private.handle_new_auth_user();
