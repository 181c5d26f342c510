-- The profiles side: one application profile per auth user, made at sign-up, and two functions for the service key.
-- Run by the role postgres of a Supabase project (no superuser), on PostgreSQL 15 to 18, in one transaction with a
-- short lock_timeout. Grants are explicit in both directions, because older projects grant everything on a new table
-- by default and newer ones nothing.
--
-- "In scope" means the same everywhere below: aud = 'authenticated' and not soft-deleted.

-- A table of that name that somebody else made is never touched; its comment tells whose it is. ---------------

DO $$
DECLARE
    existing regclass := to_regclass('public.user_profiles');
    its_columns text;
BEGIN
    IF existing IS NOT NULL
       AND obj_description(existing, 'pg_class')
           IS DISTINCT FROM 'One application profile per auth user; kept by user_sync_pipeline.' THEN
        SELECT string_agg(
            attname || ' ' || format_type(atttypid, NULL) || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END, ', '
            ORDER BY attnum
        )
        INTO its_columns
        FROM pg_catalog.pg_attribute
        WHERE attrelid = existing AND attnum > 0 AND NOT attisdropped;
        RAISE EXCEPTION 'public.user_profiles exists already, was not made by this migration, and has the columns: %',
            coalesce(its_columns, 'none')
            USING HINT = 'Rename that table, or adopt it as docs/migrations.md tells, then apply the migration again.';
    END IF;
END
$$;

-- A schema that no API exposes; a new one is open to nobody but its owner. ------------------------------------

CREATE SCHEMA IF NOT EXISTS app_private;

-- Runs inside every sign-up, and must never make one fail: whatever goes wrong is written down, not raised.
-- * SECURITY DEFINER: the sign-up runs as supabase_auth_admin, which has no rights in public.
-- * lock_timeout: a locked table delays a sign-up by that long, and then lets it through without a profile.
-- * OTHERS leaves out two errors: a statement_timeout that strikes in here, and a failed ASSERT of somebody's trigger.
-- * The role is not read from the metadata: any visitor chooses his own user metadata.
-- * That metadata may be any JSON at all: a name is a text, trimmed and cut, and everything else is none. Written out
--   each time, because a function with a search_path of its own is called for each row, and costs as much as the row.
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
        nullif(left(btrim(
            CASE jsonb_typeof(new.raw_user_meta_data -> 'full_name')
                WHEN 'string' THEN new.raw_user_meta_data ->> 'full_name' END
        ), 200), ''),
        nullif(left(btrim(
            CASE jsonb_typeof(new.raw_user_meta_data -> 'avatar_url')
                WHEN 'string' THEN new.raw_user_meta_data ->> 'avatar_url' END
        ), 2000), ''),
        'trigger'
    )
    ON CONFLICT (id) DO NOTHING;
    RETURN NULL;
EXCEPTION WHEN others OR query_canceled OR assert_failure THEN
    BEGIN
        INSERT INTO app_private.profile_failures (user_id, sqlstate, message)
        VALUES (new.id, SQLSTATE, left(SQLERRM, 200))
        ON CONFLICT (user_id) DO NOTHING;
    EXCEPTION WHEN others OR query_canceled OR assert_failure THEN
        RAISE WARNING 'The profile of auth user % was not created, nor was that recorded (SQLSTATE %)', new.id, SQLSTATE;
    END;
    RETURN NULL;
END
$$;

-- Dates a change. A moment that is given stays: who undoes a change gives the row its former one back.
CREATE OR REPLACE FUNCTION app_private.set_updated_at() RETURNS trigger
LANGUAGE plpgsql
SET search_path = ''
AS $$
BEGIN
    IF new.updated_at IS NOT DISTINCT FROM old.updated_at THEN
        new.updated_at := now();
    END IF;
    RETURN new;
END
$$;

-- The profiles of these users, as far as they are in scope; returns how many were made. All or, on an error, none.
CREATE OR REPLACE FUNCTION app_private.create_profiles(
    user_ids uuid[], run_id uuid DEFAULT NULL, profile_role text DEFAULT 'user'
) RETURNS integer
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
    created integer;
BEGIN
    INSERT INTO public.user_profiles (id, email, phone, full_name, avatar_url, role, source, sync_run_id)
    SELECT
        account.id,
        nullif(account.email, ''),
        nullif(account.phone, ''),
        nullif(left(btrim(
            CASE jsonb_typeof(account.raw_user_meta_data -> 'full_name')
                WHEN 'string' THEN account.raw_user_meta_data ->> 'full_name' END
        ), 200), ''),
        nullif(left(btrim(
            CASE jsonb_typeof(account.raw_user_meta_data -> 'avatar_url')
                WHEN 'string' THEN account.raw_user_meta_data ->> 'avatar_url' END
        ), 2000), ''),
        profile_role,
        'sync',
        run_id
    FROM auth.users AS account
    WHERE account.id = ANY (user_ids) AND account.aud = 'authenticated' AND account.deleted_at IS NULL
    ON CONFLICT (id) DO NOTHING;
    GET DIAGNOSTICS created = ROW_COUNT;
    RETURN created;
END
$$;

-- The same for any number of users, of whom some may be refused: each of these costs only itself, and a few of its
-- neighbours a second try. Answers {created, vanished, failures: [{user_id, sqlstate, constraint, column}]}.
CREATE OR REPLACE FUNCTION app_private.create_profiles_severally(
    user_ids uuid[], run_id uuid DEFAULT NULL, profile_role text DEFAULT 'user'
) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
    at_once CONSTANT integer := 200;
    neighbours uuid[];
    candidate uuid;
    created integer := 0;
    vanished integer := 0;
    failures jsonb[] := '{}';  -- an array grows in place; a JSON one is written anew with each element
    refused_by_constraint text;
    refused_by_column text;
BEGIN
    FOR position_in_list IN 1 .. cardinality(user_ids) BY at_once LOOP
        neighbours := user_ids[position_in_list : position_in_list + at_once - 1];
        BEGIN
            created := created + app_private.create_profiles(neighbours, run_id, profile_role);
        EXCEPTION WHEN data_exception OR integrity_constraint_violation OR plpgsql_error THEN
            FOREACH candidate IN ARRAY neighbours LOOP
                BEGIN
                    created := created + app_private.create_profiles(ARRAY[candidate], run_id, profile_role);
                EXCEPTION
                    WHEN foreign_key_violation THEN
                        vanished := vanished + 1;
                    WHEN data_exception OR integrity_constraint_violation OR plpgsql_error THEN
                        GET STACKED DIAGNOSTICS
                            refused_by_constraint = CONSTRAINT_NAME,
                            refused_by_column = COLUMN_NAME;
                        failures := array_append(failures, jsonb_build_object(
                            'user_id', candidate, 'sqlstate', SQLSTATE,
                            'constraint', refused_by_constraint, 'column', refused_by_column
                        ));
                END;
            END LOOP;
        END;
    END LOOP;
    RETURN jsonb_build_object('created', created, 'vanished', vanished, 'failures', to_jsonb(failures));
END
$$;

-- Creates the next max_rows missing profiles behind after_user_id, in the order of the ids. The bound is told to both
-- sides of the join, or each call would read the profiles from the start again. A user whose row is
-- refused costs only itself. The profiles bear run_id.
-- Answers {attempted, created, vanished, last_user_id, failures: [{user_id, sqlstate, …}]}; fewer attempted than
-- max_rows means that nothing is left.
CREATE OR REPLACE FUNCTION public.profile_backfill(
    max_rows integer, after_user_id uuid DEFAULT '00000000-0000-0000-0000-000000000000', run_id uuid DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
    missing uuid[];
    creation jsonb;
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
    creation := app_private.create_profiles_severally(missing, run_id);
    IF cardinality(missing) < max_rows THEN
        -- Sign-ups that went through without their profile, and have it now, whoever made it.
        DELETE FROM app_private.profile_failures AS noted
        WHERE EXISTS (SELECT FROM public.user_profiles AS profile WHERE profile.id = noted.user_id);
    END IF;
    RETURN creation || jsonb_build_object(
        'attempted', cardinality(missing), 'last_user_id', missing[cardinality(missing)]
    );
END
$$;

-- Removes the profiles that a run made, as far as nobody touched them since, among the next max_rows behind
-- after_user_id in the order of the ids. Touched is a profile that was changed, or that a row of another table refers
-- to, whatever would become of that row. Answers {examined, removed, last_user_id, kept: [{user_id, reason}]}; fewer
-- examined than max_rows means that nothing is left.
CREATE OR REPLACE FUNCTION public.profile_undo(
    run_id uuid, max_rows integer, after_user_id uuid DEFAULT '00000000-0000-0000-0000-000000000000'
) RETURNS jsonb
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
    candidates uuid[];
    untouched uuid[];
    referred_to uuid[];
    kept jsonb;
    referring record;
    removed integer;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('user_sync_pipeline.profiles', 0));
    -- A change that is on its way is waited for, and found in what is read here.
    WITH examined AS (
        SELECT profile.id, profile.updated_at IS DISTINCT FROM profile.created_at AS is_changed
        FROM public.user_profiles AS profile
        WHERE profile.sync_run_id = run_id AND profile.id > after_user_id
        ORDER BY profile.id
        LIMIT max_rows
        FOR UPDATE
    )
    SELECT
        coalesce(array_agg(id ORDER BY id), '{}'),
        coalesce(array_agg(id) FILTER (WHERE NOT is_changed), '{}'),
        coalesce(
            jsonb_agg(jsonb_build_object('user_id', id, 'reason', 'changed since')) FILTER (WHERE is_changed), '[]'
        )
    INTO candidates, untouched, kept
    FROM examined;
    FOR referring IN
        SELECT key.conrelid::regclass AS relation, source.attname AS column_name, target.attname AS target_name
        FROM pg_catalog.pg_constraint AS key
        JOIN pg_catalog.pg_attribute AS source ON source.attrelid = key.conrelid AND source.attnum = key.conkey[1]
        JOIN pg_catalog.pg_attribute AS target ON target.attrelid = key.confrelid AND target.attnum = key.confkey[1]
        WHERE key.contype = 'f' AND key.confrelid = 'public.user_profiles'::regclass
    LOOP
        EXECUTE format(
            'SELECT coalesce(array_agg(profile.id), ''{}'') FROM public.user_profiles AS profile'
            ' WHERE profile.id = ANY ($1) AND EXISTS (SELECT FROM %s AS other WHERE other.%I = profile.%I)',
            referring.relation, referring.column_name, referring.target_name
        ) INTO referred_to USING untouched;
        kept := kept || (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'user_id', id, 'reason', format('in use by %s', referring.relation)
            )), '[]')
            FROM unnest(referred_to) AS id
        );
        untouched := ARRAY(SELECT unnest(untouched) EXCEPT SELECT unnest(referred_to));
    END LOOP;
    DELETE FROM public.user_profiles AS profile USING unnest(untouched) AS chosen (id) WHERE profile.id = chosen.id;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN jsonb_build_object(
        'examined', cardinality(candidates), 'removed', removed,
        'last_user_id', candidates[cardinality(candidates)], 'kept', kept
    );
END
$$;

-- The two tables. IF NOT EXISTS: a rollback keeps user_profiles where it holds what this pipeline did not make. -----

-- Where profiles are in use, this locks as a sign-up does, users before profiles, or each might wait for the other.
DO $$
BEGIN
    IF to_regclass('public.user_profiles') IS NOT NULL THEN
        LOCK TABLE auth.users IN SHARE ROW EXCLUSIVE MODE;
    END IF;
END
$$;

CREATE TABLE IF NOT EXISTS public.user_profiles (
    id          uuid CONSTRAINT user_profiles_pkey PRIMARY KEY,  -- refers to auth.users, see the end
    email       text,                            -- NULL for some, shared by some: no identity
    phone       text,
    full_name   text CONSTRAINT user_profiles_full_name_length CHECK (char_length(full_name) <= 200),
    avatar_url  text CONSTRAINT user_profiles_avatar_url_length CHECK (char_length(avatar_url) <= 2000),
    role        text NOT NULL DEFAULT 'user'
                CONSTRAINT user_profiles_role_allowed CHECK (role IN ('user', 'admin')),
    source      text NOT NULL DEFAULT 'manual'   -- who made the row; an application that inserts one is 'manual'
                CONSTRAINT user_profiles_source_known CHECK (source IN ('trigger', 'sync', 'manual')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    sync_run_id uuid                             -- the sync that made the row, which can be undone
);
COMMENT ON TABLE public.user_profiles IS 'One application profile per auth user; kept by user_sync_pipeline.';
COMMENT ON COLUMN public.user_profiles.role IS 'Set by the service only: never by the user, never from metadata.';

CREATE OR REPLACE TRIGGER user_profiles_set_updated_at
    BEFORE UPDATE ON public.user_profiles
    FOR EACH ROW EXECUTE FUNCTION app_private.set_updated_at();

CREATE TABLE IF NOT EXISTS app_private.profile_failures (
    user_id    uuid PRIMARY KEY,
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
    anonymous_users      bigint,   -- in scope, as the next two
    banned_users         bigint,   -- now
    unconfirmed_users    bigint,   -- with neither e-mail nor phone confirmed, anonymous ones aside
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
        count(*) FILTER (WHERE account.is_known AND NOT account.in_scope),
        count(account.id) FILTER (WHERE account.is_known IS NOT TRUE),
        count(*) FILTER (WHERE account.in_scope AND account.is_anonymous),
        count(*) FILTER (WHERE account.in_scope AND account.is_banned),
        count(*) FILTER (WHERE account.in_scope AND account.is_unconfirmed),
        EXISTS (
            SELECT FROM pg_catalog.pg_trigger
            WHERE tgrelid = to_regclass('auth.users')
              AND tgfoid = to_regproc('app_private.handle_new_auth_user')
              AND tgenabled IN ('O', 'A')
        )
    FROM (
        SELECT
            id,
            aud = 'authenticated' AS is_known,
            aud = 'authenticated' AND deleted_at IS NULL AS in_scope,
            is_anonymous,
            banned_until > now() AS is_banned,
            NOT is_anonymous AND email_confirmed_at IS NULL AND phone_confirmed_at IS NULL AS is_unconfirmed
        FROM auth.users
    ) AS account
    FULL JOIN public.user_profiles AS profile ON profile.id = account.id
$$;

-- EXECUTE is granted to everybody by default, and in older projects to the API's roles by name as well.
-- Firing a trigger takes no EXECUTE, so nobody needs it on what runs at sign-up.

REVOKE ALL ON SCHEMA app_private FROM PUBLIC, anon, authenticated, service_role;
REVOKE ALL ON app_private.profile_failures FROM PUBLIC, anon, authenticated, service_role;
REVOKE ALL ON FUNCTION
    app_private.handle_new_auth_user(), app_private.set_updated_at(), app_private.create_profiles(uuid[], uuid, text),
    app_private.create_profiles_severally(uuid[], uuid, text),
    public.profile_sync_report(), public.profile_backfill(integer, uuid, uuid),
    public.profile_undo(uuid, integer, uuid)
    FROM PUBLIC, anon, authenticated, service_role;
GRANT EXECUTE ON FUNCTION public.profile_sync_report() TO service_role;
GRANT EXECUTE ON FUNCTION public.profile_backfill(integer, uuid, uuid) TO service_role;
GRANT EXECUTE ON FUNCTION public.profile_undo(uuid, integer, uuid) TO service_role;

-- Last, what locks auth.users against writes: the references to it, and the trigger. --------------------------------
-- A table that holds rows already gets its foreign key from a person: checking them takes its time.

DO $$
DECLARE
    referring regclass;
    key name;
    is_missing boolean;
BEGIN
    FOR referring, key IN VALUES ('public.user_profiles', 'id'), ('app_private.profile_failures', 'user_id') LOOP
        EXECUTE format('SELECT NOT EXISTS (SELECT FROM %s)', referring) INTO is_missing;
        is_missing := is_missing AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_constraint
            WHERE conrelid = referring AND contype = 'f' AND confrelid = 'auth.users'::regclass
        );
        IF is_missing THEN
            EXECUTE format(
                'ALTER TABLE %s ADD FOREIGN KEY (%I) REFERENCES auth.users (id) ON DELETE CASCADE', referring, key
            );
        END IF;
    END LOOP;
END
$$;

-- OR REPLACE, because a trigger here is never dropped by name: only the owner of auth.users may,
-- and on a hosted project that locks every table of the sign-in service.

CREATE OR REPLACE TRIGGER on_auth_user_created
    AFTER INSERT ON auth.users
    FOR EACH ROW EXECUTE FUNCTION app_private.handle_new_auth_user();
